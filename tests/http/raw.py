"""A client of bytes: what goes over the socket is what a test says, and nothing is hidden."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from fastsse.server import Server
from tests.eventstream import EventStream, Message

HOST = b"Host: localhost\r\n"
TIMEOUT_S = 60


@dataclass
class Answer:
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def field(self) -> str | None:
        """What a problem is about; it is one, or this fails."""
        assert self.headers["content-type"] == "application/problem+json"
        assert self.json["status"] == self.status
        assert self.json["detail"]
        return self.json.get("field")


class Raw:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def trickle(self, data: bytes) -> None:
        """Each byte on its own; stops when the server has closed."""
        try:
            for index in range(len(data)):
                await self.send(data[index : index + 1])
                await asyncio.sleep(0)
        except ConnectionError:
            pass

    def reset(self) -> None:
        """Disconnects with a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.writer.transport.abort()

    async def answer(self, *, to_head: bool = False) -> Answer:
        """The next response, read to its end and not beyond."""
        async with asyncio.timeout(TIMEOUT_S):
            status, headers = await self.head()
            if to_head or status in (100, 204):
                return Answer(status, headers, b"")
            length = int(headers.get("content-length", "0"))
            return Answer(status, headers, await self.reader.readexactly(length))

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(TIMEOUT_S):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = text.removesuffix("\r\n\r\n").split("\r\n")
        assert line.startswith("HTTP/1.1 ")
        pairs = [header.partition(": ") for header in lines]
        headers = {name.lower(): value for name, _, value in pairs}
        assert len(headers) == len(pairs), "a header stands twice"
        return int(line.split()[1]), headers

    async def rest(self) -> bytes:
        """Everything up to the end."""
        async with asyncio.timeout(TIMEOUT_S):
            return await self.reader.read()

    async def is_closed(self) -> bool:
        """Waits for the end, however it comes; anything before it fails."""
        try:
            return await self.rest() == b""
        except ConnectionError:
            return True

    async def stream(self) -> "Stream":
        """The response is a stream."""
        status, headers = await self.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        return Stream(self.reader, headers)


class Stream:
    """An event stream as a browser reads it."""

    def __init__(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> None:
        self.headers = headers
        self.body = b""
        self.parsed = EventStream()
        self._reader = reader
        self._chunked = headers.get("transfer-encoding") == "chunked"
        self._given = 0
        #: It ended with FIN between two chunks, without a last chunk: it was cut.
        self.was_cut = False

    async def read(self) -> bool:
        """Takes more; False at the end."""
        async with asyncio.timeout(TIMEOUT_S):
            if self._chunked:
                try:
                    size = int(await self._reader.readuntil(b"\r\n"), 16)
                except asyncio.IncompleteReadError as error:
                    if error.partial:
                        raise
                    self.was_cut = True
                    return False
                data = (await self._reader.readexactly(size + 2))[:-2]
            else:
                data = await self._reader.read(65536)
        self.body += data
        self.parsed.feed(data)
        return bool(data)

    async def next(self) -> Message:
        """The next event."""
        while len(self.parsed.events) == self._given:
            assert await self.read(), "the stream ended"
        self._given += 1
        return self.parsed.events[self._given - 1]

    async def opening(self) -> bytes:
        """The first block."""
        while not self.body:
            assert await self.read()
        return self.body

    async def to_end(self) -> None:
        while await self.read():
            pass


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Raw]:
    """A connection to the server's first address."""
    async with opened(server.addresses[0]) as raw:
        yield raw


@asynccontextmanager
async def secure(
    port: int,
    certificate: str,
    *,
    most: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
    **more: Any,
) -> AsyncIterator[Raw]:
    """A connection over TLS, of at most this version, to a server with this certificate."""
    context = ssl.create_default_context(cafile=certificate)
    context.maximum_version = most
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost", **more
    )
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[Raw]:
    """A connection to `http://host:port` or `unix:/path`."""
    if address.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(address[5:])
    else:
        host, _, port = address.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def narrow(server: Server) -> AsyncIterator[Raw]:
    """A connection whose buffers hold little of what is not read."""
    host, _, port = server.addresses[0].removeprefix("http://").rpartition(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


def get(path: str, *headers: str) -> bytes:
    """A GET with a Host."""
    return request("GET", path, *headers)


def request(method: str, path: str, *headers: str, body: bytes | None = None) -> bytes:
    """A request with a Host, and a Content-Length when it has a body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


async def until(condition: Callable[[], object]) -> None:
    """Returns when the server has come so far."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)
