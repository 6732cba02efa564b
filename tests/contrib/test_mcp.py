"""Streams of MCP resume from the hub, exactly: with the SDK's own client, cut 100 times."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import uvicorn
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http import EventMessage
from mcp.types import JSONRPCNotification

import fastsse
from fastsse.client import AsyncClient
from fastsse.contrib.mcp import HubEventStore, SessionManager
from tests.asgi.inprocess import absent

CUTS = 100
STEPS = 400
counter = MCPServer("counter")


@counter.tool()
async def count(steps: int, ctx: Context) -> str:
    for step in range(steps):
        await ctx.report_progress(step, steps)
        await asyncio.sleep(0.002)
    return f"counted to {steps}"


@contextlib.asynccontextmanager
async def served(app: Any) -> AsyncIterator[int]:
    """An application under uvicorn in the loop of the test; its port."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="error", lifespan="off", interface="asgi3")
    )
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment,method-assign]
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(20):
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await serving


class Cutting:
    """Ends each response after a few events, as a server that drains does. The client of the SDK
    takes only such an end for one after which it resumes; after a reset it begins again with the
    id from which the last request resumed."""

    def __init__(self, app: Any, events: int) -> None:
        self._app = app
        self._events = events
        self.cuts = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        seen, cut = 0, asyncio.Event()

        async def counting(message: Any) -> None:
            nonlocal seen
            if cut.is_set():
                return
            seen += message.get("body", b"").count(b"event: message")
            if self.cuts < CUTS and seen >= self._events and message.get("more_body"):
                self.cuts += 1
                cut.set()
                message = {**message, "more_body": False}
            await send(message)

        async def receiving() -> Any:
            received = asyncio.ensure_future(receive())
            gone = asyncio.ensure_future(cut.wait())
            done, pending = await asyncio.wait(
                (received, gone), return_when=asyncio.FIRST_COMPLETED
            )
            for task in pending:
                task.cancel()
            return received.result() if received in done else {"type": "http.disconnect"}

        await self._app(scope, receiving, counting)


async def test_client_that_is_cut_a_hundred_times_gets_every_message_once() -> None:
    async with fastsse.mount(absent, config=fastsse.Config(drain=0, history_events=5000)) as hub:
        manager = SessionManager(counter, HubEventStore(hub), retry_interval=1)
        cutting = Cutting(manager.handle_request, 2)
        progress: list[float] = []

        async def on_progress(done: float, total: float | None, message: str | None) -> None:
            progress.append(done)

        async with (
            manager.run(),
            served(cutting) as port,
            streamable_http_client(f"http://127.0.0.1:{port}/mcp") as (read, write, *_),
            ClientSession(read, write) as session,
            asyncio.timeout(120),
        ):
            await session.initialize()
            result = await session.call_tool(
                "count", {"steps": STEPS}, progress_callback=on_progress
            )
        assert result.content[0].text == f"counted to {STEPS}"
        assert cutting.cuts == CUTS
        assert progress == [float(step) for step in range(STEPS)]
    assert hub.stream_count == 0


def notification(number: int) -> JSONRPCNotification:
    return JSONRPCNotification(jsonrpc="2.0", method="notifications/x", params={"n": number})


@pytest.fixture(params=["in process", "by HTTP"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[HubEventStore]:
    if request.param == "in process":
        async with fastsse.mount(absent, config=fastsse.Config(drain=0)) as hub:
            yield HubEventStore(hub)
        return
    config = fastsse.Config(port=0, drain=0)
    async with fastsse.Server(config) as server, AsyncClient(server.addresses[0]) as client:
        yield PublicStore(client)


class PublicStore(HubEventStore):
    """For a server without tokens, which grants no private events."""

    async def _publish(self, place: Any, data: str, kind: str) -> str:
        receipt = await self._hub.publish(self._topic(place), data, event=kind)
        id: str = receipt.id
        return id


async def replayed(store: HubEventStore, last_event_id: str) -> tuple[str | None, list[int]]:
    numbers: list[int] = []

    async def note(event: EventMessage) -> None:
        numbers.append(event.message.params["n"])  # type: ignore[union-attr,index]

    return await store.replay_events_after(last_event_id, note), numbers


async def test_store_replays_what_follows_an_id_in_its_stream(store: HubEventStore) -> None:
    first = await store.store_event("1", None)
    ids = [await store.store_event("1", notification(n)) for n in range(5)]
    await store.store_event("2", notification(99))
    assert await replayed(store, first) == ("1", [0, 1, 2, 3, 4])
    assert await replayed(store, ids[2]) == ("1", [3, 4])
    assert await replayed(store, ids[4]) == ("1", [])


async def test_sessions_do_not_see_each_other(store: HubEventStore) -> None:
    """The SDK names streams by the numbers of requests, which begin again in each session."""
    ours, theirs = store.scoped(), store.scoped()
    if isinstance(store, PublicStore):
        ours, theirs = PublicStore(store._hub), PublicStore(store._hub)
    first = await ours.store_event("1", None)
    secret = await theirs.store_event("1", None)
    await theirs.store_event("1", notification(1))
    assert await replayed(ours, first) == ("1", [])
    assert await replayed(ours, secret) == (None, [])
    for invented in ("", "x", "1~2~3", f"1~{'0' * 32}~1-0"):
        assert await replayed(ours, invented) == (None, [])


async def test_stream_resumes_at_a_process_that_does_not_have_the_session() -> None:
    async with fastsse.mount(absent, config=fastsse.Config(drain=0)) as hub:
        store = HubEventStore(hub)
        ids = [await store.store_event("7", notification(n)) for n in range(2)]
        other = SessionManager(MCPServer("other"), HubEventStore(hub))
        async with (
            other.run(),
            served(other.handle_request) as port,
            httpx.AsyncClient() as client,
        ):
            headers = {
                "Last-Event-ID": ids[0],
                "Mcp-Session-Id": "s",
                "Accept": "text/event-stream",
            }
            url = f"http://127.0.0.1:{port}/mcp"
            async with client.stream("GET", url, headers=headers) as answer:
                lines = answer.aiter_lines()
                async with asyncio.timeout(10):
                    data = [line async for line in _until(lines, '"n":1')]
                    await store.store_event("7", notification(2))
                    data += [line async for line in _until(lines, '"n":2')]
        assert sum("data:" in line for line in data) == 2
        async with asyncio.timeout(10):
            while hub.stream_count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def _until(lines: AsyncIterator[str], text: str) -> AsyncIterator[str]:
    async for line in lines:
        yield line
        if text in line:
            return
