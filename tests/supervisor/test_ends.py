"""Ends of topics with several workers: every worker knows them, and so does a service that starts
again on the same file."""

import os
import signal

import httpx
import pytest

from tests.http.raw import until


async def statuses(url: str, count: int, place: str) -> set[int]:
    """What clients that come back are answered, each on a connection of its own."""
    found = set()
    for _ in range(count):
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            headers = {"Last-Event-ID": place}
            answer = await client.get("/events?topic=run", headers=headers, timeout=20)
            found.add(answer.status_code)
    return found


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_all_workers_refuse_events_and_answer_204_also_after_a_kill(
    serve, tmp_path, store
) -> None:
    options = ["--workers", "2"]
    if store == "sqlite":
        options += ["--store", f"sqlite:{tmp_path / 'h.db'}"]
    service = await serve(*options)
    async with httpx.AsyncClient(base_url=service.url, trust_env=False) as client:
        assert (await client.post("/events?topic=run", content="one")).status_code == 200
        end = (await client.post("/topics/end?topic=run")).json()["id"]
    (hub,) = service.children()["hub"]
    os.kill(hub, signal.SIGKILL)
    await until(lambda: service.children()["hub"] not in ([], [hub]))
    if store == "sqlite":
        service.signal(signal.SIGKILL)
        await service.ended()
        service = await serve(*options)
    for _ in range(6):
        async with httpx.AsyncClient(base_url=service.url, trust_env=False) as client:
            answer = await client.post("/events?topic=run", content="two")
            while answer.status_code == 503:
                answer = await client.post("/events?topic=run", content="two")
            assert answer.status_code == 409
            assert (await client.post("/topics/end?topic=run")).json()["id"] == end
            async with client.stream("GET", "/events?topic=run&last_event_id=earliest") as stream:
                text = (await stream.aread()).decode()
            assert text.index("data: one") < text.index("event: fastsse.end") < text.index(end)
    assert await statuses(service.url, 6, end) == {204}
