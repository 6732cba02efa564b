"""Presence of very many streams, without a server."""

import asyncio
import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from fastsse.control import presence as presence_module
from fastsse.control.presence import Presence, PresenceService
from fastsse.control.roster import LocalRoster
from fastsse.control.service import MemoryControlStore

STREAMS = 5_000
# Of everything but streams: modules that are imported late, pages of messages.
OTHERS = 200
# Wide: allocators and versions of Python differ.
STREAM_BYTES_MAX = 600


class Control:
    """A worker's way to the control service: keeps what is sent."""

    def __init__(self) -> None:
        self.on_back: list[Callable[[], None]] = []
        self.sent: list[bytes] = []

    def notify(self, subject: str, message: bytes) -> None:
        self.sent.append(message)


class Both:
    """The presence of a worker, and the control service that has it from there."""

    def __init__(self) -> None:
        self._control, self._turns = Control(), list[Callable[[], None]]()
        self.presence = Presence(self._control, self._turns.append)  # type: ignore[arg-type]
        self._service = PresenceService(
            None,  # type: ignore[arg-type]
            MemoryControlStore(),
            lambda events, done: done(True),
        )

    def pass_on(self) -> None:
        """The service receives what the worker has to say in this turn of its loop."""
        turns, self._turns[:] = self._turns[:], []
        for turn in turns:
            turn()
        messages, self._control.sent[:] = self._control.sent[:], []
        for message in messages:
            self._service.on_message(1, message)

    async def announce(self) -> None:
        """All changes are published."""
        roster = self._service._roster
        assert isinstance(roster, LocalRoster)
        while roster._goes_on:  # noqa: ASYNC110
            await asyncio.sleep(0)

    def listed(self, topic: str | None) -> tuple[int, list[list[object]]]:
        """How many streams the service knows of a topic, or of all, and three of them."""
        answers: list[bytes] = []
        self._service.on_request(1, orjson.dumps((topic, None, 3)), answers.append)
        (answer,) = answers
        found, listed = orjson.loads(answer)
        return found, listed


def seen_by_the_collector() -> int:
    gc.collect()
    gc.collect()  # A tuple of tuples is untracked after those are.
    return len(gc.get_objects())


def held_bytes() -> int:
    """What the code of control services holds, without garbage. The interpreter's table of interned
    names is left out: it is one of all, and doubles at times."""
    gc.collect()
    ours = tracemalloc.Filter(True, str(Path(presence_module.__file__).parent / "*"))
    snapshot = tracemalloc.take_snapshot().filter_traces([ours])
    return sum(trace.size for trace in snapshot.traces if trace.size < 1 << 20)


@pytest.mark.parametrize("payload", [None, {"name": "ann", "roles": ["a", "b"]}], ids=["no", "one"])
async def test_the_garbage_collector_does_not_see_the_streams_of_presence(
    payload: object,
) -> None:
    both = Both()
    before = seen_by_the_collector()
    for stream in range(STREAMS):
        both.presence.on_stream_opened(stream, (f"user/{stream % 4_000}", "news"), payload)
    both.pass_on()
    await both.announce()
    assert seen_by_the_collector() < before + OTHERS
    for topic, count in ((None, 2 * STREAMS), ("news", STREAMS), ("user/1", 2)):
        found, listed = both.listed(topic)
        assert found == count
        assert [one[2] for one in listed] == [payload] * min(count, 3)
    for stream in range(STREAMS):
        both.presence.on_stream_closed(stream)
    both.pass_on()
    assert both.listed(None) == (0, [])


@pytest.mark.parametrize("payload", [None, {"name": "ann", "roles": ["a", "b"]}], ids=["no", "one"])
async def test_memory_of_a_stream_is_bounded_in_the_worker_and_in_the_control_service(
    payload: object, capsys: pytest.CaptureFixture[str]
) -> None:
    both = Both()
    both.presence.on_stream_opened(STREAMS, ("news",), payload)
    both.pass_on()
    tracemalloc.start()
    try:
        before = held_bytes()
        for stream in range(STREAMS):
            both.presence.on_stream_opened(stream, ("news",), payload)
            both.pass_on()
        await both.announce()
        each = (held_bytes() - before) / STREAMS
    finally:
        tracemalloc.stop()
    with capsys.disabled():
        print(f"\npresence of a stream with equal payload: {each:.0f} B of Python in both")
    assert both.listed("news")[0] == STREAMS + 1
    assert each < STREAM_BYTES_MAX
