"""A server of a few lines that answers each connection from a script, bytes for bytes."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.loopback import LoopbackServer

Answer = Callable[["Exchange"], Awaitable[None]]
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Connection: close\r\n\r\n"
)


class Exchange:
    """One request and the way to answer it."""

    def __init__(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        lines = head.split(b"\r\n")
        self.method, self.target, _ = lines[0].decode().split(" ")
        self.headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in lines[1:] if line)
        }
        self.body = b""
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def stream(self, *chunks: bytes) -> None:
        """A 200 with these bytes; the end of the connection ends it."""
        await self.send(STREAM_HEAD)
        for chunk in chunks:
            await self.send(chunk)

    async def answer(self, status: str, body: bytes = b"", head: bytes = b"") -> None:
        await self.send(
            b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n" % (status.encode(), len(body), head)
            + body
        )

    async def gone(self) -> None:
        """Wait until the client has closed its end."""
        await self._reader.read()

    def reset(self) -> None:
        """End it as a crash would."""
        self._writer.transport.abort()


class StreamServer(LoopbackServer):
    """Answers the n-th request with the n-th answer, the last one again and again."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__()
        self.answers = list(answers)
        self.requests: list[Exchange] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
            exchange = Exchange(head, reader, writer)
            exchange.body = await reader.readexactly(
                int(exchange.headers.get(b"content-length", b"0"))
            )
            self.requests.append(exchange)
            await self.answers[min(len(self.requests), len(self.answers)) - 1](exchange)
            if not head.startswith(b"POST"):
                return


async def forever(exchange: Exchange) -> None:
    """Hold the connection open."""
    await asyncio.get_running_loop().create_future()


def streaming(*chunks: bytes, hold: bool = False) -> Answer:
    """A stream of these bytes, then its end (or with `hold` silence)."""

    async def answer(exchange: Exchange) -> None:
        await exchange.stream(*chunks)
        if hold:
            await forever(exchange)

    return answer


def answering(status: str, body: bytes = b"", head: bytes = b"") -> Answer:
    """A whole answer."""

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(status, body, head)

    return answer
