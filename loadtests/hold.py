"""Holds very many streams of one service and broadcasts to all of them.

    python -m loadtests.hold                          # 100,000 streams
    python -m loadtests.hold --connections 1000000    # as far as memory goes

With a hard limit of 20,000 descriptors a process holds about 19,000 streams. So the service has as
many workers as the streams need, and the swarm as many processes. Every stream must receive every
broadcast once. A sample of other streams is cut during a broadcast and must receive it later.
"""

from __future__ import annotations

import asyncio
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
from fastsse.stamp import Stamp, encode, now_us

# A worker's, or a swarm's, own descriptors; and how far above the mean a worker's share may lie
# when the kernel spreads connects by chance (six standard deviations of 19,000).
RESERVE = 300
UNEVEN = 850
SAMPLE = 100
POLL_S = 0.1


def kernel_bytes() -> int:
    """Bytes in the kernel's slabs and socket buffers, of the whole machine."""
    slab = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("Slab:")
    )
    pages = Path("/proc/net/sockstat").read_text().split("TCP:")[1].split("mem ")[1].split()[0]
    return slab + int(pages) * resource.getpagesize()


def available_bytes() -> int:
    """Available memory of the machine."""
    text = Path("/proc/meminfo").read_text().split("MemAvailable:")[1]
    return int(text.split()[0]) * 1024


def stats(server: Server) -> dict:
    """The whole service's `/stats`."""
    with urllib.request.urlopen(f"{server.url}/stats", timeout=60) as answer:
        return json.load(answer)


def publish(server: Server, number: int) -> str:
    """Publishes one event to all streams and returns its id."""
    data = encode(Stamp(now_us(), 1, number), 128)
    request = urllib.request.Request(server.url + "/events?topic=news", data)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["id"])


@contextlib.contextmanager
def swarm(
    server: Server, streams: int, processes: int, report: Path, topic: str = "news"
) -> Iterator[subprocess.Popen]:
    """Opens all streams but the sample. Writes a report when it is ordered to end."""
    command = [sys.executable, "-m", "fastsse", "swarm", server.url, "--topic", topic]
    options = {
        "--connections": str(streams),
        "--duration": "0s",
        "--max-opening": str(512 * processes),
        "--processes": str(processes),
        "--json": str(report),
    }
    arguments = [part for option in options.items() for part in option]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(300)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def wait_for(what: str, condition: Callable[[], bool], patience_s: float) -> float:
    """Waits for a condition; returns the seconds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > patience_s:
            raise click.ClickException(f"{what}: not within {patience_s:.0f} s.")
        time.sleep(POLL_S)
    return time.monotonic() - began


def broadcast(
    server: Server, connections: int, number: int, patience_s: float
) -> tuple[str, float]:
    """Publishes; the event's id, and seconds until each stream's copy went into its socket."""
    before = stats(server)["totals"]["deliveries"]
    began = time.monotonic()
    event = publish(server, number)
    wait_for(
        f"Broadcast {number}",
        lambda: stats(server)["totals"]["deliveries"] - before >= connections,
        patience_s,
    )
    return event, time.monotonic() - began


# ── The sample that resumes ───────────────────────────────────────────────────────────────────


async def follow(port: int, last_id: str, events: int) -> list[str]:
    """Ids on a stream: the opening's, then so many events'."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        last = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
        head = f"GET /events?topic=news HTTP/1.0\r\nHost: localhost\r\n{last}\r\n"
        writer.write(head.encode())
        ids = []
        while len(ids) <= events:
            line = await reader.readline()
            if not line:
                raise click.ClickException("A stream of the sample ended early.")
            if line.startswith(b"id: "):
                ids.append(line[4:].strip().decode())
        return ids
    finally:
        writer.close()


async def all_follow(port: int, places: list[str], events: int) -> list[list[str]]:
    """As `follow`, for all of the sample at once."""
    return await asyncio.gather(*(follow(port, place, events) for place in places))


def resumed(server: Server, connections: int, number: int, patience_s: float) -> int:
    """Cuts the sample, broadcasts twice, and reopens the sample. Returns how many streams received
    exactly the missed events."""
    port = int(server.url.rpartition(":")[2])
    places = [ids[0] for ids in asyncio.run(all_follow(port, [""] * SAMPLE, 0))]
    left = "The sample's leaving"
    wait_for(left, lambda: stats(server)["connections"] <= connections, patience_s)
    missed = [broadcast(server, connections, number + n, patience_s)[0] for n in range(2)]
    got = asyncio.run(all_follow(port, places, len(missed)))
    return sum(ids[1:] == missed for ids in got)


@click.command(help=__doc__)
@click.option("--connections", default=100_000, show_default=True, type=click.IntRange(1))
@click.option("--broadcasts", default=3, show_default=True, type=click.IntRange(1))
@click.option("--workers", default=0, help="0: as many as the descriptors need, at least two.")
@click.option("--patience", "patience_s", default=600, show_default=True, help="Seconds a step.")
def main(connections: int, broadcasts: int, workers: int, patience_s: int) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - RESERVE
    workers = workers or max(2, math.ceil(connections / (limit - UNEVEN)))
    processes = math.ceil(connections / limit)
    with contextlib.ExitStack() as stack:
        report = Path(stack.enter_context(tempfile.TemporaryDirectory()), "swarm.json")
        quiet = ("--access-lines", "0", "--drain", "1s", "--workers", str(workers))
        server = stack.enter_context(Server(options=quiet))
        wait_for("The workers", lambda: len(stats(server)["processes"]) == workers, patience_s)
        idle = server.memory()
        kernel, cpu_us, free = kernel_bytes(), server.cpu_us(), available_bytes()
        with swarm(server, connections, processes, report) as crew:
            opened_s = wait_for(
                "Opening",
                lambda: stats(server)["connections"] == connections or crew.poll() is not None,
                patience_s,
            )
            if crew.poll() is not None:
                raise click.ClickException("The swarm ended early.")
            held = server.memory()
            kernel, free = kernel_bytes() - kernel, free - available_bytes()
            opening_cpu_us = server.cpu_us() - cpu_us
            numbers = range(1, broadcasts + 1)
            reached = [broadcast(server, connections, n, patience_s)[1] for n in numbers]
            cpu_us = server.cpu_us() - cpu_us
            exact = resumed(server, connections, broadcasts + 1, patience_s)
            spread = sorted(one["connections"] for one in stats(server)["processes"])
        result = json.loads(report.read_text())
    published = broadcasts + 2
    received, faults = result["counters"]["events"], result["faults"]
    ended = sum(result["ended"].values())
    figures = {
        "connections": connections,
        "workers": workers,
        "swarm_processes": processes,
        "spread": {"least": spread[0], "median": spread[len(spread) // 2], "most": spread[-1]},
        "opened_s": round(opened_s, 1),
        "user_bytes_each": round((held["pss"] - idle["pss"]) / connections),
        "idle_worker_private_bytes": round(idle["private"] / (workers + 2)),
        "kernel_bytes_each_both_ends": round(kernel / connections),
        "machine_bytes_each_both_ends": round(free / connections),
        "broadcast_reached_all_s": [round(one, 2) for one in reached],
        "opening_cpu_s": round(opening_cpu_us / 1e6, 1),
        "broadcasts_cpu_s": round((cpu_us - opening_cpu_us) / 1e6, 1),
        "sample_resumed_exactly": f"{exact} of {SAMPLE}",
        "events_expected": connections * published,
        "events_received": received,
        "ended_early": ended,
        "faults": faults,
    }
    click.echo(json.dumps(figures, indent=2))
    if received != connections * published or any(faults.values()) or exact != SAMPLE:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
