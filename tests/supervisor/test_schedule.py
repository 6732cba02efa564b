"""The schedule over workers and kills: delayed events are published exactly once, and on time."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import httpx

from fastsse.client import Publisher, listen
from fastsse.client.errors import ClientError


async def schedule(url: str) -> dict:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"{url}/schedule")).json()


async def test_what_is_due_while_no_process_runs_is_published_at_the_start(
    serve, tmp_path: Path
) -> None:
    options = ("--workers", "2", "--store", f"sqlite:{tmp_path / 'h.db'}")
    service = await serve(*options)
    async with Publisher(service.url) as publisher:
        await publisher.publish("a", "soon", delay="100ms")
        later = await publisher.publish("a", "never", delay="1h")
        await publisher.publish("a", "at the start", delay="500ms")
        assert (await publisher.publish("b", "x")).scheduled == ""
    service.signal(signal.SIGKILL)  # Each 202 was in the file.
    await service.ended()
    again = await serve(*options)
    data = []
    async for event in listen(again.url, "a", since="earliest"):
        data.append(event.data)
        if len(data) == 2:
            break
    assert data == ["soon", "at the start"]
    assert [one["id"] for one in (await schedule(again.url))["scheduled"]] == [later.scheduled]
    async with Publisher(again.url) as publisher:
        await publisher.cancel(later.scheduled)
    assert (await schedule(again.url))["scheduled"] == []


async def test_delayed_events_are_published_exactly_once_over_kills_of_the_hub(
    serve, tmp_path: Path
) -> None:
    service = await serve("--workers", "2", "--store", f"sqlite:{tmp_path / 'h.db'}")
    rand, count = random.Random(7), 300

    async def publish(publisher: Publisher, n: int) -> None:
        while True:
            try:
                await publisher.publish("a", n, delay=rand.random() * 3, key=f"k{n}")
                return
            except ClientError:
                await asyncio.sleep(0.01)

    kills: list[int] = []

    async def kill() -> None:
        for _ in range(6):
            await asyncio.sleep(rand.uniform(0.2, 0.5))
            for pid in service.children()["hub"][:1]:  # None: it has not started again.
                os.kill(pid, signal.SIGKILL)
                kills.append(pid)

    async with Publisher(service.url) as publisher:
        killing = asyncio.create_task(kill())
        for begin in range(0, count, 20):
            await asyncio.gather(*(publish(publisher, n) for n in range(begin, begin + 20)))
        await killing
        seen: Counter[str] = Counter()
        await publisher.publish("a", "end", delay=4)
        async with asyncio.timeout(60):
            async for event in listen(service.url, "a", since="earliest"):
                assert event.gap is None, event
                seen[event.data] += 1
                if event.data == "end":
                    break
    assert seen == Counter({"end": 1} | {str(n): 1 for n in range(count)})
    assert (await schedule(service.url))["scheduled"] == []
    assert len(kills) >= 2


async def test_delayed_events_come_in_order_and_none_is_early(serve) -> None:
    service = await serve("--workers", "2")
    async with Publisher(service.url) as publisher, listen(service.url, "a") as events:
        due_ms = [round(time.time() * 1000) + 300 + 50 * n for n in range(10)]
        for at_ms in due_ms:
            await publisher.publish("a", at_ms, deliver_at=at_ms)
        for at_ms in due_ms:
            assert (await anext(events)).data == str(at_ms)
            assert time.time() * 1000 >= at_ms
