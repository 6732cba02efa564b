"""A proxy of ours between nodes and a Redis, which can do what networks do: delay, freeze, cut,
close one half, swallow an answer, lead to another server."""

import asyncio
import contextlib

from tests.loopback import LoopbackServer


class Proxy(LoopbackServer):
    """Passes bytes on, both ways.

    Attributes:
        target: the port that new connections are led to.
        delay_s: each piece of bytes waits for so long.
        mute: connections that have sent these bytes hear nothing.
        swallow: answers that hold these bytes are not passed on: the connection is cut instead.
    """

    scheme = "redis"

    def __init__(self, target: int) -> None:
        super().__init__()
        self.target = target
        self.delay_s = 0.0
        self.swallow: bytes | None = None
        self.swallowed = 0
        self.mute: bytes | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()

    def freeze(self) -> None:
        """Nothing passes any more: no error, just no progress."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    def half_close(self) -> None:
        """Ends one direction of every connection: what comes from the server."""
        for writer in self.writers:
            with contextlib.suppress(OSError, RuntimeError):
                writer.write_eof()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flowing.wait()
        to_server = await asyncio.open_connection("127.0.0.1", self.target)
        self.writers.add(to_server[1])
        try:
            asked = bytearray()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ask(reader, to_server[1], asked))
                group.create_task(self._answer(to_server[0], writer, asked))
        except* OSError:
            pass
        finally:
            self.writers.discard(to_server[1])
            to_server[1].transport.abort()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: bytearray
    ) -> None:
        while data := await reader.read(64 * 1024):
            asked += data
            del asked[:-4096]
            await self._pass(writer, data)
        raise ConnectionResetError

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: bytearray
    ) -> None:
        while data := await reader.read(64 * 1024):
            while self.mute is not None and self.mute in asked:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            if self.swallow is not None and self.swallow in data:
                self.swallow = None
                self.swallowed += 1
                raise ConnectionResetError
            await self._pass(writer, data)
        raise ConnectionResetError

    async def _pass(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        await self._flowing.wait()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        writer.write(data)
        await writer.drain()
