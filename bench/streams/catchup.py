"""Catch-up reads: how fast a long stream is read from its beginning."""

from __future__ import annotations

import time

from bench.streams.servers import Running
from bench.streams.wire import TEXT, Client

LOAD_DEPTH = 64


def fill(server: Running, name: str, total_bytes: int, append_bytes: int) -> None:
    """Creates a stream of text with so much content."""
    client = Client(server.url)
    if client.ask("PUT", name, (TEXT,), b"").status not in (200, 201):
        raise RuntimeError("the stream can't be created")
    body = (b"0123456789abcde\n" * (append_bytes // 16 + 1))[:append_bytes]
    request = client.head("POST", name, (TEXT,), append_bytes) + body
    left = total_bytes // append_bytes
    while left:
        count = min(left, max(1, min(LOAD_DEPTH, (1 << 20) // append_bytes)))
        client.socket.sendall(request * count)
        for answer in _answers(client, count):
            if answer not in (200, 204):
                raise RuntimeError(f"status {answer}")
        left -= count
    client.close()


def _answers(client: Client, count: int) -> list[int]:
    """The statuses of answers without bodies that were pipelined."""
    data = b""
    while data.count(b"\r\n\r\n") < count:
        data += client.socket.recv(1 << 16)
    return [int(one.split(b" ", 2)[1]) for one in data.split(b"\r\n\r\n")[:count]]


def read(server: Running, name: str, until_s: float = 0) -> tuple[int, float]:
    """Reads all content once; returns bytes and seconds. `until_s`: again and again until then."""
    client = Client(server.url)
    offset, total, began = "-1", 0, time.monotonic()
    while True:
        answer = client.ask("GET", f"{name}?offset={offset}")
        if answer.status != 200:
            raise RuntimeError(f"status {answer.status}")
        total += answer.body_bytes
        offset = answer.headers["stream-next-offset"]
        if "stream-up-to-date" in answer.headers:
            if time.monotonic() >= until_s:
                break
            offset = "-1"
    client.close()
    return total, time.monotonic() - began
