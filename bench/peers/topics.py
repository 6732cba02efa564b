"""One queue a client, by topic: the broadcast that the documentation of each Python peer shows."""

from __future__ import annotations

import asyncio
import itertools
import socket
from typing import Generic, TypeVar

Item = TypeVar("Item")

BACKLOG = 4096
"""As long as the system allows: a storm of connections must not be judged by the default of 100."""


class Topics(Generic[Item]):
    """Who listens to what. What is handed out is one object for all, made once for each event."""

    def __init__(self) -> None:
        self._queues: dict[str, set[asyncio.Queue[Item]]] = {}
        self._numbers = itertools.count(1)

    def join(self, topic: str) -> asyncio.Queue[Item]:
        queue: asyncio.Queue[Item] = asyncio.Queue()
        self._queues.setdefault(topic, set()).add(queue)
        return queue

    def leave(self, topic: str, queue: asyncio.Queue[Item]) -> None:
        self._queues[topic].discard(queue)
        if not self._queues[topic]:
            del self._queues[topic]

    def next_id(self) -> str:
        return str(next(self._numbers))

    def publish(self, topic: str, item: Item) -> None:
        for queue in self._queues.get(topic, ()):
            queue.put_nowait(item)


def listen() -> socket.socket:
    """A listening socket on a free loopback port, announced on standard output."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    print("listening on {}:{}".format(*listener.getsockname()), flush=True)
    return listener
