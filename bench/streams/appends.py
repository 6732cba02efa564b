"""Appends: how many a second, over how many streams."""

from __future__ import annotations

import selectors
import time
from collections.abc import Sequence

from bench.streams.servers import Running
from bench.streams.wire import BYTES, Client

WRITERS = 50
REST_S = 0.7
REST_SHARE = 0.03
BODY = b"x" * 256


def create(server: Running, count: int) -> float:
    """Creates so many streams; returns how many a second."""
    began = time.monotonic()
    _request_all(server, "PUT", count, b"")
    return count / (time.monotonic() - began)


def warm_up(server: Running, streams: int) -> None:
    """Appends once to each stream: the first append costs a server more than later ones."""
    _request_all(server, "POST", streams, BODY)


def produce(server: Running, streams: int) -> None:
    """One append of a producer to each stream."""
    producer = ("Producer-Id: writer", "Producer-Epoch: 0", "Producer-Seq: 0")
    _request_all(server, "POST", streams, BODY, producer)


def _request_all(
    server: Running, method: str, count: int, body: bytes, more: Sequence[str] = ()
) -> None:
    """One request to each stream, from 50 connections, each with one request under way."""
    poll, left = selectors.DefaultSelector(), iter(range(count))

    def send(client: Client) -> None:
        number = next(left, None)
        if number is None:
            poll.unregister(client.socket)
            client.close()
        else:
            head = client.head(method, f"s{number}", (BYTES, *more), len(body))
            client.socket.send(head + body)

    for client in [Client(server.url) for _ in range(WRITERS)]:
        poll.register(client.socket, selectors.EVENT_READ, client)
        send(client)
    while poll.get_map():
        for key, _ in poll.select(1):
            found = key.data.socket.recv(4096)
            if not found.startswith(b"HTTP/1.1 20"):
                raise RuntimeError(f"refused: {found[:200]!r}")
            send(key.data)


def append(server: Running, streams: int, seconds: float, at_least: int = 0) -> tuple[float, float]:
    """Appends from 50 connections, each with one request under way, to all streams in turn, for
    so long and so many. Returns appends a second, and CPU of the server in µs for each, with what
    it does later."""
    poll = selectors.DefaultSelector()
    clients = [Client(server.url) for _ in range(WRITERS)]
    turn = 0

    def send(client: Client) -> None:
        nonlocal turn
        # A step that has no factor in common with the number of streams reaches them all.
        turn += 7919
        name = f"s{turn % streams}"
        client.socket.send(client.head("POST", name, (BYTES,), len(BODY)) + BODY)

    for client in clients:
        poll.register(client.socket, selectors.EVENT_READ, client)
        send(client)
    done, began, cpu_us = 0, time.monotonic(), server.cpu_us()
    while time.monotonic() - began < seconds or done < at_least:
        for key, _ in poll.select(1):
            found = key.data.socket.recv(4096)
            if not found.startswith(b"HTTP/1.1 20"):
                raise RuntimeError(f"refused: {found[:200]!r}")
            done += 1
            send(key.data)
    elapsed, used_us = time.monotonic() - began, rest(server) - cpu_us
    for client in clients:
        client.close()
    return done / elapsed, used_us / done


def rest(server: Running) -> int:
    """Waits until a server has nothing left to do; returns the CPU that it has used until then."""
    used_us = server.cpu_us()
    while True:
        time.sleep(REST_S)
        before_us, used_us = used_us, server.cpu_us()
        if used_us - before_us < REST_SHARE * REST_S * 1e6:
            return used_us
