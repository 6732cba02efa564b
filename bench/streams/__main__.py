"""`python -m bench.streams PART`: fastsse and other servers of the Durable Streams protocol.

Each part takes less than a minute a server. The server has one core, the client another. The same
client measures every server, one after the other.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from bench.streams import servers
from bench.streams.appends import append, create, produce, rest, warm_up
from bench.streams.catchup import fill, read
from bench.streams.floor import floor
from bench.streams.held import hold
from bench.streams.live import compare
from bench.streams.servers import Running
from bench.streams.tails import tail

STREAMS = (10, 1000, 10_000, 100_000)
# Appends to each stream, at the least, of one figure of the slope: a server that puts work off, and
# then does it once for some appends to a stream, has done that.
APPENDS_EACH = 5
PARTS = ("catchup", "live", "appends", "slope", "tails", "create", "held")
# Appends to tails of several workers, and the time between two.
HELD_APPENDS = 10
HELD_EVERY_S = 2.0


@contextmanager
def started(name: str, node: Path, rust: Path) -> Iterator[Running]:
    """A server by its name."""
    with tempfile.TemporaryDirectory() as folder:
        if name.startswith("node"):
            running = servers.node(node, folder, 0, is_stored=name == "node-file")
        elif name.startswith("rust"):
            running = servers.rust(rust, folder, 0, name.partition("-")[2] or "wal")
        else:
            running = servers.fastsse(folder, name, 0)
        with running as found:
            yield found


def catchup(server: Running, total_bytes: int) -> str:
    """MB/s of a reader, by the size of appends."""
    said = []
    for size in (65536, 4096):
        fill(server, f"log{size}", total_bytes, size)
        runs = [read(server, f"log{size}") for _ in range(3)]
        rates = sorted(found / seconds / 1e6 for found, seconds in runs)
        said.append(f"{size} B: {rates[1]:.0f} MB/s ({rates[0]:.0f} to {rates[2]:.0f})")
    return "  ".join(said)


def appends(server: Running, streams: int) -> str:
    """Appends a second to 50 streams."""
    create(server, 50)
    warm_up(server, 50)
    rate, cpu_us = append(server, 50, 5)
    return f"50 streams: {rate:.0f}/s, {cpu_us:.1f} µs CPU each"


def slope(server: Running, streams: int) -> str:
    """Appends a second to ever more streams."""
    said = []
    for count in STREAMS:
        if count <= streams:
            create(server, count)
            warm_up(server, count)
            rest(server)  # What these put off is not of the next ones.
            rate, cpu_us = append(server, count, 3, count * APPENDS_EACH)
            said.append(f"{count}: {rate:.0f}/s, {cpu_us:.1f} µs")
    return "  ".join(said)


def tails(server: Running, count: int, rate: int) -> str:
    """Latency of live tails."""
    found = tail(server, count, rate, 6)
    return (
        f"{count} tails: {found.delivered} of {found.expected}, p50 {found.at(0.5):.1f} ms, "
        f"p99 {found.at(0.99):.1f} ms, {found.cpu_us:.2f} µs CPU a delivery, "
        f"{found.tail_bytes:.0f} B an idle tail"
    )


def create_many(server: Running, streams: int) -> str:
    """Creates streams, and then has a producer append to each."""
    before = server.pss_bytes()
    rate = create(server, streams)
    created = (server.pss_bytes() - before) / 2**20
    produce(server, streams)
    produced = (server.pss_bytes() - before) / 2**20
    return (
        f"{streams} streams: {rate:.0f}/s, {created:.0f} MiB; "
        f"with an append of a producer to each {produced:.0f} MiB"
    )


@click.command()
@click.argument("part", type=click.Choice(PARTS))
@click.option("--servers", "names", default="memory,written,node,rust-wal", show_default=True)
@click.option("--node", default=".", type=click.Path(path_type=Path), help="has node_modules")
@click.option("--rust", default="durable-streams-server", type=click.Path(path_type=Path))
@click.option("--count", default=0, help="Bytes, streams or tails; 0: as the part has it.")
@click.option("--rate", default=50, show_default=True, help="Appends a second of `tails`.")
def main(part: str, names: str, node: Path, rust: Path, count: int, rate: int) -> None:
    """Measures PART of each server; `held` is fastsse alone, in memory, with several workers."""
    if part == "held":
        click.echo(f"held: {hold(count or 100_000, HELD_APPENDS, HELD_EVERY_S)}")
        return
    if hasattr(os, "sched_setaffinity") and os.cpu_count() != 1:
        os.sched_setaffinity(0, {1})
    parts: dict[str, tuple[Callable[[Running, int], str], int]] = {
        "catchup": (catchup, 50_000_000),
        "live": (compare, 20_000_000),
        "appends": (appends, 0),
        "slope": (slope, 100_000),
        "tails": (partial(tails, rate=rate), 1000),
        "create": (create_many, 20_000),
    }
    act, usual = parts[part]
    for name in names.split(","):
        with started(name, node, rust) as server:
            click.echo(f"{part} {name}: {act(server, count or usual)}")
    if part == "slope":
        with tempfile.TemporaryDirectory() as folder:
            counts = [one for one in STREAMS if one <= (count or usual)]
            click.echo(f"slope of SQLite alone: {floor(Path(folder), counts)}")


if __name__ == "__main__":
    main()
