"""`python -m bench.waiters`: very many long-polls that wait at once, all answered by one publish.

Each is a `GET /events?wait=60s` on a connection and a descriptor of its own. Prints the memory of
all processes of the server (Pss) for a waiting poll, how long the answers took and their CPU.
"""

from __future__ import annotations

import multiprocessing
import resource
import select
import socket
import statistics
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from urllib.parse import urlsplit

import click

from bench.server import Server

_WAIT_S = 60
_SPARE = 2000
_TOPIC = "news"
_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; Python has no name for it.
_REQUEST = (
    f"GET /events?topic={_TOPIC}&wait={_WAIT_S}s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
)
Figures = dict[str, float]


class Crew:
    """Processes that hold the polls, each with an address of its own.

    Arguments:
        port: of the server.
        count: polls of all.
        each: polls of a process at most.
    """

    def __init__(self, port: int, count: int, each: int) -> None:
        self._pipes: list[Connection] = []
        self._processes = []
        for number in range(-(-count // each)):
            ours, theirs = multiprocessing.Pipe()
            share = min(each, count - number * each)
            process = multiprocessing.Process(target=_hold, args=(theirs, port, number, share))
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def opened(self) -> None:
        """Returns when all have asked."""
        for pipe in self._pipes:
            pipe.recv()

    def answered(self) -> list[tuple[int, int, float]]:
        """Of each process: answers with the event, others, when the last came."""
        found = [pipe.recv() for pipe in self._pipes]
        for process in self._processes:
            process.join()
        return found

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def _hold(pipe: Connection, port: int, number: int, count: int) -> None:
    """Asks on so many connections, then reads the answers."""
    source = f"127.0.{1 + number // 250}.{1 + number % 250}"
    sockets, polled = {}, select.epoll()
    for _ in range(count):
        sock = _connect(source, port)
        sock.sendall(_REQUEST)
        sockets[sock.fileno()] = sock
        polled.register(sock.fileno(), select.EPOLLIN)
    pipe.send("opened")
    right = wrong = 0
    last_s = 0.0
    while sockets:
        for descriptor, _ in polled.poll(maxevents=1000):
            sock = sockets.pop(descriptor)
            try:
                is_event = b'"data":"wake"' in sock.recv(4096)
            except OSError:
                is_event = False
            right, wrong = right + is_event, wrong + (not is_event)
            last_s = time.monotonic()
            sock.close()
    pipe.send((right, wrong, last_s))


def _connect(source: str, port: int) -> socket.socket:
    """A connection from an address. The kernel picks the port in connect: at bind it would look
    through all that are taken, which costs a millisecond with 18,000."""
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((source, 0))
    sock.connect(("127.0.0.1", port))
    return sock


@contextmanager
def _crew(port: int, count: int, each: int) -> Iterator[Crew]:
    crew = Crew(port, count, each)
    try:
        yield crew
    finally:
        crew.end()


def run(count: int, workers: int, each: int) -> Figures:
    """One run with a fresh server."""
    with Server(options=["--workers", str(workers)]) as server:
        time.sleep(1)
        before, cpu_us = server.memory(), server.cpu_us()
        began_s = time.monotonic()
        with _crew(urlsplit(server.url).port or 0, count, each) as crew:
            crew.opened()
            _until_waiting(server, count, began_s + _WAIT_S)
            opened_s, opening_us = time.monotonic() - began_s, server.cpu_us() - cpu_us
            memory, cpu_us = server.memory(), server.cpu_us()
            began_s = time.monotonic()
            urllib.request.urlopen(f"{server.url}/events?topic={_TOPIC}", b"wake", timeout=60)
            answers = crew.answered()
        woken_us = server.cpu_us() - cpu_us
    grown = memory["pss"] - before["pss"]
    return {
        "answered": sum(right for right, _, _ in answers),
        "not answered": sum(wrong for _, wrong, _ in answers),
        "s until all wait": opened_s,
        "CPU µs of the server to take one": opening_us / count,
        "MB of the server before (Pss)": before["pss"] / 1e6,
        "MB while all wait": memory["pss"] / 1e6,
        "bytes a waiting poll": grown / count,
        "s from the publish to the last answer": max(last for _, _, last in answers) - began_s,
        "CPU µs of the server an answer": woken_us / count,
    }


def _until_waiting(server: Server, count: int, deadline_s: float) -> None:
    """Returns when the server counts all of them."""
    while (waiting := server.metrics().get("fastsse_polls_waiting", 0)) < count:
        if time.monotonic() > deadline_s:
            raise click.ClickException(f"{waiting:.0f} of {count} polls wait")
        time.sleep(0.2)


@click.command()
@click.option("--waiters", default=100_000, show_default=True, type=click.IntRange(min=1))
@click.option("--workers", default=7, show_default=True, type=click.IntRange(min=2))
@click.option("--rounds", default=1, show_default=True, type=click.IntRange(min=1))
def main(waiters: int, workers: int, rounds: int) -> None:
    """Holds so many long-polls on a server of its own, and answers all by one publish."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    each = max(1, min(descriptors - _SPARE, 25_000))
    if waiters > workers * each:
        raise click.ClickException(
            f"{descriptors} descriptors a process are not enough: more --workers."
        )
    found = [run(waiters, workers, each) for _ in range(rounds)]
    click.echo(f"{waiters:,} polls on {workers} workers, {rounds} runs")
    for name in found[0]:
        values = [one[name] for one in found]
        spread = f" ({min(values):,.1f} to {max(values):,.1f})" if rounds > 1 else ""
        click.echo(f"{name}: {statistics.median(values):,.1f}{spread}")


if __name__ == "__main__":
    main()
