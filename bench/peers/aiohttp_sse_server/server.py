"""`python -m bench.peers.aiohttp_sse_server.server`: the chat of aiohttp-sse's examples.

aiohttp's page on deployment runs it on uvloop, and says that the access log costs a good part of a
server's speed, so there is none.
"""

from __future__ import annotations

import asyncio
import contextlib

import uvloop
from aiohttp import web
from aiohttp_sse import sse_response

from bench.peers.topics import BACKLOG, Topics, listen

topics: Topics[tuple[str, str]] = Topics()


async def subscribe(request: web.Request) -> web.StreamResponse:
    topic = request.query["topic"]
    queue = topics.join(topic)
    try:
        async with sse_response(request) as response:
            while response.is_connected():
                number, data = await queue.get()
                await response.send(data, id=number)
    except ConnectionResetError:
        pass
    finally:
        topics.leave(topic, queue)
    return response


async def publish(request: web.Request) -> web.Response:
    data = (await request.read()).decode()
    topics.publish(request.query["topic"], (topics.next_id(), data))
    return web.Response(status=204)


async def serve() -> None:
    app = web.Application()
    app.router.add_get("/events", subscribe)
    app.router.add_post("/events", publish)
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=True,
        # A client that leaves ends its handler, which waits for its queue otherwise.
        handler_cancellation=True,
        # Streams never end by themselves: a stop must not wait for them.
        shutdown_timeout=1,
    )
    await runner.setup()
    await web.SockSite(runner, listen(), backlog=BACKLOG).start()
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    with contextlib.suppress(web.GracefulExit, KeyboardInterrupt):
        uvloop.run(serve())
