"""What an idle connection costs in the kernel and in the server, measured on this machine.

    python -m fastsse.doctor.measure [--connections 9000] [--repeats 3]

Needs Linux, root (for /proc/slabinfo) and as many descriptors as connections. Nothing else should
be busy: what others open meanwhile is counted as well. The figures of `fastsse.doctor.measured`
and `tuning.md` that name this module come from it.

How: as many clients as asked for connect over loopback, so both ends are in this kernel's caches.
A cache counts when it has grown by an object for each end; half of it is one end's. Then one end of
each is put into an epoll, and what grows by an object for each connection is added. All clients
use one port and an address each, or the kernel's bind buckets, two a client, would be counted too.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from fastsse.programs import module_command

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SETTLE_S = 0.5
# Close by reset: thousands of connections in TIME-WAIT would be the next measurement's noise.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
# A cache whose growth is that near to an object each has one each.
_WITHIN = 0.1
_EVENT = b"x" * 128
_SEND_CACHES = {"skbuff_fclone_cache", "skbuff_small_head"}


@dataclass(frozen=True, slots=True)
class Cache:
    """One slab cache: live objects, bytes of one, and bytes of one with its share of the slab."""

    objects: int
    object_bytes: int
    object_cost_bytes: float


@dataclass(frozen=True, slots=True)
class Growth:
    """What one trial added: objects of each cache for each end of a connection, then for each
    entry of an epoll; and TCP memory pages that an acknowledged event to each left behind."""

    socket: dict[str, float]
    epoll: dict[str, float]
    leftover_pages: int


def read_caches(path: str = "/proc/slabinfo") -> dict[str, Cache]:
    """The kernel's slab caches by name. Raises PermissionError without root."""
    caches = {}
    for line in Path(path).read_text().splitlines()[2:]:
        name, active, _, size, per_slab, pages, *_ = line.split()
        cost = int(pages) * PAGE_BYTES / int(per_slab)
        caches[name] = Cache(int(active), int(size), cost)
    return caches


def growth(before: dict[str, Cache], after: dict[str, Cache], by: int) -> dict[str, float]:
    """Objects that each cache has more, divided by `by`."""
    known = before.keys() & after.keys()
    return {name: (after[name].objects - before[name].objects) / by for name in known}


def one_each(trials: Sequence[dict[str, float]]) -> list[str]:
    """The caches that have grown by an object each.

    Others on the machine open and look up files meanwhile, which adds to some trials: the least
    growth is the one that is ours.
    """
    least = {name: min(trial.get(name, 0.0) for trial in trials) for name in trials[0]}
    return sorted(name for name, ratio in least.items() if abs(ratio - 1) < _WITHIN)


def trial(count: int) -> Growth:
    """Opens `count` connections between a child process and this one, and counts."""
    with contextlib.ExitStack() as undo:
        listener = undo.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
        poller = undo.enter_context(select.epoll())
        clients = undo.enter_context(_clients(listener.getsockname()[1], count))
        before, pages_before = read_caches(), _tcp_pages()
        clients.command("connect")
        ends = [undo.enter_context(listener.accept()[0]) for _ in range(count)]
        clients.wait()
        time.sleep(SETTLE_S)
        connected = read_caches()
        for end in ends:
            poller.register(end, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        registered = read_caches()
        for end in ends:
            end.send(_EVENT)
        clients.ask("read")
        time.sleep(SETTLE_S)
        return Growth(
            growth(before, connected, 2 * count),
            growth(connected, registered, count),
            _tcp_pages() - pages_before,
        )


class MeasuredClients:
    """A process that holds the clients' ends, so that both together may exceed its fd limit."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def command(self, word: str) -> None:
        """Start it."""
        assert self._process.stdin is not None
        self._process.stdin.write(word.encode() + b"\n")
        self._process.stdin.flush()

    def wait(self) -> None:
        """Wait until it is done. Raises RuntimeError when it ended instead."""
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"done\n":
            raise RuntimeError("the clients ended early")

    def ask(self, word: str) -> None:
        """Both."""
        self.command(word)
        self.wait()


@contextlib.contextmanager
def _clients(port: int, count: int, request: bytes = b"") -> Iterator[MeasuredClients]:
    arguments = ("--clients", str(port), str(count), request.hex())
    command = module_command("fastsse.doctor.measure", *arguments)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        clients = MeasuredClients(process)
        clients.ask("ready")
        try:
            yield clients
        finally:
            process.kill()


def hold_clients(port: int, count: int, request: bytes) -> None:
    """The clients' process: obeys words on standard input until it is killed."""
    _raise_fd_limit(count)
    sockets: list[socket.socket] = []

    def connect() -> None:
        own_port = 0
        for number in range(count):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            client.bind((_source(number), own_port))
            own_port = client.getsockname()[1]
            client.connect(("127.0.0.1", port))
            client.sendall(request)
            sockets.append(client)

    def read() -> None:
        for client in sockets:
            client.recv(65536)

    words: dict[str, Callable[[], object]] = {"ready": bool, "connect": connect, "read": read}
    for line in sys.stdin:
        words[line.strip()]()
        print("done", flush=True)


def _source(number: int) -> str:
    """An address of its own for each client, from 127.64.0.1 on."""
    return socket.inet_ntoa(struct.pack("!I", 0x7F400001 + number))


def _raise_fd_limit(count: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = count + 64
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise click.ClickException(f"{count} connections need {wanted} descriptors; {hard} is all.")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _tcp_pages() -> int:
    line = next(x for x in Path("/proc/net/sockstat").read_text().splitlines() if x[:4] == "TCP:")
    return int(line.split()[-1])


def server_bytes() -> int:
    """Proportional memory of a server that was just started, with default options."""
    command = module_command("fastsse", "serve", "--port", "0", "--log-format", "json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            time.sleep(SETTLE_S)
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        finally:
            process.terminate()
    return next(int(x.split()[1]) for x in rollup.splitlines() if x.startswith("Pss:")) * 1024


@click.command()
@click.option("--connections", default=9000, show_default=True, type=click.IntRange(min=100))
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1))
def main(connections: int, repeats: int) -> None:
    """Measures and prints."""
    _raise_fd_limit(connections)
    trials = [trial(connections) for _ in range(repeats)]
    caches = read_caches()
    total_bytes = 0.0
    for what, each in (
        ("socket", one_each([found.socket for found in trials])),
        ("epoll entry", one_each([found.epoll for found in trials])),
    ):
        for name in each:
            total_bytes += caches[name].object_cost_bytes
            _show(what, name, caches[name])
    click.echo(f"kernel, idle connection: {total_bytes:,.0f} B")
    pages = [found.leftover_pages for found in trials]
    click.echo(f"TCP memory left after an acknowledged event to each: {min(pages)} pages")
    for name in _SEND_CACHES & caches.keys():
        _show("unacknowledged event", name, caches[name])
    click.echo(f"server without streams: {server_bytes() / 2**20:.1f} MiB")


def _show(what: str, name: str, cache: Cache) -> None:
    cost_bytes = cache.object_cost_bytes
    click.echo(f"  {what}: {name} {cache.object_bytes} B, {cost_bytes:.0f} B with its slab's rest")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--clients"]:
        hold_clients(int(sys.argv[2]), int(sys.argv[3]), bytes.fromhex(sys.argv[4]))
    else:
        main()
