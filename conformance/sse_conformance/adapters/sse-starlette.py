"""`python sse-starlette.py <port> [<limit>]`: the broadcast of sse-starlette's examples."""

import asyncio
import sys
from collections import defaultdict
from collections.abc import AsyncIterator

import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

topics: defaultdict[str, set[asyncio.Queue[ServerSentEvent]]] = defaultdict(set)


async def stream(
    topic: str, queue: asyncio.Queue[ServerSentEvent]
) -> AsyncIterator[ServerSentEvent]:
    try:
        while True:
            yield await queue.get()
    finally:
        topics[topic].discard(queue)


async def subscribe(request: Request) -> Response:
    topic = request.query_params["topic"]
    queue: asyncio.Queue[ServerSentEvent] = asyncio.Queue()
    # Before the response begins, so that it misses nothing from then on.
    topics[topic].add(queue)
    return EventSourceResponse(stream(topic, queue))


async def publish(request: Request) -> Response:
    query = request.query_params
    try:
        data = (await request.body()).decode()
    except UnicodeDecodeError:
        return Response(status_code=400)
    event = ServerSentEvent(data, event=query.get("event"), id=query.get("id"))
    for queue in topics[query["topic"]]:
        queue.put_nowait(event)
    return Response(status_code=204)


app = Starlette(
    routes=[
        Route("/events", subscribe, methods=["GET"]),
        Route("/events", publish, methods=["POST"]),
    ]
)

if __name__ == "__main__":
    limit = int(sys.argv[2]) if len(sys.argv) > 2 else None
    uvicorn.run(
        app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", limit_concurrency=limit,
        # Else a stop waits for open streams without end.
        timeout_graceful_shutdown=5,
    )  # fmt: skip
