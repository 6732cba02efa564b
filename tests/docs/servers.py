"""Real servers for the pages, shared by those that want the same options."""

import json
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tests.cli.commandline import environment

START_S = 60
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Served:
    """A server in a process of its own. `address` is `127.0.0.1:PORT`."""

    def __init__(self, options: str, folder: Path, variables: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "log"
        arguments = ["--port", "0", "--log-format", "json", *shlex.split(options)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fastsse", "serve", *arguments],
                cwd=folder, env=environment(**variables), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            self.address = self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> str:
        ends_s = time.monotonic() + START_S
        while time.monotonic() < ends_s:
            said = self._log.read_text("utf-8")
            for line in said.splitlines():
                if "is serving" in line and line.endswith("}"):
                    return str(json.loads(line)["addresses"][0]).removeprefix("http://")
            if self._process.poll() is not None:
                break
            time.sleep(0.01)
        raise RuntimeError(f"the server did not start: {self._log.read_text('utf-8')}")

    def stop(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()


class Servers:
    """Those that were started."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self._folder = folder
        self._variables = variables
        self._served: dict[str, Served] = {}

    def address(self, options: str) -> str:
        """Of the server with these options, which is started when it is first asked for."""
        if options not in self._served:
            folder = self._folder / str(len(self._served))
            self._served[options] = Served(options, folder, self._variables)
        return self._served[options].address

    def stop(self) -> None:
        """Ends all."""
        while self._served:
            self._served.popitem()[1].stop()


def streams_at(address: str) -> int:
    """How many streams a server has opened since its start; -1 when it can't be asked."""
    try:
        with NO_PROXY.open(f"http://{address}/stats", timeout=5) as answer:
            return int(json.load(answer)["totals"]["connections"])
    except OSError:
        return -1
