"""What presence costs: 100,000 streams of one selector each come, are listed, and go."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest

from fastsse.control.presence import PresenceService
from fastsse.control.service import MemoryControlStore
from fastsse.entries import encode_entries
from fastsse.events import Event
from fastsse.positions import position_at

STREAMS = 100_000
A_TURN = 64


def messages(opened: bool) -> list[bytes]:
    """What workers tell, as many streams a turn as a burst has."""
    names = [f"urn:uuid:{number:08x}-0000-4000-8000-000000000000" for number in range(STREAMS)]
    changes = [
        (1, name, (f"users/{n}",), None) if opened else (0, name) for n, name in enumerate(names)
    ]
    return [orjson.dumps(changes[start : start + A_TURN]) for start in range(0, STREAMS, A_TURN)]


def encode(events: Any) -> None:
    """What a hub does first with events."""
    encode_entries(range(position_at(1), position_at(1) + len(events)), events)


def quiet(events: Any) -> None:
    """Publishes nothing."""


@pytest.mark.parametrize("publish", [quiet, encode])
def test_streams_come_and_go(benchmark: Any, publish: Callable[[Sequence[Event]], None]) -> None:
    """Both ways, an event each."""
    come, go = messages(True), messages(False)

    def all_of_them() -> None:
        service = PresenceService(lambda message: None, MemoryControlStore(), publish)
        for message in (*come, *go):
            service.on_message(0, message)

    benchmark.pedantic(all_of_them, rounds=3)
    benchmark.extra_info["us_a_change"] = benchmark.stats.stats.min / (2 * STREAMS) * 1e6


def test_a_killed_worker_is_taken_out(benchmark: Any) -> None:
    """All streams were its own."""
    come = messages(True)

    def filled() -> tuple[tuple[PresenceService], dict[str, Any]]:
        service = PresenceService(lambda message: None, MemoryControlStore(), quiet)
        for message in come:
            service.on_message(0, message)
        return (service,), {}

    async def leave(service: PresenceService) -> None:
        service.on_worker_gone(0)

    benchmark.pedantic(lambda service: asyncio.run(leave(service)), setup=filled, rounds=3)
