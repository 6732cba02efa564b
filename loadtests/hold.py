"""Holds very many streams on several server processes and broadcasts to all of them.

    python -m loadtests.hold                          # 100,000 streams
    python -m loadtests.hold --connections 1000000    # as far as memory goes

One process's descriptors carry some 19,000 streams where the hard limit is 20,000, so there are as
many servers as that asks for, each with a swarm of its own. Every stream must get every broadcast.
"""

from __future__ import annotations

import contextlib
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from bench.server import Server

RESERVE = 300
OPEN_PATIENCE_S = 300


def kernel_bytes() -> int:
    """What the kernel holds in slabs and socket buffers, machine-wide."""
    slab = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("Slab:")
    )
    pages = Path("/proc/net/sockstat").read_text().split("TCP:")[1].split("mem ")[1].split()[0]
    return slab + int(pages) * resource.getpagesize()


def memory_of(servers: list[Server]) -> int:
    """User-space bytes, pages that the servers share counted once."""
    return sum(server.memory()["pss"] for server in servers)


def figure(servers: list[Server], name: str) -> float:
    """One of fastsse's metrics, all servers together."""
    return sum(server.metrics()[f"fastsse_{name}"] for server in servers)


def publish(server: Server, text: str) -> None:
    request = urllib.request.Request(server.url + "/events?topic=news", text.encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


@contextlib.contextmanager
def swarm(server: Server, number: int, streams: int, folder: Path, hold_s: int) -> Iterator[None]:
    """A swarm of one server's streams, from addresses of its own; reports to a file."""
    command = [sys.executable, "-m", "fastsse", "swarm", server.url, "--topic", "news"]
    options = {
        "--connections": str(streams),
        "--duration": f"{hold_s}s",
        "--processes": "1",
        "--sources": f"127.{2 + number // 250}.{1 + number % 250}.0/24",
        "--json": str(folder / f"{number}.json"),
    }
    arguments = [part for option in options.items() for part in option]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL)
    try:
        yield
        process.wait(hold_s + OPEN_PATIENCE_S)
    finally:
        process.terminate()
        process.wait()


def wait_for(what: str, condition: Callable[[], bool], patience_s: float) -> float:
    """Seconds until the condition held."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > patience_s:
            raise click.ClickException(f"{what}: not within {patience_s:.0f} s.")
        time.sleep(0.2)
    return time.monotonic() - began


def broadcast(servers: list[Server], connections: int, number: int) -> float:
    """Publishes on every server; seconds until each stream's copy went into its socket."""
    before = figure(servers, "deliveries_total")
    began = time.monotonic()
    for server in servers:
        publish(server, f"broadcast {number}")
    wait_for(
        f"Broadcast {number}",
        lambda: figure(servers, "deliveries_total") - before >= connections,
        OPEN_PATIENCE_S,
    )
    return time.monotonic() - began


@click.command(help=__doc__)
@click.option("--connections", default=100_000, show_default=True, type=click.IntRange(1))
@click.option("--broadcasts", default=3, show_default=True, type=click.IntRange(1))
@click.option("--hold", "hold_s", default=60, show_default=True, help="Seconds, opening included.")
def main(connections: int, broadcasts: int, hold_s: int) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - RESERVE
    count = math.ceil(connections / limit)
    shares = [connections // count + (n < connections % count) for n in range(count)]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        quiet = ("--access-lines", "0", "--drain", "1s")
        servers = [stack.enter_context(Server(options=quiet)) for _ in shares]
        user, kernel = memory_of(servers), kernel_bytes()
        cpu_us = sum(one.cpu_us() for one in servers)
        swarms = stack.enter_context(contextlib.ExitStack())
        for number, (server, share) in enumerate(zip(servers, shares, strict=True)):
            swarms.enter_context(swarm(server, number, share, folder, hold_s))
        opened_s = wait_for(
            "Opening", lambda: figure(servers, "connections") == connections, OPEN_PATIENCE_S
        )
        user = memory_of(servers) - user
        kernel = kernel_bytes() - kernel
        reached = [broadcast(servers, connections, n) for n in range(broadcasts)]
        cpu_us = sum(one.cpu_us() for one in servers) - cpu_us
        swarms.close()
        reports = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    events = sum(report["counters"]["events"] for report in reports)
    faults = {name: sum(r["faults"][name] for r in reports) for name in reports[0]["faults"]}
    result = {
        "connections": connections,
        "servers": count,
        "opened_s": round(opened_s, 1),
        "user_bytes_each": round(user / connections),
        "kernel_bytes_each_both_ends": round(kernel / connections),
        "broadcast_reached_all_s": [round(one, 2) for one in reached],
        "servers_cpu_s": round(cpu_us / 1e6, 1),
        "events_expected": connections * broadcasts,
        "events_received": events,
        "ended_early": sum(sum(report["ended"].values()) for report in reports),
        "faults": faults,
    }
    click.echo(json.dumps(result, indent=2))
    if events != connections * broadcasts or any(faults.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
