"""`python -m bench.sources.plain_app BROKER TOPIC`: what one writes without fastsse.

aiokafka reads a consumer group in the loop; sse-starlette streams a queue a client, as in
`bench/peers/sse_starlette_uvicorn`. It keeps no history: a client that reconnects has missed what
came meanwhile.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from aiokafka import AIOKafkaConsumer
from sse_starlette import ServerSentEvent
from starlette.applications import Starlette
from starlette.routing import Route

from bench.peers.sse_starlette_uvicorn.server import subscribe, topics
from bench.peers.topics import BACKLOG, listen
from bench.sources.servers import SESSION_MS

BATCH = 1_000
WAIT_MS = 100


async def read(broker: str, topic: str) -> None:
    """Publishes the messages of a topic to the streams of their keys."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=broker,
        group_id="plain",
        auto_offset_reset="earliest",
        session_timeout_ms=SESSION_MS,
    )
    await consumer.start()
    try:
        while True:
            found = await consumer.getmany(timeout_ms=WAIT_MS, max_records=BATCH)
            for messages in found.values():
                for message in messages:
                    event = ServerSentEvent(message.value.decode(), id=topics.next_id())
                    topics.publish("s" + message.key.decode(), event)
    finally:
        await consumer.stop()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Reads while it serves."""
    reading = asyncio.create_task(read(*sys.argv[1:3]))
    try:
        yield
    finally:
        reading.cancel()


def main() -> None:
    app = Starlette(routes=[Route("/events", subscribe)], lifespan=lifespan)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_level="warning",
        backlog=BACKLOG,
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[listen()])


if __name__ == "__main__":
    main()
