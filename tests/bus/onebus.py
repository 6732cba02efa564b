"""A hub process's insides and workers' ends, on one loop, over real sockets."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastsse.bus import BusBackbone, BusControlClient, connect
from fastsse.bus.server.process import HubProcess
from fastsse.config import Config
from fastsse.entries import Entry
from fastsse.errors import FastsseError
from fastsse.events import Event
from fastsse.hub.history import History
from fastsse.hub.topics import Rules, Topics


def listen() -> tuple[socket.socket, str]:
    """A socket for a hub and its address, which no other test has."""
    address = f"\0fastsse-test-{os.urandom(8).hex()}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(address)
    sock.listen(128)
    return sock, address


async def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Waits for a condition."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class End:
    """A worker's end with a history of its own, as a worker's hub has it."""

    def __init__(self, backbone: BusBackbone, control: BusControlClient, config: Config) -> None:
        self.backbone = backbone
        self.control = control
        self.entries: list[Entry] = []
        self.broken: list[tuple[str, int]] = []
        self._topics = Topics(Rules(config, config.lag_policy), backbone.start)
        self.history = History(self._topics, config.history_total, backbone.start)
        backbone.tail(
            backbone.start, self._deliver, lambda why, place: self.broken.append((why, place))
        )
        backbone.share(self.history)

    @property
    def positions(self) -> list[int]:
        return [entry.position for entry in self.entries]

    @property
    def data(self) -> list[bytes]:
        """The data of what was delivered, in order."""
        return [data_of(entry) for entry in self.entries]

    @property
    def kept(self) -> list[bytes]:
        """The data of what its history keeps."""
        return [data_of(entry) for entry in self.history.entries(0, 1 << 30)]

    def publish(self, *events: Event) -> "asyncio.Future[list[int]]":
        """The positions that a batch gets."""
        answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

        def done(outcome: Sequence[int] | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                answer.set_exception(outcome)
            else:
                assert outcome[-1] <= self.backbone.head
                answer.set_result(list(outcome))

        self.backbone.append(events, done)
        return answer

    def ask(self, subject: str, message: bytes) -> "asyncio.Future[bytes]":
        """What a control service answers."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def done(outcome: bytes | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)

        self.control.ask(subject, message, done)
        return answer

    def _deliver(self, entries: Sequence[Entry]) -> None:
        self.entries += entries
        for _, names, own_id, frame, _ in entries:
            self.history.append(frame, tuple(map(self._topics.intern, names)), own_id)


def data_of(entry: Entry) -> bytes:
    """The first line of an entry's data."""
    return next(line[6:] for line in entry.frame.body.split(b"\n") if line.startswith(b"data: "))


class Bus:
    """A hub that may be stopped and started again, and its workers' ends."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.listening, self.address = listen()
        self.hub: HubProcess | None = None
        self._opened: list[tuple[BusBackbone, BusControlClient]] = []

    @staticmethod
    def config_of(**options: Any) -> Config:
        """A configuration that listens nowhere."""
        return Config(port=0, **options)

    async def start(self, **options: Any) -> HubProcess:
        """Starts the hub."""
        self.hub = await HubProcess.start(self.config, self.listening.dup(), **options)
        return self.hub

    async def stop(self) -> None:
        """Stops the hub; workers that come now wait in the socket's queue."""
        hub, self.hub = self.hub, None
        if hub is not None:
            await hub.close()

    async def connected(
        self, timeout_s: float = 20, key: bytes | None = None
    ) -> tuple[BusBackbone, BusControlClient]:
        """Both ends of one worker more."""
        number, key = len(self._opened), key or os.urandom(8)
        both = await connect(self.address, number, key, timeout_s=timeout_s)
        self._opened.append(both)
        return both

    async def worker(self, timeout_s: float = 20, key: bytes | None = None) -> End:
        """One more worker, which has been handed what the others keep."""
        end = await self.newcomer(timeout_s, key)
        await until(lambda: end.backbone.is_whole)
        return end

    async def newcomer(self, timeout_s: float = 20, key: bytes | None = None) -> End:
        """One more worker that has still to be handed what the others keep."""
        return End(*await self.connected(timeout_s, key), self.config)

    async def close(self) -> None:
        for backbone, _ in self._opened:
            await backbone.close()
        await self.stop()
        self.listening.close()
        await asyncio.sleep(0)


@asynccontextmanager
async def a_bus(**options: Any) -> AsyncIterator[Bus]:
    """A bus whose hub does not run yet."""
    bus = Bus(Bus.config_of(**options))
    try:
        yield bus
    finally:
        await bus.close()
