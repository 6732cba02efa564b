"""A server of a few lines that answers each connection from a script, bytes for bytes."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

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


class StreamServer:
    """Answers the n-th request with the n-th answer, the last one again and again."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[Exchange] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
