"""A hub with its sender in this process, without HTTP: the CPU of one part, to the nanosecond.

What streams receive is not read while it is measured, so all of it must fit into their sockets,
except with `reader`: a process that reads and forgets.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fastsse._core import Sender
from fastsse.backbone.memory import MemoryBackbone
from fastsse.config import HistoryOptions, StreamOptions
from fastsse.events import Event
from fastsse.hub import Hub
from fastsse.subscriptions import Subscription, View

#: Ends of streams that a process holds: each has a descriptor.
_HELD_MAX: Final = 5_000
_HEAD: Final = b"HTTP/1.1 200 OK\r\n\r\n"
_TIMEOUT_S: Final = 60


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


class Holder:
    """Ends of streams, and the processes that hold their other ends."""

    def __init__(self, count: int, *, reads: bool = False) -> None:
        self.ends: list[socket.socket] = []
        self._processes: list[int] = []
        while len(self.ends) < count:
            pairs = [socket.socketpair() for _ in range(min(_HELD_MAX, count - len(self.ends)))]
            process = os.fork()
            if process == 0:
                _hold([peer for _, peer in pairs], reads=reads)
            self._processes.append(process)
            for ours, peer in pairs:
                ours.setblocking(False)
                peer.close()
                self.ends.append(ours)

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes:
            os.kill(process, 9)
            os.waitpid(process, 0)
        for end in self.ends:
            end.close()


def _hold(peers: list[socket.socket], *, reads: bool) -> None:
    """The life of such a process."""
    try:
        poll = select.epoll()
        for peer in peers:
            peer.setblocking(False)
            if reads:
                poll.register(peer, select.EPOLLIN)
        by_fd = {peer.fileno(): peer for peer in peers}
        while os.getppid() != 1:
            for fd, _ in poll.poll(1):
                by_fd[fd].recv(1 << 18)
    finally:
        os._exit(0)


class InProcess:
    """A hub, its sender and streams on it. `ends` are taken as streams are opened."""

    def __init__(self, ends: Sequence[socket.socket], history_events: int = 1_000) -> None:
        before = set(os.listdir("/proc/self/task"))
        self.sender = Sender(max_connections=max(1, len(ends)), tick_ms=10)
        self.sender.start()
        (self._thread,) = set(os.listdir("/proc/self/task")) - before
        options = HistoryOptions(history_events=history_events)
        self.hub = Hub(self.sender, MemoryBackbone(now_ms), options, StreamOptions())
        self._ends = list(ends)

    def open(self, topics: Sequence[str], view: View | None = None) -> None:
        """A stream."""
        end = self._ends.pop()
        self.hub.streams.open(Subscription(topics, view=view), _HEAD, False, end.fileno(), None)
        end.detach()

    def opened(self, count: int) -> None:
        """Returns when all streams have their head."""
        self.hub.streams.wake()
        self._until("connections", count)

    def publish(self, topic: str, data: bytes) -> None:
        """One event, of JSON."""
        self.hub.publish((Event(topic, data, data_kind=1),), lambda outcome: None)

    def settled(self, deliveries: int) -> None:
        """Returns when so many were delivered, and every command was taken."""
        self._until("deliveries", deliveries)

    def _until(self, name: str, least: int) -> None:
        end_s = time.monotonic() + _TIMEOUT_S
        while self.sender.pending_commands or self.count(name) < least:
            if time.monotonic() > end_s:
                raise RuntimeError(f"{name} is {self.count(name)} of {least}")
            self.hub.streams.read_notices()
            time.sleep(0.001)

    def count(self, name: str) -> int:
        """A counter of the sender."""
        return self.sender.counters().get(name, 0)

    def sender_us(self) -> float:
        """CPU of the sender's thread until now."""
        return int(Path(f"/proc/self/task/{self._thread}/schedstat").read_text().split()[0]) / 1e3

    def cpu_us(self) -> float:
        """CPU of both threads until now."""
        return time.thread_time_ns() / 1e3 + self.sender_us()

    def close(self) -> None:
        """Ends all of it."""
        self.hub.streams.abandon()
        self.sender.stop()


@contextmanager
def in_process(
    streams: int, *, reads: bool = False, history_events: int = 1_000
) -> Iterator[InProcess]:
    """A hub for so many streams."""
    holder = Holder(streams, reads=reads)
    made = InProcess(holder.ends, history_events)
    try:
        yield made
    finally:
        made.close()
        holder.close()
