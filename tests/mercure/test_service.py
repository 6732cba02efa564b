"""Presence, and streams of other workers, where one service is several processes."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import quote

from tests.eventstream import Message
from tests.http.raw import Stream, opened, request
from tests.mercure.client import HUB, KEY, bearer, in_a_while
from tests.supervisor.conftest import Serve, serve
from tests.supervisor.service import Service, gone

__all__ = ["serve"]

EVERYTHING = bearer(["*"], ["*"])
OPTIONS = ("--workers", "2", "--jwt-key", KEY, "--anonymous", "--subscriptions")


@asynccontextmanager
async def streaming(service: Service, path: str, *headers: str) -> AsyncIterator[Stream]:
    async with opened(service.url) as raw:
        await raw.send(request("GET", path, *headers))
        status, head = await raw.head()
        assert status == 200
        stream = Stream(raw.reader, head)
        await stream.opening()
        yield stream


async def told(service: Service, method: str, path: str, *headers: str) -> tuple[int, bytes]:
    async with opened(service.url) as raw:
        await raw.send(request(method, path, *headers, body=b"" if method == "POST" else None))
        answer = await raw.answer()
        return answer.status, answer.body


async def present(service: Service, topic: str, count: int) -> None:
    """Returns when every worker, asked over some connections, says that so many are there."""
    async with asyncio.timeout(60):
        agreed = 0
        while agreed < 6:
            status, body = await told(service, "GET", f"/presence?topic={topic}", EVERYTHING)
            right = status == 200 and json.loads(body)["count"] == count
            agreed = agreed + 1 if right else 0


async def test_presence_is_right_across_workers_and_their_deaths(serve: Serve) -> None:
    service = await serve(*OPTIONS)
    query = f"{HUB}?topic={quote('/.well-known/mercure/subscriptions{/topic}{/subscriber}')}"
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(streaming(service, f"{HUB}?topic=a")) for _ in range(16)
        ]
        await present(service, "a", 16)
        (killed, _) = service.children()["worker"]
        watchers = [
            await stack.enter_async_context(streaming(service, query, EVERYTHING))
            for _ in range(16)
        ]
        os.kill(killed, signal.SIGKILL)
        await gone(killed)  # And with it its sockets: what has ended is seen to have ended.
        ended = sum(await asyncio.gather(*map(has_ended, streams)))
        assert 0 < ended < 16
        await present(service, "a", 16 - ended)
        # A watcher at the other worker receives the end of each, among those of other watchers.
        ids = {json.loads(event.data)["id"] for event in await ends_of("a", watchers, ended)}
        assert len(ids) == ended


async def has_ended(stream: Stream) -> bool:
    """Whether its worker was the one that was killed; the other's go on and say nothing."""
    try:
        async with asyncio.timeout(2):
            return not await stream.read()
    except TimeoutError:
        return False
    except (ConnectionError, asyncio.IncompleteReadError):
        return True


async def ends_of(topic: str, watchers: list[Stream], count: int) -> list[Message]:
    """The ends of a topic's subscriptions, once a watcher that lives has received so many."""
    async with asyncio.timeout(60):
        while True:
            for watcher in watchers:
                events = [(event, json.loads(event.data)) for event in watcher.parsed.events]
                ends = [
                    event for event, data in events if data["topic"] == topic and not data["active"]
                ]
                if len(ends) >= count:
                    return ends
            await asyncio.gather(*map(has_ended, watchers))


async def test_presence_outlives_a_killed_hub(serve: Serve) -> None:
    service = await serve(*OPTIONS)
    async with AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(streaming(service, "/events?topic=a"))
        await present(service, "a", 5)
        (hub,) = service.children()["hub"]
        os.kill(hub, signal.SIGKILL)
        await present(service, "a", 5)


async def test_streams_are_renewed_and_answered_for_in_any_worker(serve: Serve) -> None:
    service = await serve(*OPTIONS, "--ping", "100ms", "--pong-timeout", "2m")
    by = bearer(subscribe=["a"], sub="ann", exp=in_a_while(200))
    async with streaming(service, "/events?topic=a&ping=true", by) as stream:
        stream_id = ""
        while not stream_id:
            event = await stream.next()
            if event.type == "fastsse.ping":
                stream_id = json.loads(event.data)["stream"]
        fresh = bearer(subscribe=["a"], sub="ann", exp=in_a_while(400))
        for _ in range(8):
            assert (await told(service, "POST", f"/pong?stream={stream_id}"))[0] == 204
            assert (await told(service, "POST", f"/renew?stream={stream_id}", fresh))[0] == 204
        assert (await told(service, "POST", "/pong?stream=none"))[0] == 404


async def test_a_ticket_has_one_stream_and_one_client_in_the_whole_service(serve: Serve) -> None:
    service = await serve(*OPTIONS[:4], "--subscriptions")
    _, body = await told(service, "POST", "/tickets", bearer(subscribe=["a"]))
    ticket = json.loads(body)["ticket"]

    def ask_as(agent: str) -> bytes:
        return request("GET", f"{HUB}?topic=a&ticket={ticket}", f"User-Agent: {agent}")

    async def steal() -> int:
        async with opened(service.url) as raw:
            await raw.send(ask_as("curl"))
            return (await raw.head())[0]

    async with AsyncExitStack() as stack:
        raws = [await stack.enter_async_context(opened(service.url)) for _ in range(12)]
        for raw in raws:
            await raw.send(ask_as("Chrome"))
        for raw in raws:
            assert (await raw.head())[0] == 200
        assert set(await asyncio.gather(*(steal() for _ in range(12)))) == {401}
        ends = [asyncio.ensure_future(raw.rest()) for raw in raws]
        left = set(ends)
        while len(left) > 1:
            _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED, timeout=60)
        (kept,) = left
        kept.cancel()
