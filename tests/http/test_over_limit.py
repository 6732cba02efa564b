"""Over a client's limit of streams the oldest makes room, where that is chosen."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from fastsse.api.rate_limits import RateLimits
from fastsse.config import Config
from tests.http.conftest import Start
from tests.http.raw import connected, get, opened, until
from tests.supervisor.conftest import Serve, serve

__all__ = ["serve"]
SUBSCRIBE = get("/events?topic=a")


async def test_a_newcomer_over_the_limit_ends_the_oldest(start: Start) -> None:
    server = await start(address_streams=2, over_limit="oldest")
    async with connected(server) as one, connected(server) as two, connected(server) as three:
        for raw in (one, two, three):
            await raw.send(SUBSCRIBE)
            await (await raw.stream()).opening()
        await one.rest()
        await until(lambda: server.stream_count == 2)
        server.publish("a", "for two")
        for raw in (two, three):
            await raw.reader.readuntil(b"for two")
    assert server._worker._reading().counters["limited_evicted"] == 1


@pytest.mark.parametrize("first_ends_itself", [False, True])
def test_one_that_is_on_its_way_out_is_not_counted(first_ends_itself: bool) -> None:
    limits = RateLimits(Config(address_streams=2, over_limit="oldest"), lambda: 100.0)
    ended: list[int] = []
    limits.end_stream = ended.append
    owner = limits.owner("203.0.113.5", None)
    for stream in (1, 2, 3):
        assert limits.may_open(owner, replays=False)
        limits.on_stream_opened(stream, owner)
    assert ended == [1]
    if first_ends_itself:
        limits.on_stream_closed(2)
    limits.on_stream_opened(4, owner)
    assert ended == ([1] if first_ends_itself else [1, 2])
    for stream in (1, 2, 3, 4):
        limits.on_stream_closed(stream)
    assert (limits._held, limits._evicted, limits._owners) == ({}, set(), {})


async def test_the_oldest_may_be_in_another_worker(serve: Serve) -> None:
    service = await serve("--workers", "2", "--address-streams", "1", "--over-limit", "oldest")
    # Each connection falls to a worker by chance, so both ways are gone.
    for _ in range(4):
        async with opened(service.url) as raw, AsyncExitStack() as stack:
            await raw.send(SUBSCRIBE)
            await (await raw.stream()).opening()
            older = asyncio.ensure_future(raw.rest())
            # Until the other worker has learned of it, a tenth of a second, one more gets in.
            while not older.done():
                newer = await stack.enter_async_context(opened(service.url))
                await newer.send(SUBSCRIBE)
                await (await newer.stream()).opening()
                await asyncio.wait([older], timeout=0.5)


def test_streams_that_became_known_late_make_room_too() -> None:
    limits = RateLimits(Config(address_streams=1, over_limit="oldest"), lambda: 100.0)
    ended: list[int] = []
    limits.end_stream = ended.append
    owner = limits.owner("203.0.113.5", None)
    limits.on_stream_opened(1, owner)
    # Another worker has one since before that, which it reports now.
    account = limits._addresses.find(owner.address)
    assert account is not None
    account.streams += 1
    limits.usage = usage = Elsewhere()  # type: ignore[assignment]
    limits.on_stream_opened(2, owner)
    assert ended == [1]
    assert usage.ended == [(0, owner.address)]
    # What is on its way to its end is not ended twice.
    limits.on_stream_opened(3, owner)
    assert ended == [1, 2]
    assert len(usage.ended) == 1


class Elsewhere:
    """Takes what is said of other workers' streams."""

    def __init__(self) -> None:
        self.ended: list[tuple[int, str]] = []

    def end_oldest(self, account: tuple[int, str]) -> None:
        self.ended.append(account)

    def used(self, usage: object) -> None: ...
