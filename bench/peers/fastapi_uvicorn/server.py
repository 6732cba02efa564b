"""`python -m bench.peers.fastapi_uvicorn.server`: a path operation that yields, as in the tutorial.

The data is text already, so it goes out as `raw_data`, which spares FastAPI a JSON encoding; one
event object serves all clients, so that its fields are validated once.
"""

from collections.abc import AsyncIterable

from fastapi import FastAPI, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from bench.peers.topics import Topics
from bench.peers.uvicorn_settings import serve

# Without the pages of documentation there is nothing to do but these two operations.
app = FastAPI(openapi_url=None)
topics: Topics[ServerSentEvent] = Topics()


@app.get("/events", response_class=EventSourceResponse)
async def subscribe(topic: str) -> AsyncIterable[ServerSentEvent]:
    queue = topics.join(topic)
    try:
        while True:
            yield await queue.get()
    finally:
        topics.leave(topic, queue)


@app.post("/events", status_code=204)
async def publish(topic: str, request: Request) -> Response:
    data = (await request.body()).decode()
    topics.publish(topic, ServerSentEvent(raw_data=data, id=topics.next_id()))
    return Response(status_code=204)


if __name__ == "__main__":
    serve(app)
