"""What every source promises, each with a real server of its system.

A log in memory stands behind the source, which can refuse. `test_kafka.py` and its siblings have
what a system alone can do, and the same with whole nodes.
"""

import asyncio
import json
import pathlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from fastsse.config import Config
from fastsse.errors import FastsseError, Unavailable
from fastsse.events import Event
from fastsse.sources import Sources
from fastsse.sources.preview import preview
from fastsse.sources.source import SourceAway
from tests.sources.systems import SYSTEMS, System

TIMEOUT_S = 60


class Log:
    """Takes events, in order.

    Attributes:
        data: of the events.
        refusal: what is answered instead; None takes them.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.refusal: FastsseError | None = None
        self.refused = 0

    @property
    def data(self) -> list[str]:
        return [event.data.decode() for event in self.events]

    def publish(self, events: Sequence[Event], done: Callable[[Any], None]) -> None:
        if self.refusal is not None:
            self.refused += 1
            done(self.refusal)
            return
        self.events += events
        done(range(len(events)))


async def until(is_so: Callable[[], bool], *about: Callable[[], object]) -> None:
    """Waits until something is so."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while not is_so():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"it never was so: {[one() for one in about]}") from None


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[System]:
    """A server that is not started."""
    found: System = SYSTEMS[request.param](tmp_path / "system")
    yield found
    found.close()


@asynccontextmanager
async def reading(given: dict[str, Any], log: Log) -> AsyncIterator[Sources]:
    """One source; it ends with the block."""
    others = set(threading.enumerate())
    sources = Sources(Config(sources=[given]), log.publish)
    sources.begin()
    try:
        yield sources
    finally:
        await sources.close()
        await asyncio.to_thread(_join_clients, others)


def _join_clients(others: set[threading.Thread]) -> None:
    """Returns when clients of Kafka that were left behind after a second have closed, too; but not
    those of sources that are still there."""
    for thread in set(threading.enumerate()) - others:
        if thread.name.startswith("kafka-"):
            thread.join(60)


@asynccontextmanager
async def running(system: System, log: Log, **rule: Any) -> AsyncIterator[Sources]:
    """The source of a system."""
    async with reading({"name": "s", "topic": "t", **system.rule, **rule}, log) as sources:
        yield sources


async def until_read(system: System, sources: Sources) -> None:
    await until(lambda: sources.states()[0]["state"] == "ready" and system.is_read())


def numbers(first: int, behind: int) -> list[bytes]:
    return [str(number).encode() for number in range(first, behind)]


def count_of(sources: Sources, what: str) -> int:
    return sources.counters()[f"sources_{what}"]


async def test_messages_become_events_in_their_order(system: System) -> None:
    system.start()
    log = Log()
    async with running(system, log) as sources:
        await until_read(system, sources)
        system.send(numbers(0, 1_000))
        await until(lambda: len(log.events) >= 1_000, lambda: len(log.events))
        assert log.data == [str(number) for number in range(1_000)]
        assert count_of(sources, "events") == 1_000
        await until(lambda: sources.states()[0]["lag_ms"] == 0)


async def test_messages_that_were_sent_without_a_reader_come_later(system: System) -> None:
    if not system.keeps:
        pytest.skip("it keeps no message")
    system.start()
    log = Log()
    system.send(numbers(0, 10))
    async with running(system, log):
        await until(lambda: len(log.events) == 10)
    system.send(numbers(10, 20))
    async with running(system, log):
        await until(lambda: len(log.events) >= 20)
    assert log.data == [str(number) for number in range(20)]


async def test_messages_wait_while_the_log_refuses(system: System) -> None:
    system.start()
    log = Log()
    log.refusal = Unavailable("memory", 5)
    async with running(system, log, pending=10_000) as sources:
        await until_read(system, sources)
        system.send(numbers(0, 100))
        await until(lambda: log.refused >= 3)
        assert count_of(sources, "refused") >= 3
        log.refusal = None
        await until(lambda: len(log.events) >= 100)
        assert log.data == [str(number) for number in range(100)]


BAD = (b"", b"{", b"\xff\xfe", b"[" * 5_000)


async def test_bad_messages_are_set_aside_and_the_others_go_on(
    system: System, tmp_path: pathlib.Path
) -> None:
    if getattr(system, "takes_text_only", False):
        pytest.skip("its messages are short texts")
    system.start()
    log = Log()
    letters = tmp_path / "letters"
    async with running(system, log, payload="json", dead_letter=f"file:{letters}") as sources:
        await until_read(system, sources)
        system.send([b"1", *BAD, b"2", b"x" * 1_500_000, b"3"])
        await until(lambda: len(log.events) >= 3, lambda: log.data)
        assert log.data == ["1", "2", "3"]
        bad = len(BAD) + 1
        assert count_of(sources, "skipped") == bad
        await until(lambda: letters.exists() and letters.read_bytes().count(b"\n") == bad)
    lines = [json.loads(line) for line in letters.read_bytes().splitlines()]
    assert all(line["source"] == "s" and line["origin"] for line in lines)
    assert "max_body" in lines[-1]["why"]
    assert lines[-1]["payload"] == "x" * 1_500_000


async def test_an_event_that_the_log_never_takes_is_set_aside(system: System) -> None:
    system.start()
    log = Log()
    async with running(system, log, topic="t/{data.n}", payload="json") as sources:
        await until_read(system, sources)
        system.send([b'{"n":"a"}', b'{"n":"a\\nb"}', b'{"m":1}', b'{"n":2}'])
        await until(lambda: len(log.events) >= 2)
        assert [event.topics for event in log.events] == [("t/a",), ("t/2",)]
        assert count_of(sources, "skipped") == 2


async def test_a_filter_leaves_events_out(system: System) -> None:
    system.start()
    log = Log()
    rule = {"payload": "json", "filter": 'data.level == "error" || meta.n > 8'}
    async with running(system, log, meta={"n": "{data.n}"}, **rule) as sources:
        await until_read(system, sources)
        system.send(
            json.dumps({"level": "error" if n % 5 == 0 else "info", "n": n}).encode()
            for n in range(10)
        )
        await until(lambda: len(log.events) >= 3)
        assert [json.loads(event.data)["n"] for event in log.events] == [0, 5, 9]
        assert [event.meta for event in log.events] == [b'{"n":0}', b'{"n":5}', b'{"n":9}']
        assert count_of(sources, "filtered") == 7


async def test_a_paused_source_reads_nothing_and_goes_on_where_it_was(system: System) -> None:
    system.start()
    log = Log()
    async with running(system, log, pending=10_000) as sources:
        await until_read(system, sources)
        system.send(numbers(0, 5))
        await until(lambda: len(log.events) == 5)
        assert sources.pause("s")
        assert not sources.pause("another")
        assert sources.states()[0]["state"] == "paused"
        # A read that is under way may still take some.
        await asyncio.sleep(1.5)
        system.send(numbers(5, 50))
        await asyncio.sleep(1.5)
        assert len(log.events) == 5
        sources.resume("s")
        await until(lambda: len(log.events) >= 50)
        assert log.data == [str(number) for number in range(50)]


async def test_a_system_that_is_away_at_the_start_is_reported_and_read_later(
    system: System,
) -> None:
    log = Log()
    async with running(system, log) as sources:
        await until(lambda: sources.states()[0]["state"] == "away")
        where = (
            str(urlsplit(system.rule["url"]).port)
            if "url" in system.rule
            else system.rule["files"][0]
        )
        assert where in sources.states()[0]["trouble"]
        assert sources.counters()["source_up_s"] == 0
        system.start()
        await until_read(system, sources)
        assert sources.counters()["source_up_s"] == 1
        system.send(numbers(0, 10))
        await until(lambda: len(log.events) >= 10)
        assert log.data == [str(number) for number in range(10)]


async def test_a_system_that_is_killed_is_reported_and_read_again(system: System) -> None:
    system.start()
    log = Log()
    async with running(system, log) as sources:
        await until_read(system, sources)
        system.send(numbers(0, 10))
        await until(lambda: len(log.events) == 10)
        system.kill()
        await until(lambda: sources.states()[0]["state"] == "away")
        system.start()
        await until_read(system, sources)
        system.send(numbers(10, 20))
        await until(lambda: "19" in log.data, lambda: log.data)
        seen = log.data
        if getattr(system, "forgets_acknowledgements", False):
            seen = list(dict.fromkeys(seen))
        assert seen == [str(number) for number in range(20)]


async def test_a_preview_shows_what_messages_would_become_and_consumes_none(
    system: System,
) -> None:
    system.start()
    given = {"name": "s", "topic": "t/{data.n}", "payload": "json", **system.rule}
    config = Config(sources=[given | {"filter": "data.n != 2"}])
    rule = config.sources[0]
    if system.keeps:
        system.send([b'{"n":1}', b'{"n":2}', b"no JSON"])
        outcomes = await preview(config, rule, 3, 5.0)
    else:
        previewing = asyncio.create_task(preview(config, rule, 3, 5.0))
        await until(system.is_read)
        system.send([b'{"n":1}', b'{"n":2}', b"no JSON"])
        outcomes = await previewing
    event, filtered, bad = (outcome for _, outcome in outcomes)
    assert isinstance(event, Event)
    assert event.topics == ("t/1",)
    assert filtered is None
    assert "no JSON" in str(bad)
    if system.keeps:
        log = Log()
        async with running(system, log):
            await until(lambda: len(log.events) == 3)


async def test_a_preview_of_a_system_that_is_away_says_so(system: System) -> None:
    config = Config(sources=[{"name": "s", "topic": "t", **system.rule}])
    with pytest.raises(SourceAway):
        await preview(config, config.sources[0], 3, 0.5)
