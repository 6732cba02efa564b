"""A real Redis for the tests: started on a free port of its own, ended by its own process id.

The program is the one that a wheel brought (see pyproject.toml), else the `redis-server` of the
machine; `FASTSSE_TEST_REDIS` names another.
"""

import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis as client_library
from redis.backoff import NoBackoff
from redis.retry import Retry

from bench.redis import NoRedis, redis_program
from tests.loopback import held_port

# Starting is quick; a busy machine is not.
START_S = 60


def program() -> str | None:
    """The path of a redis-server, or None."""
    named = os.environ.get("FASTSSE_TEST_REDIS")
    try:
        return named or redis_program()
    except NoRedis:
        return None


class RedisServer:
    """One Redis process, which may be killed and started again on the same port and data.

    Arguments:
        folder: where its data lies.
        start_s: how long a start may take; one with much data reads all of it first.
        options: of its configuration; `appendonly="yes", appendfsync="always"` survives a kill.
    """

    def __init__(
        self, folder: pathlib.Path, start_s: float = START_S, **options: str | int
    ) -> None:
        self._held = held_port()
        self.port: int = self._held.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._start_s = start_s
        self.options: dict[str, str | int] = {"save": "", "appendonly": "no"} | options
        self._process: subprocess.Popen[bytes] | None = None
        self.client: Any = client_library.Redis(
            port=self.port, socket_timeout=START_S, retry=Retry(NoBackoff(), 0)
        )
        self._folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Runs it and waits until it answers."""
        found = program()
        assert found is not None
        options = [
            part
            for name, value in self.options.items()
            for part in (f"--{name.replace('_', '-')}", str(value))
        ]
        with (self._folder / "log").open("ab") as output:
            self._process = subprocess.Popen(
                [found, "--port", str(self.port), "--bind", "127.0.0.1",
                 "--dir", str(self._folder), *options],
                stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        until = time.monotonic() + self._start_s
        while True:
            try:
                self.client.ping()
                return
            except client_library.exceptions.RedisError:
                assert self._process.poll() is None, (self._folder / "log").read_text()
                assert time.monotonic() < until
                time.sleep(0.01)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Ends it at once, as a crash would, and waits for that."""
        process, self._process = self._process, None
        self.client.close()
        if process is not None:
            process.send_signal(number)
            process.wait(START_S)

    def close(self) -> None:
        """Ends it for good."""
        self.kill()
        self._held.close()

    def wait_until_ended(self) -> None:
        """After a SHUTDOWN of its own."""
        assert self._process is not None
        self._process.wait(START_S)
        self._process = None
        self.client.close()

    def restart(self) -> None:
        """A crash and a new start."""
        self.kill()
        self.start()


@contextmanager
def running(folder: pathlib.Path, **options: str | int) -> Iterator[RedisServer]:
    """A server that is there for a while."""
    server = RedisServer(folder, **options)
    try:
        server.start()
        yield server
    finally:
        server.close()
