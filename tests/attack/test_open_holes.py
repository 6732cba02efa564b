"""Attacks that get through. Each is the promise that it breaks, and is expected to fail until the
hole is closed; it then fails the suite until its mark is taken away."""

import asyncio
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastsse import _core
from fastsse.config import Config
from fastsse.hub.history import History
from fastsse.hub.topics import Rules, Topics
from fastsse.server import Server
from tests.core.conftest import Hub, wait_until
from tests.eventstream import Message, parse
from tests.http.raw import connected, get, request
from tests.hub.readers import Audience, memory_pages, read

MakeHub = Callable[..., Hub]
PROGRAMS = Path(__file__).with_name("programs")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def make_hub() -> Iterator[MakeHub]:
    made: list[Hub] = []

    def make(**options: object) -> Hub:
        made.append(Hub(**options))
        made[-1].sender.add_channel(1, [1])
        return made[-1]

    yield make
    for hub in made:
        hub.stop()


def said_by(program: str) -> str:
    """What a program of its own process says: these attacks would take the tests' descriptors."""
    folders = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, PROGRAMS / program],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
    )
    return done.stdout.strip() or done.stderr


def bytes_kept_by_replays(count: int) -> int:
    """What is allocated after so many replays of one small event, each for a set of its own."""
    history = History(Topics(Rules(Config(), "disconnect"), 0), 1 << 20, 0)
    hot = history._topics.intern("hot")
    history.append(_core.encode_frame(b"x", None, b"1-1", 0, (1 << 64) | 1), (hot,), None)
    pages = memory_pages(history, cache_bytes=64 * 1024)
    tracemalloc.start()
    try:
        for number in range(count):
            names = tuple(f"{number}-{index}".ljust(150, "z") for index in range(99))
            read(pages, Audience(("hot", *names), (hot,)), 0)
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_replays_of_many_sets_of_topics_leave_only_bounded_memory() -> None:
    assert bytes_kept_by_replays(400) < 1 << 20


def test_health_answers_with_all_streams_taken_under_a_small_descriptor_limit() -> None:
    assert said_by("few_descriptors.py") == "alive"


def test_a_drain_ends_the_stuck_at_its_windows_end_also_below_free_slots(make_hub: MakeHub) -> None:
    hub = make_hub()
    stuck = hub.connect(1, send_buffer=4096)
    gone = hub.connect(1)
    gone.peer.close()
    hub.wait_closed(gone)
    while hub.count("blocked") == 0:
        hub.publish(b"f" * 3000)
        hub.settle()
    hub.sender.drain(1000)
    hub.settle()
    hub.sender.advance_clock(1500)
    assert hub.wait_closed(stuck)[3] == "drained"
    assert hub.count("closed_drained") == 1


def events_of_one_who_lagged_again_and_again(hub: Hub) -> list[Message]:
    client = hub.connect(1, send_buffer=4096)
    while hub.count("blocked") == 0:
        hub.publish(b"f" * 3000, policy=_core.POLICY_SKIP)
        hub.settle()
    hub.sender.advance_clock(6_000)
    for _ in range(3):
        skipped = hub.count("skipped")
        for _ in range(3):
            last = hub.publish(b"small", policy=_core.POLICY_SKIP)
        hub.settle()
        wait_until(lambda before=skipped: hub.count("skipped") > before)  # type: ignore[misc]
    client.read_until(last.body)
    return parse(client.got).events


def test_a_gap_says_as_requested_only_what_the_client_got(make_hub: MakeHub) -> None:
    hub = make_hub(max_lag_bytes=1 << 20, max_lag_ms=5_000, tick_ms=1)
    events = events_of_one_who_lagged_again_and_again(hub)
    got = {event.last_event_id for event in events if event.type != "fastsse.gap"}
    gaps = [json.loads(event.data) for event in events if event.type == "fastsse.gap"]
    assert gaps
    assert {gap["requested"] for gap in gaps} <= got | {None}


async def test_one_event_that_was_let_in_is_no_lag_however_many_lines_it_has() -> None:
    # Proportions as by default: max_lag is four times max_body.
    config = Config(port=0, drain=0, max_body="1MiB", max_lag="4MiB", access_lines=0)
    async with Server(config) as server, connected(server) as reader, connected(server) as raw:
        await reader.send(get("/events?topic=a"))
        stream = await reader.stream()
        await stream.opening()
        await raw.send(request("POST", "/events?topic=a", body=b"\n" * (1 << 20)))
        assert (await raw.answer()).status == 200
        # Longer than the sender takes for a round of its table; no client reads meanwhile.
        async with connected(server) as idle:
            await idle.send(get("/events?topic=other"))
            other = await idle.stream()
            await other.opening()
            await asyncio.sleep(1.5)
        try:
            event = await stream.next()
        except (EOFError, ConnectionError, AssertionError):
            pytest.fail("the stream was cut inside the event")
        assert len(event.data) == 1 << 20


async def test_a_rebound_name_can_not_publish_to_a_loopback_server() -> None:
    async with (
        Server(Config(port=0, drain=0, access_lines=0)) as server,
        connected(server) as raw,
    ):
        await raw.send(
            b"POST /events?topic=a HTTP/1.1\r\nHost: evil.example:8080\r\n"
            b"Origin: http://evil.example:8080\r\nContent-Length: 1\r\n\r\nx"
        )
        assert (await raw.answer()).status in (400, 403, 421)
