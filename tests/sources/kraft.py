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
    """

    def __init__(self, folder: pathlib.Path, *settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._held = [held_port(), held_port()]
        self.port, controller = (held.getsockname()[1] for held in self._held)
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
        merged = dict(line.split("=", 1) for line in lines)
        self._properties.write_text("\n".join(f"{k}={v}" for k, v in merged.items()))

    def start(self) -> None:
        """Runs it and waits until it answers."""
        if not (self._folder / "data").exists():
            self._java("kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c").wait(START_S)
        self._process = self._java("kafka.Kafka")
        until_answers(self.servers)

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
