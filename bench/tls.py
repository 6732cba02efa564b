"""`python -m bench.tls`: what TLS of the server costs, next to a proxy in front.

    deliver     CPU a delivery and latency: without TLS, TLS of the server (OpenSSL's records, and
                native: `tls_records = native`), TLS of each proxy
    handshakes  CPU of a handshake, full and resumed, for keys of both kinds; full in each proxy
    busy        latency of events, with and without handshakes at a fixed rate meanwhile
    memory      bytes a stream of the server, and of each proxy with it; from two counts, so that
                what is taken once is apart
    all         deliver, handshakes and memory, one after another

What is compared takes turns in each round, so that drift falls on all. CPU is that of the server
and the proxy, from the scheduler's own clock.
"""

from __future__ import annotations

import contextlib
import http.client
import resource
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

    def __init__(
        self, folder: Path, options: list[str], plain: Server, secure: Server, native: Server
    ) -> None:
        self.folder = folder
        self._options = options
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

    def fresh(self, name: str) -> Server:
        """A server of the same kind without a past: tables that were used keep their size."""
        return Server(options=[*self._options, *_files(name, self.folder)])

    def connect(self, server: Server) -> http.client.HTTPConnection:
        """For publishes and metrics."""
        if server.url.startswith("http://"):
            return http.client.HTTPConnection("127.0.0.1", self.port_of(server))
        context = ssl.create_default_context(cafile=str(self.authority))
        context.check_hostname = False
        return http.client.HTTPSConnection("127.0.0.1", self.port_of(server), context=context)


def _files(name: str, folder: Path) -> list[str]:
    """The options of TLS of a server that is measured under this name."""
    if name not in ("server", "native"):
        return []
    pair = ["--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem")]
    return pair if name == "server" else [*pair, "--tls-records", "native"]


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
        three = (
            stack.enter_context(Server(options=[*hosts, *_files(name, folder)]))
            for name in ("none", "server", "native")
        )
        yield Site(folder, hosts, *three)


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


def open_stream(port: int, context: ssl.SSLContext | None) -> socket.socket:
    """A stream that the server has begun. The state of OpenSSL on this side is dropped: thousands
    of them would need gigabytes."""
    head = f"GET /events?topic=idle HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n".encode()
    sock = socket.create_connection(("127.0.0.1", port))
    if context is not None:
        sock = context.wrap_socket(sock, server_hostname=DOMAIN)
    sock.sendall(head)
    if b" 200 " not in (begin := sock.recv(4096)):
        raise click.ClickException(f"a stream was refused: {begin[:100]!r}")
    return socket.socket(fileno=sock.detach())


def streams_of(here: Site, server: Server, *, sealed: bool) -> int:
    """The streams that the server has, or of which it seals the records."""
    name = 'tls_records_total{result="released"}' if sealed else "connections"
    with contextlib.closing(here.connect(server)) as connection:
        connection.request("GET", "/metrics", headers={"Host": DOMAIN})
        lines = connection.getresponse().read().decode().splitlines()
    found = (line for line in lines if line.startswith(f"fastsse_{name} "))
    return int(float(next(found).rpartition(" ")[2]))


def memory(here: Site, name: str, streams: int) -> Sample:
    """Growth of the user space of the server and the proxy, to a quarter of the streams and from
    there to all. A further stream is the second part; what is taken once is in the first."""
    has_tls = name != "none"
    context = ssl.create_default_context(cafile=str(here.authority)) if has_tls else None
    few = max(1, streams // 4)
    with ExitStack() as stack:
        server = stack.enter_context(here.fresh(name))
        proxy, port = None, here.port_of(server)
        if name in PROXIES:
            node = f"127.0.0.1:{port}"
            proxy = stack.enter_context(Proxy(name, node, here.folder, has_tls=True))
            port = proxy.port
        opened: list[socket.socket] = []
        held = []
        for count in (0, few, streams):
            for _ in range(count - len(opened)):
                opened.append(stack.enter_context(open_stream(port, context)))
            while streams_of(here, server, sealed=name == "native") < count:
                time.sleep(0.05)
            time.sleep(_SETTLE_S)
            held.append(server.memory()["pss"] + (proxy.pss_bytes() if proxy else 0))
    each = (held[2] - held[1]) / max(1, streams - few)
    return {
        "KiB a stream": (held[2] - held[0]) / streams / 1024,
        "B a further stream": each,
        "KiB once": (held[1] - held[0] - few * each) / 1024,
    }


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
        click.echo(f"\n{key}\n")
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
@click.option("--streams", default=1000, show_default=True, type=click.IntRange(1, 18_000))
@click.option("--only", multiple=True, help="Only these of the first column.")
def memory_command(count: int, streams: int, only: tuple[str, ...]) -> None:
    """Bytes a stream, and once. Above 6,000 streams only for `none` and `native`."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
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
