"""Small servers of tests, on a free port of loopback; nothing of them is left at the end."""

import asyncio
import socket
import ssl
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


def held_port() -> socket.socket:
    """A socket on a free port, which the kernel gives to no other process while this is open. A
    server that sets SO_REUSEADDR, as they all do, can listen there all the same."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


class LoopbackServer:
    """Serves while it is entered. A connection is closed when its `serve` ends, be it with an
    error that connections have.

    Attributes:
        url, port: where it is.
        connections: how many there were.
        writers: those that `cut` aborts; `serve` may add others that belong to it.
        tls: what is needed to speak TLS; None speaks none.
    """

    scheme = "http"
    tls: ssl.SSLContext | None = None

    def __init__(self) -> None:
        self.connections = 0
        self.writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What a connection gets."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self.take, "127.0.0.1", 0, ssl=self.tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"{self.scheme}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        # Aborted transports close their sockets in the loop's next turn.
        await asyncio.sleep(0)

    def cut(self) -> None:
        """Aborts every connection there is; new ones are taken."""
        for writer in self.writers:
            writer.transport.abort()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A new connection's whole life."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.writers.add(writer)
        try:
            # Cancelled, it ends quietly: asyncio would log the end of its own task as an error.
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self.serve(reader, writer)
        finally:
            self._tasks.discard(task)
            self.writers.discard(writer)
            writer.close()


class Relay(LoopbackServer):
    """Passes bytes on to one server, both ways; a test can `cut` what goes through, as a network
    does, or `end` it, as a proxy does.

    Attributes:
        asked, answered: what was passed on each way.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self.asked, self.answered = bytearray(), bytearray()
        address = urlsplit(url)
        self._host, self._port = address.hostname, address.port

    def end(self) -> None:
        """Closes every connection behind what was passed on."""
        for writer in self.writers:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, self._port)
        self.writers.add(back)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass_on(reader, back, self.asked))
                group.create_task(_pass_on(there, writer, self.answered))
        except* OSError:
            pass
        finally:
            self.writers.discard(back)
            back.transport.abort()


class LostAnswers(Relay):
    """Loses the answers of the first connections: their requests reach the server.

    Arguments:
        lost: how many.
    """

    def __init__(self, url: str, lost: int = 1) -> None:
        super().__init__(url)
        self._lost = lost

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.connections > self._lost:
            await super().serve(reader, writer)
            return
        there, back = await asyncio.open_connection(self._host, self._port)
        passing = asyncio.create_task(_pass_on(reader, back, self.asked))
        try:
            await there.read(1)
        finally:
            passing.cancel()
            await asyncio.gather(passing, return_exceptions=True)
            back.transport.abort()


async def _pass_on(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, passed: bytearray
) -> None:
    # Small pieces, so that cuts fall within events too.
    while data := await source.read(100):
        sink.write(data)
        await sink.drain()
        passed += data
    sink.close()
