"""The least that fan-out costs in Python: a bare uvloop protocol that writes to each transport.

No history, no ids of its own making beyond a counter, no slow-client handling worth the name:
`GET …?topic=a` streams, `POST …?topic=a` sends the body to every stream of the topic. It is a peer
in the benchmarks (what one would write in an afternoon) and a server that the swarm's tests use.

    python -m bench.peers.bare_uvloop --port 0

prints `listening on <host>:<port>` once it serves.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import cast
from urllib.parse import parse_qs, urlsplit

import uvloop

OPEN = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
ACCEPTED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
BUFFERED_BYTES_MAX = 4 * 1024 * 1024

streams: dict[str, set[asyncio.Transport]] = {}
last_ms = [0, 0]


def next_id() -> bytes:
    """`<ms>-<n>`, rising."""
    now = max(time.time_ns() // 1_000_000, last_ms[0])
    last_ms[:] = [now, last_ms[1] + 1 if now == last_ms[0] else 1]
    return b"%d-%d" % tuple(last_ms)


def publish(topic: str, data: bytes) -> None:
    """Writes one event to each stream of the topic; cuts those that buffer too much."""
    event = b"id: %s\ndata: %s\n\n" % (next_id(), data)
    chunk = b"%x\r\n%s\r\n" % (len(event), event)
    for transport in list(streams.get(topic, ())):
        transport.write(chunk)
        if transport.get_write_buffer_size() > BUFFERED_BYTES_MAX:
            transport.abort()


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection: a stream, or requests that publish."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.buffer = b""
        self.topics: list[str] = []

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, rest = self.buffer.partition(b"\r\n\r\n")
            method, target, *_ = head.decode().split(" ", 2)
            length = self._content_length(head)
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            self._answer(method, target, rest[:length])

    @staticmethod
    def _content_length(head: bytes) -> int:
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                return int(value)
        return 0

    def _answer(self, method: str, target: str, body: bytes) -> None:
        topics = parse_qs(urlsplit(target).query).get("topic", [])
        if method == "GET" and topics:
            self.topics = topics
            for topic in topics:
                streams.setdefault(topic, set()).add(self.transport)
            self.transport.write(OPEN)
        elif method == "POST" and topics:
            for topic in topics:
                publish(topic, body)
            self.transport.write(ACCEPTED)
        else:
            self.transport.write(NOT_FOUND)

    def connection_lost(self, error: Exception | None) -> None:
        for topic in self.topics:
            streams[topic].discard(self.transport)


async def serve(host: str, port: int) -> None:
    """Serves until cancelled."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, host, port, backlog=4096)
    bound = server.sockets[0].getsockname()
    print(f"listening on {bound[0]}:{bound[1]}", flush=True)
    await server.serve_forever()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Bare uvloop fan-out, a peer to compare with.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    uvloop.run(serve(options.host, options.port))


if __name__ == "__main__":
    main()
