"""`python -m bench.proxies` (`make bench-proxies`): what nginx, HAProxy and Caddy in front cost.

Each proxy runs with the file of `fastsse proxy-config`, on this machine, between one server and
curl. Without and with each proxy take turns in each repeat, so that drift falls on all.
Proxies that are not installed are left out.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import click

from bench.machine import environment
from bench.server import ROOT, Server

DOMAIN = "sse.example.com"
PROXIES = ("nginx", "haproxy", "caddy")
#: Between client and proxy: arguments of curl.
WIRES = {"HTTP/1.1": ("--http1.1",), "TLS": ("--http1.1",), "HTTP/2": ("--http2",)}
DIRECT = "none"
_START_TIMEOUT_S = 20
_SETTLE_S = 0.7
Sample = dict[str, float]


def program(name: str) -> str | None:
    """The path of a program, also one that pip has installed."""
    folders = (os.environ.get("PATH", ""), "/usr/sbin", str(Path(sys.executable).parent))
    return shutil.which(name, path=os.pathsep.join(folders))


class Proxy:
    """A running proxy, measured from outside with all its processes."""

    def __init__(self, name: str, node: str, folder: Path, *, has_tls: bool) -> None:
        self._name = name
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._file = folder / "proxy.conf"
        tls = ("--domain", DOMAIN, "--cert", str(folder / "both.pem")) if has_tls else ("--plain",)
        where = ("--listen", f"127.0.0.1:{self.port}", "--node", node, "--run-folder", str(folder))
        self._file.write_text(_proxy_config(name, *where, *tls))
        (folder / "retry.http").write_text(_proxy_config("haproxy", "--errorfile"))

    def __enter__(self) -> Proxy:
        commands = {
            "nginx": ("-e", "stderr", "-c"),
            "haproxy": ("-db", "-f"),
            "caddy": ("run", "--adapter", "caddyfile", "--config"),
        }
        self._process = subprocess.Popen(
            [program(self._name) or self._name, *commands[self._name], str(self._file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": str(self._folder)},
        )
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline_s:
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.02)
        self.__exit__()
        raise click.ClickException(f"{self._name} did not start")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def cpu_us(self) -> float:
        """CPU time of all threads that live, from the scheduler's own clock."""
        return sum(
            int(path.read_text().split()[0]) / 1000
            for pid in self._pids()
            for path in Path(f"/proc/{pid}/task").glob("*/schedstat")
        )

    def pss_bytes(self) -> int:
        """Memory in user space, shared pages by their part."""
        lines = [
            line
            for pid in self._pids()
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            if line.startswith("Pss:")
        ]
        return sum(int(line.split()[1]) * 1024 for line in lines)

    def _pids(self) -> list[int]:
        pid = self._process.pid
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


class Readers:
    """curl with many streams in parallel; each event's data is the time of its publish."""

    def __init__(self, port: int, wire: str, streams: int, authority: Path) -> None:
        scheme = "http" if wire == "HTTP/1.1" else "https"
        self._command = [
            *("curl", "-sN", "-Z", "--parallel-max", str(streams), "--noproxy", "*"),
            *(() if wire == "HTTP/2" else ("--parallel-immediate",)),
            *("--cacert", str(authority), "--resolve", f"{DOMAIN}:{port}:127.0.0.1", *WIRES[wire]),
            f"{scheme}://{DOMAIN}:{port}/events?topic=t&topic=of-[1-{streams}]",
        ]
        self.opened = 0
        self.late_us: list[float] = []

    def __enter__(self) -> Readers:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b"data: "):
                self.late_us.append((time.time_ns() - int(line[6:])) / 1000)
            elif line.startswith(b"retry: "):
                self.opened += 1

    def wait(self, streams: int) -> None:
        """Until all are open."""
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while self.opened < streams:
            if time.monotonic() > deadline_s:
                raise click.ClickException(f"{self.opened} of {streams} streams are open")
            time.sleep(0.02)


def publish(connection: http.client.HTTPConnection, rate: float, seconds: float) -> int:
    """Publishes the time at a fixed rate, straight to the server. Returns how many events."""
    count, began_s = int(rate * seconds), time.monotonic()
    for index in range(count):
        time.sleep(max(0, began_s + index / rate - time.monotonic()))
        connection.request("POST", "/events?topic=t", str(time.time_ns()))
        connection.getresponse().read()
    return count


def run(node: str, name: str, wire: str, streams: int, rate: float, seconds: float) -> Sample:
    """One run: the streams opened, the events sent, all read."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastsse-proxy-")))
        authority = folder / "cert.pem"
        proxy = None
        if name != DIRECT:
            _make_certificate(folder)
            proxy = stack.enter_context(Proxy(name, node, folder, has_tls=wire != "HTTP/1.1"))
        port = proxy.port if proxy else int(node.rpartition(":")[2])
        before = proxy.pss_bytes() if proxy else 0
        readers = stack.enter_context(Readers(port, wire, streams, authority))
        readers.wait(streams)
        time.sleep(_SETTLE_S)
        grown = (proxy.pss_bytes() if proxy else 0) - before
        cpu_us = proxy.cpu_us() if proxy else 0.0
        with closing(http.client.HTTPConnection(node)) as connection:
            expected = publish(connection, rate, seconds) * streams
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while len(readers.late_us) < expected and time.monotonic() < deadline_s:
            time.sleep(0.01)
        cpu_us = (proxy.cpu_us() if proxy else 0.0) - cpu_us
        late_us = sorted(readers.late_us)
    return {
        "lost": float(expected - len(late_us)),
        "median_ms": statistics.median(late_us) / 1000,
        "p99_ms": late_us[int(len(late_us) * 0.99)] / 1000,
        "cpu_us": cpu_us / expected,
        "kib": grown / streams / 1024,
    }


def targets() -> list[tuple[str, str]]:
    """What takes turns: without a proxy, and each that is installed on each wire."""
    found = [name for name in PROXIES if program(name)]
    return [(DIRECT, "HTTP/1.1"), *((name, wire) for name in found for wire in WIRES)]


def table(results: dict[str, list[Sample]]) -> str:
    """Markdown: medians of all repeats; the added time is compared in each repeat."""
    head = (
        "proxy",
        "added ms, median",
        "added ms, p99",
        "CPU µs a delivery",
        "KiB a stream",
        "lost",
    )
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    direct = results[f"{DIRECT}, HTTP/1.1"]
    for key, samples in results.items():
        if samples is direct:
            continue
        added = [
            [one[figure] - other[figure] for one, other in zip(samples, direct, strict=True)]
            for figure in ("median_ms", "p99_ms")
        ]
        cells = [key, *(_spread(each, 2) for each in added)]
        cells += [_spread([one[figure] for one in samples], 1) for figure in ("cpu_us", "kib")]
        cells.append(f"{sum(one['lost'] for one in samples):.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float], digits: int) -> str:
    least, middle, most = (f(values) for f in (min, statistics.median, max))
    return f"{middle:.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"


@contextmanager
def _server() -> Iterator[str]:
    with Server(options=["--allowed-hosts", DOMAIN]) as server:
        yield urlsplit(server.url).netloc


def _proxy_config(*arguments: str) -> str:
    command = [sys.executable, "-m", "fastsse", "proxy-config", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def _make_certificate(folder: Path) -> None:
    """A certificate that is its own authority, and both parts in one file."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={DOMAIN}"),
            *("-addext", f"subjectAltName=DNS:{DOMAIN}"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        capture_output=True,
        check=True,
    )
    both = (folder / "cert.pem").read_text() + (folder / "key.pem").read_text()
    (folder / "both.pem").write_text(both)


@click.command()
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--streams", default=200, show_default=True, type=click.IntRange(1, 300))
@click.option("--rate", default=25.0, show_default=True, help="Events a second.")
@click.option("--seconds", default=2.0, show_default=True, help="Of each run.")
@click.option("--add-to", "path", type=click.Path(path_type=Path), help="Add to this result.")
def main(repeats: int, streams: int, rate: float, seconds: float, path: Path | None) -> None:
    """Prints latency, CPU and memory that each proxy adds."""
    shape = {"streams": streams, "rate": rate, "seconds": seconds}
    saved = json.loads(path.read_text()) if path and path.exists() else {}
    if saved and saved["shape"] != shape:
        raise click.UsageError(f"{path} has other runs: {saved['shape']}.")
    results: dict[str, list[Sample]] = saved.get("results", {})
    with _server() as node:
        for repeat in range(repeats):
            # Every other repeat the other way round.
            for name, wire in targets()[:: -1 if repeat % 2 else 1]:
                sample = run(node, name, wire, streams, rate, seconds)
                results.setdefault(f"{name}, {wire}", []).append(sample)
    click.echo(table(results))
    if path:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        whole = {"when": when, "shape": shape, "environment": environment(), "results": results}
        path.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
