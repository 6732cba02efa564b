"""Presence of very many streams, without a server."""

import gc
import tracemalloc
from collections.abc import Callable

import orjson
import pytest

from fastsse.control.presence import Presence, PresenceService
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


def seen_by_the_collector() -> int:
    gc.collect()
    gc.collect()  # A tuple of tuples is untracked after those are.
    return len(gc.get_objects())


@pytest.mark.parametrize("payload", [None, {"name": "ann", "roles": ["a", "b"]}], ids=["no", "one"])
def test_the_garbage_collector_does_not_see_the_streams_of_presence(payload: object) -> None:
    control, turns = Control(), []
    presence = Presence(control, turns.append)  # type: ignore[arg-type]
    service = PresenceService(
        None,  # type: ignore[arg-type]
        MemoryControlStore(),
        lambda events, done: None,
    )
    before = seen_by_the_collector()
    for stream in range(STREAMS):
        presence.on_stream_opened(stream, (f"user/{stream % 4_000}", "news"), payload)
    for turn in turns:
        turn()
    for message in control.sent:
        service.on_message(1, message)
    assert seen_by_the_collector() < before + OTHERS
    answers: list[bytes] = []
    for topic, count in ((None, 2 * STREAMS), ("news", STREAMS), ("user/1", 2)):
        service.on_request(1, orjson.dumps((topic, None, 3)), answers.append)
        found, listed = orjson.loads(answers.pop())
        assert found == count
        assert all(one[2] == payload for one in listed)
    for stream in range(STREAMS):
        presence.on_stream_closed(stream)
    control.sent.clear()
    for turn in turns:
        turn()
    for message in control.sent:
        service.on_message(1, message)
    service.on_request(1, orjson.dumps((None, None, 3)), answers.append)
    assert answers == [b"[0,[]]"]


@pytest.mark.parametrize("payload", [None, {"name": "ann", "roles": ["a", "b"]}], ids=["no", "one"])
def test_memory_of_a_stream_is_bounded_in_the_worker_and_in_the_control_service(
    payload: object, capsys: pytest.CaptureFixture[str]
) -> None:
    control, turns = Control(), []
    presence = Presence(control, turns.append)  # type: ignore[arg-type]
    service = PresenceService(
        None,  # type: ignore[arg-type]
        MemoryControlStore(),
        lambda events, done: None,
    )
    presence.on_stream_opened(STREAMS, ("news",), payload)
    turns.pop()()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for stream in range(STREAMS):
            presence.on_stream_opened(stream, ("news",), payload)
            turns.pop()()
            if len(control.sent) == 1:
                service.on_message(1, control.sent.pop())
        each = (tracemalloc.get_traced_memory()[0] - before) / STREAMS
    finally:
        tracemalloc.stop()
    with capsys.disabled():
        print(f"\npresence of a stream with equal payload: {each:.0f} B of Python in both")
    assert each < STREAM_BYTES_MAX
