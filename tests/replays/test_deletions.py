"""Deletions over every store, with two workers: no read shows what was deleted, also after kills
and a restart, and nothing else is missing."""

import os
import signal

from fastsse.client import Publisher, listen
from tests.http.raw import until
from tests.replays.test_gaps import redis, store
from tests.supervisor.conftest import serve
from tests.supervisor.service import Service

__all__ = ["redis", "serve", "store"]

READS = (
    (["a", "b"], {"since": "earliest"}),
    ("*", {"since": "earliest"}),
    ("{x}", {"since": "earliest"}),
    (["a", "b"], {"last_each": 9}),
)


async def read(url: str, topics: list[str] | str, begin: dict[str, object], end: str) -> list[str]:
    """The data of the events up to one with this id. Each stream is a connection of its own, so
    both workers are asked."""
    found = []
    async with listen(url, topics, **begin) as stream:
        async for event in stream:
            assert event.gap is None
            if event.event != "fastsse.snapshot":
                found.append(event.data)
            if event.id == end:
                return found
    raise AssertionError(found)


async def check(service: Service, expected: list[str]) -> None:
    async with Publisher(service.url) as publisher:
        last = (await publisher.publish("b", "last")).id
    expected.append("last")
    for topics, begin in READS:
        for _ in range(3):
            assert await read(service.url, topics, dict(begin), last) == expected


async def test_deleted_events_are_gone_for_good_and_nothing_else_is(serve, store) -> None:
    options = ("--workers", "2", "--store", store)
    service: Service = await serve(*options)
    async with Publisher(service.url) as publisher:
        ids = [(await publisher.publish("a", f"a{n}", id=f"own{n}")).id for n in range(4)]
        await publisher.publish(["a", "b"], "both")
        await publisher.publish("b", "b0")
        await publisher.delete_event("a", ids[1])
    await check(service, expected := ["a0", "a2", "a3", "both", "b0"])
    (hub,) = service.children()["hub"]
    os.kill(hub, signal.SIGKILL)
    await until(lambda: service.children()["hub"] not in ([], [hub]))
    await check(service, expected)  # A hub without a store has the history of its workers now.
    worker, _ = service.children()["worker"]
    os.kill(worker, signal.SIGKILL)
    await until(lambda: len(set(service.children()["worker"]) - {worker}) == 2)
    await check(service, expected)
    async with Publisher(service.url) as publisher:
        await publisher.purge_topic("a")
        # A cursor at a deleted event is still a place.
        last = (await publisher.publish("b", "behind")).id
    expected = ["b0", "last", "last", "last", "behind"]
    assert await read(service.url, ["a", "b"], {"last_event_id": ids[1]}, last) == expected
    await check(service, expected)
    if store == "memory":
        return
    service.signal(signal.SIGKILL)
    await service.ended()
    service = await serve(*options)
    await check(service, expected)
