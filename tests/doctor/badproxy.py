"""A reverse proxy that does to streams what real ones do by default."""

import asyncio
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.loopback import LoopbackServer

_COMMENT = re.compile(rb"^:.*\n", re.MULTILINE)
_CHUNK_BYTES = 65_536


@dataclass
class Manners:
    """What it does.

    Attributes:
        holds_bytes: passes a body on only in pieces of so much.
        holds_head: keeps the head back until the first such piece.
        compresses: `flushed` after each piece that came, or `held`, as compressors like it.
        encoding: names an unknown encoding, where one is accepted.
        cuts_after_s: ends every answer at that age.
        cuts_silence_s: ends an answer that is silent for so long.
        drops: request headers that it does not pass on.
        filters_comments: takes comments out.
        refuses_posts: answers publishers with 405.
        adds: headers of its own.
        removes: headers of the server that it takes out.
    """

    holds_bytes: int = 0
    holds_head: bool = False
    compresses: str = ""
    encoding: str = ""
    cuts_after_s: float | None = None
    cuts_silence_s: float | None = None
    drops: Sequence[str] = ()
    filters_comments: bool = False
    refuses_posts: bool = False
    adds: dict[str, str] = field(default_factory=lambda: {"Server": "nginx"})
    removes: Sequence[str] = ()


class BadProxy(LoopbackServer):
    """Passes requests on to the upstreams in turn, an answer a connection."""

    def __init__(self, manners: Manners, *upstreams: str) -> None:
        super().__init__()
        self._manners = manners
        self._ports = [urlsplit(url).port for url in upstreams]
        self._turn = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, headers = _parse(await reader.readuntil(b"\r\n\r\n"))
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, target, _ = first.split(" ")
        if method == "POST" and self._manners.refuses_posts:
            writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        accepted = headers.get("accept-encoding", "")
        for name in ("connection", *self._manners.drops):
            headers.pop(name, None)
        port = self._ports[self._turn % len(self._ports)]
        self._turn += 1
        upstream, up = await asyncio.open_connection("127.0.0.1", port)
        # HTTP/1.0, so that the answer comes without chunks and ends with the connection.
        up.write(_joined(f"{method} {target} HTTP/1.0", headers) + body)
        gone = asyncio.create_task(reader.read())
        passing = asyncio.create_task(self._pass_on(upstream, writer, accepted))
        try:
            # A client that leaves ends the server's side too.
            await asyncio.wait(
                (gone, passing),
                return_when=asyncio.FIRST_COMPLETED,
                timeout=self._manners.cuts_after_s,
            )
            await writer.drain()
        finally:
            for task in (gone, passing):
                task.cancel()
            await asyncio.gather(gone, passing, return_exceptions=True)
            up.transport.abort()

    async def _pass_on(
        self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter, accepted: str
    ) -> None:
        manners = self._manners
        first, headers = _parse(await upstream.readuntil(b"\r\n\r\n"))
        is_stream = headers.get("content-type", "").startswith("text/event-stream")
        compressor = None
        if is_stream and manners.compresses and "gzip" in accepted:
            compressor = zlib.compressobj(wbits=31)
            headers["content-encoding"] = "gzip"
        if is_stream and manners.encoding and "gzip" in accepted:
            headers["content-encoding"] = manners.encoding
        for name in manners.removes:
            headers.pop(name, None)
        headers |= {**manners.adds, "Connection": "close"}
        held = bytearray(_joined(first.replace("HTTP/1.0", "HTTP/1.1"), headers))
        if not (is_stream and manners.holds_head):
            writer.write(bytes(held))
            held.clear()
        while True:
            chunk = await self._read(upstream, is_stream)
            if is_stream and manners.filters_comments:
                chunk = _COMMENT.sub(b"", chunk)
            if compressor is not None:
                chunk = compressor.compress(chunk)
                if manners.compresses == "flushed":
                    chunk += compressor.flush(zlib.Z_SYNC_FLUSH)
            held += chunk
            if upstream.at_eof() or not is_stream or len(held) >= manners.holds_bytes:
                writer.write(bytes(held))
                held.clear()
            if upstream.at_eof():
                return
            await writer.drain()

    async def _read(self, upstream: asyncio.StreamReader, is_stream: bool) -> bytes:
        try:
            async with asyncio.timeout(self._manners.cuts_silence_s if is_stream else None):
                return await upstream.read(_CHUNK_BYTES)
        except TimeoutError:
            raise ConnectionError from None


def _parse(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode().split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}


def _joined(first: str, headers: dict[str, str]) -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()
