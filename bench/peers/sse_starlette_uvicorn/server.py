"""`python -m bench.peers.sse_starlette_uvicorn.server`: the broadcast of sse-starlette's examples.

A queue a client, an asynchronous generator that takes from it. The examples also ask before each
event whether the client has gone; the response watches that by itself, so it is left out here, to
the peer's advantage.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.peers.topics import Topics
from bench.peers.uvicorn_settings import serve

topics: Topics[ServerSentEvent] = Topics()


async def stream(topic: str) -> AsyncIterator[ServerSentEvent]:
    queue = topics.join(topic)
    try:
        while True:
            yield await queue.get()
    finally:
        topics.leave(topic, queue)


async def subscribe(request: Request) -> Response:
    return EventSourceResponse(stream(request.query_params["topic"]))


async def publish(request: Request) -> Response:
    data = (await request.body()).decode()
    event = ServerSentEvent(data, id=topics.next_id())
    topics.publish(request.query_params["topic"], event)
    return Response(status_code=204)


ROUTES = [
    Route("/events", subscribe, methods=["GET"]),
    Route("/events", publish, methods=["POST"]),
]

if __name__ == "__main__":
    serve(Starlette(routes=ROUTES))
