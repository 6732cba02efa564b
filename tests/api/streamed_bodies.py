"""Bodies that are sent in pieces, and the stream on which they arrive."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.http.raw import Raw, Stream, connected, get, request

CHUNKED = "Transfer-Encoding: chunked"
RELAY = "Content-Type: text/event-stream"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


END = chunk(b"")


async def begin(raw: Raw, path: str, *headers: str) -> None:
    await raw.send(request("POST", path, CHUNKED, *headers))


@asynccontextmanager
async def streaming(server, path: str, *headers: str) -> AsyncIterator[Raw]:
    async with connected(server) as raw:
        await begin(raw, path, *headers)
        yield raw


@asynccontextmanager
async def reading(server, topic: str = "a") -> AsyncIterator[Stream]:
    async with connected(server) as raw:
        await raw.send(get(f"/events?topic={topic}"))
        stream = await raw.stream()
        await stream.opening()
        yield stream
