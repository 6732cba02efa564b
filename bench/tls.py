"""`python -m bench.tls`: what TLS of the server costs, next to a proxy in front.

    deliver     CPU a delivery and latency: without TLS, TLS of the server (OpenSSL's records, and
                native: `tls_records = native`), TLS of each proxy
    handshakes  CPU of a handshake, full and resumed, for keys of both kinds; full in each proxy
    busy        latency of events, with and without handshakes at a fixed rate meanwhile
    memory      bytes a stream of the server, and of each proxy with it
    all         deliver, handshakes and memory, one after another

What is compared takes turns in each round, so that drift falls on all. CPU is that of the server
and the proxy, from the scheduler's own clock.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import click

from bench.proxies import DOMAIN, PROXIES, Proxy, Readers, program, publish
from bench.server import ROOT, Server

_SETTLE_S = 0.7
_DRAIN_S = 20
_KEYS = {
    "EC P-256": ("ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "RSA 2048": ("rsa:2048",),
}
Sample = dict[str, float]


class Site:
    """Three servers, without TLS and with it in two ways, and the files of the certificate."""

    def __init__(self, folder: Path, plain: Server, secure: Server, native: Server) -> None:
        self.folder = folder
        self.plain = plain
        self.secure = secure
        self.native = native
        self.authority = folder / "cert.pem"

    @staticmethod
    def port_of(server: Server) -> int:
        return urlsplit(server.url).port or 0

    def server_of(self, name: str) -> Server:
        """The server that is measured; behind a proxy the one without TLS."""
        return {"server": self.secure, "native": self.native}.get(name, self.plain)

    def connect(self, server: Server) -> http.client.HTTPConnection:
        """For publishes."""
        if server is self.plain:
            return http.client.HTTPConnection("127.0.0.1", self.port_of(server))
        context = ssl.create_default_context(cafile=str(self.authority))
        context.check_hostname = False
        return http.client.HTTPSConnection("127.0.0.1", self.port_of(server), context=context)


def make_certificate(folder: Path, key: str = "EC P-256") -> None:
    """A certificate that is its own authority; both parts also in one file."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", *_KEYS[key], "-nodes", "-days", "2"),
            *("-subj", f"/CN={DOMAIN}", "-addext", f"subjectAltName=DNS:{DOMAIN}"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        capture_output=True,
        check=True,
    )
    both = (folder / "cert.pem").read_text() + (folder / "key.pem").read_text()
    (folder / "both.pem").write_text(both)


@contextmanager
def site(key: str = "EC P-256") -> Iterator[Site]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastsse-tls-")))
        make_certificate(folder, key)
        hosts = ["--allowed-hosts", f"{DOMAIN},127.0.0.1"]
        files = ["--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem")]
        plain = stack.enter_context(Server(options=hosts))
        secure = stack.enter_context(Server(options=[*hosts, *files]))
        native = stack.enter_context(Server(options=[*hosts, *files, "--tls-records", "native"]))
        yield Site(folder, plain, secure, native)


def thread_us(server: Server, name: str = "") -> float:
    """CPU time of the threads of a server that have this name; of all without one."""
    return sum(
        int((task / "schedstat").read_text().split()[0]) / 1000
        for pid in server.pids()
        for task in Path(f"/proc/{pid}/task").iterdir()
        if not name or (task / "comm").read_text().strip() == name
    )


def deliver(here: Site, name: str, streams: int, rate: float, seconds: float) -> Sample:
    """One run: the streams opened, the events sent, all read."""
    server = here.server_of(name)
    with ExitStack() as stack:
        node = f"127.0.0.1:{here.port_of(server)}"
        proxy = None
        if name in PROXIES:
            proxy = stack.enter_context(Proxy(name, node, here.folder, has_tls=True))
        port = proxy.port if proxy else here.port_of(server)
        wire = "HTTP/1.1" if name == "none" else "TLS"
        readers = stack.enter_context(Readers(port, wire, streams, here.authority))
        readers.wait(streams)
        time.sleep(_SETTLE_S)
        before = thread_us(server) + (proxy.cpu_us() if proxy else 0)
        with contextlib.closing(here.connect(server)) as connection:
            expected = publish(connection, rate, seconds) * streams
        deadline_s = time.monotonic() + _DRAIN_S
        while len(readers.late_us) < expected and time.monotonic() < deadline_s:
            time.sleep(0.01)
        used = thread_us(server) + (proxy.cpu_us() if proxy else 0) - before
        late_us = sorted(readers.late_us)
    return {
        "CPU µs a delivery": used / expected,
        "median ms": statistics.median(late_us) / 1000,
        "p99 ms": late_us[int(len(late_us) * 0.99)] / 1000,
        "lost": float(expected - len(late_us)),
    }


# ---- handshakes ----------------------------------------------------------------------------------


def shake(port: int, authority: str, rate: float, count: int, *, resumed: bool) -> int:
    """Connects, asks for /healthz, closes: `count` times, at most `rate` a second (0: any). Returns
    how many sessions were resumed."""
    context = ssl.create_default_context(cafile=authority)
    session, reused, began_s = None, 0, time.monotonic()
    request = f"GET /healthz HTTP/1.1\r\nHost: {DOMAIN}\r\nConnection: close\r\n\r\n".encode()
    for index in range(count):
        if rate:
            time.sleep(max(0.0, began_s + index / rate - time.monotonic()))
        with (
            socket.create_connection(("127.0.0.1", port)) as raw,
            context.wrap_socket(raw, server_hostname=DOMAIN, session=session) as tls,
        ):
            tls.sendall(request)
            while tls.recv(4096):
                pass
            reused += bool(tls.session_reused)
            session = tls.session if resumed else None
    return reused


def handshakes(here: Site, name: str, count: int) -> Sample:
    """CPU of the thread or the proxy that does TLS, and of all, for a connection with a request."""
    with ExitStack() as stack:
        server, proxy = here.secure, None
        if name in PROXIES:
            server, node = here.plain, f"127.0.0.1:{here.port_of(here.plain)}"
            proxy = stack.enter_context(Proxy(name, node, here.folder, has_tls=True))

        def used() -> tuple[float, float]:
            ours = thread_us(server)
            of_tls = proxy.cpu_us() if proxy else thread_us(server, "fastsse-door")
            return of_tls, ours + (of_tls if proxy else 0)

        before = used()
        port = proxy.port if proxy else here.port_of(server)
        reused = shake(port, str(here.authority), 0, count, resumed=name == "resumed")
        of_tls, all_us = (now - then for now, then in zip(used(), before, strict=True))
    if reused != (count - 1 if name == "resumed" else 0):
        raise click.ClickException(f"{reused} of {count} sessions were resumed")
    return {
        "CPU µs a handshake": of_tls / count,
        "a second and core": 1e6 * count / of_tls,
        "with the server's": all_us / count,
    }


@contextmanager
def shaking(here: Site, rate: float, seconds: float) -> Iterator[None]:
    """Handshakes of another process at this rate meanwhile."""
    if not rate:
        yield
        return
    arguments = [str(here.port_of(here.secure)), str(here.authority), str(rate), str(seconds)]
    command = [sys.executable, "-m", "bench.tls", "shake", *arguments]
    with subprocess.Popen(command, cwd=ROOT) as process:
        time.sleep(0.5)
        yield
        process.wait()


def busy(here: Site, name: str, streams: int, rate: float, seconds: float) -> Sample:
    """A run of `deliver` with handshakes meanwhile, or without."""
    with shaking(here, 300.0 if name == "300/s" else 0, seconds + 3):
        sample = deliver(here, "server", streams, rate, seconds)
    return {key: sample[key] for key in ("median ms", "p99 ms", "lost")}


def memory(here: Site, name: str, streams: int) -> Sample:
    """Growth of the user space of the server and the proxy by open streams."""
    server = here.server_of(name)
    context = ssl.create_default_context(cafile=str(here.authority))
    head = f"GET /events?topic=idle HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n".encode()
    with ExitStack() as stack:
        proxy, node = None, f"127.0.0.1:{here.port_of(here.plain)}"
        if name in PROXIES:
            proxy = stack.enter_context(Proxy(name, node, here.folder, has_tls=True))
        port = proxy.port if proxy else here.port_of(server)

        def held() -> int:
            return server.memory()["pss"] + (proxy.pss_bytes() if proxy else 0)

        before = held()
        for _ in range(streams):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            if name != "none":
                sock = stack.enter_context(context.wrap_socket(sock, server_hostname=DOMAIN))
            sock.sendall(head)
            sock.recv(4096)
        time.sleep(_SETTLE_S)
        return {"KiB a stream": (held() - before) / streams / 1024}


# ---- what is run ---------------------------------------------------------------------------------


def spread(values: list[float]) -> str:
    least, middle, most = (f(values) for f in (min, statistics.median, max))
    return f"{middle:.2f} ({least:.2f} to {most:.2f})"


def rounds(count: int, names: list[str], run: Callable[[str], Sample]) -> None:
    """Runs all in turn, every other round backwards, and prints a table."""
    results: dict[str, list[Sample]] = {name: [] for name in names}
    for index in range(count):
        for name in names[:: -1 if index % 2 else 1]:
            results[name].append(run(name))
    figures = list(results[names[0]][0])
    click.echo("| | " + " | ".join(figures) + " |\n| --- |" + " ---: |" * len(figures))
    for name, samples in results.items():
        cells = [spread([sample[figure] for sample in samples]) for figure in figures]
        click.echo(f"| {name} | " + " | ".join(cells) + " |")


@click.group()
def main() -> None:
    """What TLS of the server costs."""


def _names() -> list[str]:
    """What is compared: no TLS, the server's in both ways, and each proxy that is installed."""
    return ["none", "server", "native", *(name for name in PROXIES if program(name))]


@main.command("deliver")
@click.option("--rounds", "count", default=5, show_default=True)
@click.option("--streams", default=200, show_default=True, type=click.IntRange(1, 300))
@click.option("--rate", default=25.0, show_default=True, help="Events a second.")
@click.option("--seconds", default=1.0, show_default=True, help="Of each run.")
@click.option("--only", multiple=True, help="Only these of the first column.")
def deliver_command(
    count: int, streams: int, rate: float, seconds: float, only: tuple[str, ...]
) -> None:
    """CPU a delivery and latency."""
    with site() as here:
        rounds(
            count,
            [name for name in _names() if not only or name in only],
            lambda name: deliver(here, name, streams, rate, seconds),
        )


@main.command("handshakes")
@click.option("--rounds", "count", default=5, show_default=True)
@click.option("--connections", default=300, show_default=True)
def handshakes_command(count: int, connections: int) -> None:
    """CPU of a handshake."""
    for key in _KEYS:
        click.echo(key)
        with site(key) as here:
            names = ["full", "resumed", *_names()[3:]]
            rounds(count, names, lambda name: handshakes(here, name, connections))


@main.command("busy")
@click.option("--rounds", "count", default=5, show_default=True)
@click.option("--streams", default=200, show_default=True, type=click.IntRange(1, 300))
@click.option("--rate", default=10.0, show_default=True, help="Events a second.")
@click.option("--seconds", default=2.0, show_default=True, help="Of each run.")
def busy_command(count: int, streams: int, rate: float, seconds: float) -> None:
    """Latency while others shake hands."""
    with site() as here:
        rounds(count, ["none", "300/s"], lambda name: busy(here, name, streams, rate, seconds))


@main.command("memory")
@click.option("--rounds", "count", default=1, show_default=True)
@click.option("--streams", default=1000, show_default=True, type=click.IntRange(1, 6000))
@click.option("--only", multiple=True, help="Only these of the first column.")
def memory_command(count: int, streams: int, only: tuple[str, ...]) -> None:
    """Bytes a stream."""
    with site() as here:
        names = [name for name in _names() if not only or name in only]
        rounds(count, names, lambda name: memory(here, name, streams))


@main.command("all")
@click.option("--rounds", "count", default=3, show_default=True)
@click.pass_context
def all_command(context: click.Context, count: int) -> None:
    """All that is compared with proxies."""
    for title, command in (
        ("a delivery", deliver_command),
        ("a connection with one request", handshakes_command),
        ("an idle stream", memory_command),
    ):
        click.echo(f"\n{title}\n")
        context.invoke(command, count=count)


@main.command("shake", hidden=True)
@click.argument("port", type=int)
@click.argument("authority")
@click.argument("rate", type=float)
@click.argument("seconds", type=float)
def shake_command(port: int, authority: str, rate: float, seconds: float) -> None:
    """Handshakes at a fixed rate."""
    shake(port, authority, rate, int(rate * seconds), resumed=False)


if __name__ == "__main__":
    main()
