"""What several processes keep in memory outlives each of them, however much it is."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import httpx
import pytest

from fastsse.client import listen
from tests.supervisor.service import TIMEOUT_S, Service, gone

Serve = Callable[..., Awaitable[Service]]
KEPT = ("--workers", "2", "--store", "memory", "--history-events", "20000", "--retry", "10ms")
EVENTS = 6_000


async def publish(service: Service, *data: str) -> None:
    """Until it is taken: while there is no hub it may be refused."""
    lines = "".join(f'{{"topic": "t", "data": "{one}"}}\n' for one in data)
    headers = {"content-type": "application/x-ndjson"}
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
                url = f"{service.url}/events"
                answer = await client.post(url, content=lines, headers=headers)
            if answer.status_code == 200:
                return
            assert answer.status_code == 503


async def everything(service: Service, last: str) -> list[str]:
    """What a client that begins at the earliest event is given up to the last."""
    found: list[str] = []
    async with asyncio.timeout(TIMEOUT_S):
        async with listen(service.url, "t", last_event_id="earliest") as stream:
            async for event in stream:
                assert event.event == "message", event
                found.append(event.data)
                if event.data == last:
                    return found
    raise AssertionError("the stream ended")


@pytest.mark.timeout(240)
async def test_what_is_kept_outlives_the_hub_and_all_workers_one_after_the_other(
    serve: Serve,
) -> None:
    service = await serve(*KEPT)
    expected = [str(n) for n in range(EVENTS)]
    await publish(service, *expected[: EVENTS // 2])
    await publish(service, *expected[EVENTS // 2 :])
    for what in ("hub", "worker", "worker", "hub"):
        victim = service.children()[what][0]
        os.kill(victim, signal.SIGKILL)
        await gone(victim)
        # A client that reads now reads all, though it may still be on its way.
        expected.append(f"after {victim}")
        await publish(service, expected[-1])
        readers = [everything(service, expected[-1]) for _ in range(3)]
        assert await asyncio.gather(*readers) == [expected] * 3
        await service.handed_over()
