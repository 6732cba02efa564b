"""Many streams held: small here."""

import io
import json
import urllib.error
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import click
import pytest
from click.testing import CliRunner

from loadtests import hold
from loadtests.hold import main


@pytest.mark.parametrize("options", [[], ["--presence"], ["--tokens", "--presence"]])
def test_all_streams_receive_each_broadcast_and_the_sample_resumes(
    options: list[str], tmp_path: Path
) -> None:
    small = ["--connections", "300", "--broadcasts", "1", "--sample", "5", "--patience", "60"]
    done = CliRunner().invoke(main, [*small, *options, "--store", f"sqlite:{tmp_path}/h.db"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.output)
    assert figures["events_received"] == 300 * 3
    assert figures["sample_resumed_exactly"] == "5 of 5"
    assert figures["opened"] == 300
    assert not figures["ended_early"]
    assert figures["kind"] == ", ".join(
        [*(option[2:] for option in sorted(options, reverse=True)), "sqlite"]
    )
    assert figures["environment"]["kernel"]
    assert figures["environment"]["command"].startswith("python -m loadtests.hold")


def answers(*statuses: int) -> Any:
    """`urlopen` of a server that gives these answers."""
    left = iter(statuses)

    def urlopen(url: str, timeout: float) -> io.BytesIO:
        if (status := next(left)) != 200:
            headers = Message()
            headers["Retry-After"] = "0"
            raise urllib.error.HTTPError(url, status, "", headers, io.BytesIO(b"why"))
        return io.BytesIO(b'{"connections": 7}')

    return urlopen


def test_figures_are_asked_for_again_while_a_worker_is_too_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = cast(Any, SimpleNamespace(url="http://127.0.0.1:1"))
    monkeypatch.setattr("urllib.request.urlopen", answers(503, 503, 200))
    assert hold.stats(server) == {"connections": 7}
    for status, patience_s in ((500, 30), (503, -1)):
        monkeypatch.setattr("urllib.request.urlopen", answers(status))
        monkeypatch.setattr(hold, "BUSY_S", patience_s)
        with pytest.raises(click.ClickException, match=f"{status}: why"):
            hold.stats(server)


def test_a_step_that_is_not_done_in_time_is_named() -> None:
    done = CliRunner().invoke(main, ["--connections", "300", "--patience", "0", "--sample", "0"])
    assert done.exit_code == 1
    assert "not within 0 s" in json.loads(done.output)["broke"]
