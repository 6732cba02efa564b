"""Two readers of one group, as two nodes are: each message is taken by one of them."""

import asyncio
import pathlib
from collections.abc import Iterator

import pytest

from fastsse.errors import Unavailable
from tests.sources.systems import SYSTEMS, System
from tests.sources.test_contract import Log, numbers, running, until, until_read

HELD, MORE = 10, 990


@pytest.fixture
def system(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[System]:
    """A server that is started."""
    found: System = SYSTEMS[request.param](tmp_path / "system")
    found.start()
    yield found
    found.close()


def _all(*logs: Log) -> list[int]:
    return sorted(int(text) for log in logs for text in log.data)


@pytest.mark.parametrize("system", ["redis-stream", "jetstream", "postgres-outbox"], indirect=True)
async def test_what_one_reader_holds_the_other_one_does_not_take(system: System) -> None:
    """The log of the first one refuses, so it holds what it has read."""
    one, two = Log(), Log()
    one.refusal = Unavailable("memory", 5)
    async with running(system, one) as sources:
        await until_read(system, sources)
        await asyncio.to_thread(system.send, numbers(0, HELD))
        await until(lambda: one.refused > 0)
        async with running(system, two):
            await asyncio.to_thread(system.send, numbers(HELD, HELD + MORE))
            await until(lambda: len(one.events) + len(two.events) >= MORE, lambda: len(two.events))
            one.refusal = None
            await until(lambda: len(one.events) + len(two.events) >= HELD + MORE)
            assert _all(one, two) == list(range(HELD + MORE))
            assert one.data


@pytest.mark.parametrize("system", ["nats"], indirect=True)
async def test_readers_that_are_sent_messages_share_them(system: System) -> None:
    one, two = Log(), Log()
    async with running(system, one) as first, running(system, two) as second:
        await until_read(system, first)
        await until_read(system, second)
        await asyncio.to_thread(system.send, numbers(0, MORE))
        await until(lambda: len(one.events) + len(two.events) >= MORE)
        assert _all(one, two) == list(range(MORE))
