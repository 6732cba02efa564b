"""Feeds are one for all workers, and outlive the processes."""

import os
import signal
from pathlib import Path

import httpx
import pytest

from fastsse.client import Publisher, listen

SYMBOLS = [f"prices/{n:03}" for n in range(300)]


async def pages(url: str, feed: str, after: str = "") -> list[tuple[int, list[str]]]:
    """What each of several connections reads, of which the kernel gives some to each worker."""
    found = []
    for _ in range(8):
        async with httpx.AsyncClient(trust_env=False) as client:
            params = {"feed": feed, "wait": "0", "since": "earliest", "last_event_id": after}
            answer = await client.get(f"{url}/events", params=params)
            events = answer.json().get("events", [])
            found.append((answer.status_code, [one["data"] for one in events]))
    return found


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_feed_is_known_to_every_worker_and_after_kills(
    serve, tmp_path: Path, store: str
) -> None:
    address = store if store == "memory" else f"sqlite:{tmp_path / 'h.db'}"
    options = ("--workers", "2", "--store", address)
    service = await serve(*options)
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"{service.url}/feeds", json=SYMBOLS)
        feed = answer.json()["feed"]
    async with Publisher(service.url) as publisher:
        sent = await publisher.publish(SYMBOLS[7], "one")
        await publisher.publish(SYMBOLS[8], "two")
    assert await pages(service.url, feed) == [(200, ["one", "two"])] * 8
    assert await pages(service.url, feed, sent.id) == [(200, ["two"])] * 8
    assert {status for status, _ in await pages(service.url, "0" * 32)} == {404}
    os.kill(service.children()["hub"][0], signal.SIGKILL)
    async with Publisher(service.url) as publisher:
        await publisher.publish(SYMBOLS[9], "three")
    assert await pages(service.url, feed, sent.id) == [(200, ["two", "three"])] * 8
    if store == "sqlite":
        service.signal(signal.SIGKILL)
        await service.ended()
        again = await serve(*options)
        assert await pages(again.url, feed, sent.id) == [(200, ["two", "three"])] * 8


async def test_client_with_a_long_selection_reads_over_a_kill(serve, tmp_path: Path) -> None:
    options = ("--workers", "2", "--store", f"sqlite:{tmp_path / 'h.db'}")
    service = await serve(*options)
    async with listen(service.url, SYMBOLS, last_each=1) as events:
        async with Publisher(service.url) as publisher:
            await publisher.publish(SYMBOLS[0], "one")
        found = [await anext(events) for _ in range(2)]
        assert {one.event for one in found} == {"fastsse.snapshot", "message"}
        for pid in (pid for _, (pid, *_) in service.children().items()):
            os.kill(pid, signal.SIGKILL)
        async with Publisher(service.url) as publisher:
            await publisher.publish(SYMBOLS[299], "two")
        assert (await anext(events)).data == "two"
