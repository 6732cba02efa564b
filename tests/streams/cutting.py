"""A network that is cut again and again: a proxy that closes each connection after a while."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator


class CuttingProxy:
    """Forwards bytes. While `cuts` is below `cuts_max`, a connection is reset after a random time.

    Attributes:
        cuts: connections that were cut.
    """

    def __init__(self, port: int, cuts_max: int, seed: int) -> None:
        self.cuts = 0
        self._port = port
        self._cuts_max = cuts_max
        self._luck = random.Random(seed)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        copies = [asyncio.create_task(_copy(*pair)) for pair in ((reader, back), (there, writer))]
        try:
            wait_s = None
            if self.cuts < self._cuts_max:
                wait_s = 0.01 + self._luck.random() * 0.05
            _, pending = await asyncio.wait(copies, timeout=wait_s)
            self.cuts += bool(pending)
        finally:
            for copy in copies:
                copy.cancel()
            await asyncio.gather(*copies, return_exceptions=True)
            for one in (writer, back):
                one.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def cutting(
    port: int, cuts_max: int, seed: int = 1
) -> AsyncIterator[tuple[str, CuttingProxy]]:
    """A proxy in front of a port: its URL, and itself."""
    proxy = CuttingProxy(port, cuts_max, seed)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", proxy
    finally:
        server.close()
