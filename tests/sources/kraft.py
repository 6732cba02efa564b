"""Apache Kafka in KRaft mode for the tests, where its jars and Java are there.

FASTSSE_TEST_KAFKA names the folder of the jars; without it `.venv/kafka` is looked at, which
`mvn -f tests/sources/kafka-pom.xml dependency:copy-dependencies -DoutputDirectory=$PWD/.venv/kafka`
fills.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

from tests.certificates import issue
from tests.loopback import held_port
from tests.sources.tansu import START_S, until_answers

_JAVA_OPTIONS = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qk"


def jars() -> str | None:
    """The class path, or None."""
    named = os.environ.get("FASTSSE_TEST_KAFKA")
    folder = pathlib.Path(named or pathlib.Path(sys.prefix) / "kafka")
    found = any(folder.glob("kafka_2.13-*.jar")) and shutil.which("java")
    return f"{folder}/*" if found else None


class Kafka:
    """One broker that is its own controller. It keeps its data over kills.

    Arguments:
        folder: where its data and its output go.
        settings: more lines of its properties.
        is_secure: it has a listener with TLS and SASL too, for the user `alice`.

    Attributes:
        secure_url, ca: of that listener, with the user's password, and what its clients trust.
    """

    def __init__(self, folder: pathlib.Path, *settings: str, is_secure: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._held = [held_port(), held_port(), held_port()]
        self.port, controller, secure = (held.getsockname()[1] for held in self._held)
        self.secure_url = f"kafkas://alice:secret@localhost:{secure}"
        self.ca = ""
        self.url = f"kafka://127.0.0.1:{self.port}"
        self.servers = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._properties = folder / "server.properties"
        listeners = f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}"
        lines = [
            "process.roles=broker,controller",
            "node.id=1",
            f"controller.quorum.voters=1@127.0.0.1:{controller}",
            f"listeners={listeners}",
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}",
            "controller.listener.names=CONTROLLER",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT",
            f"log.dirs={folder}/data",
            "offsets.topic.replication.factor=1",
            "offsets.topic.num.partitions=1",
            "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1",
            "group.initial.rebalance.delay.ms=0",
            "auto.create.topics.enable=false",
            "message.max.bytes=100000000",
            *settings,
        ]
        if is_secure:
            lines += self._secured(secure, listeners)
        merged = dict(line.split("=", 1) for line in lines)
        self._properties.write_text("\n".join(f"{k}={v}" for k, v in merged.items()))

    def start(self) -> None:
        """Runs it and waits until it answers."""
        if not (self._folder / "data").exists():
            user = ("--add-scram", "SCRAM-SHA-256=[name=alice,password=secret]")
            form = ("format", "-t", _CLUSTER_ID, *user, "-c")
            self._java("kafka.tools.StorageTool", *form).wait(START_S)
        self._process = self._java("kafka.Kafka")
        until_answers(self.servers)

    @property
    def is_running(self) -> bool:
        """Whether it was started and not killed."""
        return self._process is not None

    def _secured(self, port: int, listeners: str) -> list[str]:
        self.ca, key = issue(self._folder, "localhost")
        both = self._folder / "keystore.pem"
        both.write_text(pathlib.Path(key).read_text() + pathlib.Path(self.ca).read_text())
        security = "org.apache.kafka.common.security"
        plain = f'{security}.plain.PlainLoginModule required user_alice="secret";'
        scram = f"{security}.scram.ScramLoginModule required;"
        return [
            f"listeners={listeners},SASL://127.0.0.1:{port}",
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port},SASL://localhost:{port}",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL",
            "listener.name.sasl.sasl.enabled.mechanisms=SCRAM-SHA-256,PLAIN",
            f"listener.name.sasl.plain.sasl.jaas.config={plain}",
            f"listener.name.sasl.scram-sha-256.sasl.jaas.config={scram}",
            "ssl.keystore.type=PEM",
            f"ssl.keystore.location={both}",
            "ssl.client.auth=none",
        ]

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Ends it at once, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(START_S)

    def close(self) -> None:
        """Ends it for good."""
        self.kill()
        for held in self._held:
            held.close()

    def _java(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        found = jars()
        assert found is not None
        with (self._folder / "log").open("ab") as output:
            return subprocess.Popen(
                ["java", *_JAVA_OPTIONS, "-cp", found, program, *arguments, self._properties],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
            )


def trim(servers: str, topic: str, before: int) -> None:
    """Deletes the messages of the first partition before an offset, as retention does."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    client = AdminClient({"bootstrap.servers": servers})
    for one in client.delete_records([TopicPartition(topic, 0, before)]).values():
        one.result(START_S)


def add_partitions(servers: str, topic: str, count: int) -> None:
    """Gives a topic more partitions, `count` in total."""
    from confluent_kafka.admin import AdminClient, NewPartitions

    client = AdminClient({"bootstrap.servers": servers})
    for one in client.create_partitions([NewPartitions(topic, count)]).values():
        one.result(START_S)
