"""Holds very many streams of one service and broadcasts to all of them.

    python -m loadtests.hold                          # 100,000 streams
    python -m loadtests.hold --connections 1000000    # as far as memory goes
    python -m loadtests.hold --tokens --presence --store sqlite:events.db

With a hard limit of 20,000 descriptors a process holds about 19,000 streams. So the service has as
many workers as the streams need, and the swarm as many processes. Every stream must receive every
broadcast once. A sample of other streams is cut during a broadcast and must receive it later.
A step that is not done in time ends the run: the figures say which, and how far it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import resource
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import click
import jwt

from bench.machine import environment
from bench.server import Server
from fastsse.stamp import Stamp, encode, now_us

# A worker's, or a swarm's, own descriptors; and how far above the mean a worker's share may lie
# when the kernel spreads connects by chance (six standard deviations of 19,000).
RESERVE = 300
UNEVEN = 850
SAMPLE = 100
POLL_S = 0.1
BUSY_S = 300
# Streams that a process of the swarm opens at once.
OPENING = 512
TOKEN_S = 3600
# Of `/proc/net/netstat`: what the kernel did not take.
REFUSALS = ("ListenOverflows", "ListenDrops", "TCPMemoryPressures", "TCPAbortOnMemory")


@dataclass(frozen=True)
class Load:
    """What is held.

    Attributes:
        tokens: each stream has one.
        rest_s: so long after all are open the memory is read again, when what is kept for a time is
            gone; 0: it is not.
        key: that signs tokens; empty: none is needed.
    """

    connections: int
    workers: int
    processes: int
    broadcasts: int
    sample: int
    patience_s: float
    presence: bool
    store: str
    tokens: bool
    key: str
    rest_s: float
    opening: int

    @property
    def kind(self) -> str:
        """What is beyond plain streams."""
        words = {"tokens": self.tokens, "presence": self.presence}
        chosen = [name for name, is_on in words.items() if is_on]
        return ", ".join([*chosen, *([self.store.partition(":")[0]] if self.store else [])])

    @property
    def options(self) -> list[str]:
        """Those of the server."""
        options = ["--access-lines", "0", "--drain", "1s", "--workers", str(self.workers)]
        options += ["--subscriptions"] if self.presence else []
        options += ["--store", self.store] if self.store else []
        options += ["--jwt-key", self.key] if self.key else []
        return options if self.tokens or not self.key else [*options, "--anonymous"]

    def headers(self) -> dict[str, str]:
        """Those of a publisher, and of the sample."""
        if not self.key:
            return {}
        claims = {"mercure": {"publish": ["*"], "subscribe": ["news"]}}
        return {"Authorization": f"Bearer {jwt.encode(claims, self.key, 'HS256')}"}


@dataclass
class Held:
    """A run, and what is known of it. `refused`: publishes that were answered with 503."""

    load: Load
    server: Server
    refused: int = 0
    figures: dict[str, object] = field(default_factory=dict)


def mint(path: Path, key: str, count: int) -> None:
    """Writes a token for each stream, each of a subject of its own."""
    until_s = int(time.time()) + TOKEN_S
    with path.open("w") as file:
        for number in range(count):
            claims = {
                "mercure": {"subscribe": ["news"]},
                "sub": f"user-{number}",
                "exp": until_s,
            }
            file.write(jwt.encode(claims, key, "HS256") + "\n")


def refusals() -> dict[str, int]:
    """The kernel's counters of connections and memory that it refused, since its start."""
    names, values = [
        line.split()[1:]
        for line in Path("/proc/net/netstat").read_text().splitlines()
        if line.startswith("TcpExt:")
    ]
    found = dict(zip(names, map(int, values), strict=True))
    return {name: found.get(name, 0) for name in REFUSALS}


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


def answered(held_up: str, request: urllib.request.Request) -> tuple[dict, int]:
    """The JSON of an answer, and how often it was 503 before. While a million streams open, a
    process may be too busy to answer in time. The request is sent again, as `Retry-After` says, for
    five minutes."""
    until_s = time.monotonic() + BUSY_S
    for refused in itertools.count():
        try:
            with urllib.request.urlopen(request, timeout=BUSY_S) as answer:
                return json.load(answer), refused
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > until_s:
                raise click.ClickException(f"{held_up}: {error.code}: {text}") from error
            time.sleep(float(error.headers.get("Retry-After", "1")))
    raise AssertionError


def stats(server: Server) -> dict:
    """The whole service's `/stats`."""
    return answered("/stats", urllib.request.Request(f"{server.url}/stats"))[0]


def publish(held: Held, number: int) -> str:
    """Publishes one event to all streams and returns its id. It has one id, however often it is
    sent: a publish that was answered with 503 may be in the log all the same."""
    data = encode(Stamp(now_us(), 1, number), 128)
    url = held.server.url + "/events?topic=news"
    lines = held.load.headers() | {"Idempotency-Key": secrets.token_hex(8)}
    answer, refused = answered("Publishing", urllib.request.Request(url, data, lines))
    held.refused += refused
    return str(answer["id"])


@contextlib.contextmanager
def swarm(
    url: str,
    topic: str,
    connections: int,
    report: Path,
    processes: int = 1,
    tokens: Path | None = None,
    opening: int = OPENING,
) -> Iterator[subprocess.Popen]:
    """Opens streams in programs of its own. Writes a report when it is ordered to end."""
    command = [sys.executable, "-m", "fastsse", "swarm", url, "--topic", topic]
    options = {
        "--connections": str(connections),
        "--duration": "0s",
        "--max-opening": str(opening * processes),
        "--processes": str(processes),
        "--json": str(report),
    }
    if tokens is not None:
        options["--tokens"] = str(tokens)
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


def broadcast(held: Held, number: int) -> tuple[str, float]:
    """Publishes; the event's id, and seconds until each stream's copy went into its socket."""
    server = held.server
    before = stats(server)["totals"]["deliveries"]
    began = time.monotonic()
    event = publish(held, number)
    wait_for(
        f"Broadcast {number}",
        lambda: stats(server)["totals"]["deliveries"] - before >= held.load.connections,
        held.load.patience_s,
    )
    return event, time.monotonic() - began


# ── The sample that resumes ───────────────────────────────────────────────────────────────────


async def follow(held: Held, last_id: str, events: int) -> list[str]:
    """Ids on a stream: the opening's, then so many events'."""
    port = int(held.server.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        lines = {"Host": "localhost", **held.load.headers()}
        if last_id:
            lines["Last-Event-ID"] = last_id
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"GET /events?topic=news HTTP/1.0\r\n{head}\r\n".encode())
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


async def all_follow(held: Held, places: list[str], events: int) -> list[list[str]]:
    """As `follow`, for all of the sample at once."""
    return await asyncio.gather(*(follow(held, place, events) for place in places))


def resumed(held: Held) -> int:
    """Cuts the sample, broadcasts twice, and reopens the sample. Returns how many streams received
    exactly the missed events."""
    load, number = held.load, held.load.broadcasts + 1
    places = [ids[0] for ids in asyncio.run(all_follow(held, [""] * load.sample, 0))]
    wait_for(
        "The sample's leaving",
        lambda: stats(held.server)["connections"] <= load.connections,
        load.patience_s,
    )
    missed = [broadcast(held, number + n)[0] for n in range(2)]
    got = asyncio.run(all_follow(held, places, len(missed)))
    return sum(ids[1:] == missed for ids in got)


# ── The run ───────────────────────────────────────────────────────────────────────────────────


def open_all(held: Held, crew: subprocess.Popen) -> None:
    """Waits until all streams are open; time, CPU and memory of that."""
    load, server = held.load, held.server
    idle, cpu_us, refused = server.memory(), server.cpu_us(), refusals()
    kernel, free = kernel_bytes(), available_bytes()
    began = time.monotonic()
    try:
        wait_for(
            "Opening",
            lambda: stats(server)["connections"] >= load.connections or crew.poll() is not None,
            load.patience_s,
        )
        if crew.poll() is not None:
            raise click.ClickException("The swarm ended early.")
    finally:
        taken_s = time.monotonic() - began
        opened = max(1, stats(server)["connections"])
        held.figures |= {
            "opened": opened,
            "opened_s": round(taken_s, 1),
            "opened_a_second": round(opened / taken_s),
            "opening_cpu_s": round((server.cpu_us() - cpu_us) / 1e6, 1),
            "idle_worker_private_bytes": round(idle["private"] / (load.workers + 2)),
            "user_bytes_each": round((server.memory()["pss"] - idle["pss"]) / opened),
            "kernel_bytes_each_both_ends": round((kernel_bytes() - kernel) / opened),
            "machine_bytes_each_both_ends": round((free - available_bytes()) / opened),
            "kernel_refused": {name: now - refused[name] for name, now in refusals().items()},
        }
    if load.rest_s:
        time.sleep(load.rest_s)
        rested = (server.memory()["pss"] - idle["pss"]) / opened
        held.figures["user_bytes_each_after_rest"] = round(rested)


def reach_all(held: Held) -> None:
    """Broadcasts, and has the sample resume."""
    load, server = held.load, held.server
    cpu_us = server.cpu_us()
    numbers = range(1, load.broadcasts + 1)
    reached = [broadcast(held, number)[1] for number in numbers]
    held.figures["broadcast_reached_all_s"] = [round(one, 2) for one in reached]
    held.figures["broadcasts_cpu_s"] = round((server.cpu_us() - cpu_us) / 1e6, 1)
    held.figures["publishes_refused"] = held.refused
    if load.sample:
        held.figures["sample_resumed_exactly"] = f"{resumed(held)} of {load.sample}"
    spread = sorted(one["connections"] for one in stats(server)["processes"])
    held.figures["spread"] = [spread[0], spread[len(spread) // 2], spread[-1]]


def run(load: Load, folder: Path) -> dict[str, object]:
    """The figures; with `broke` if a step was not done."""
    report, tokens = folder / "swarm.json", folder / "tokens"
    if load.tokens:
        mint(tokens, load.key, load.connections)
    with Server(options=load.options) as server:
        held = Held(load, server)
        try:
            ready = lambda: len(stats(server)["processes"]) == load.workers  # noqa: E731
            wait_for("The workers", ready, load.patience_s)
            given = tokens if load.tokens else None
            with swarm(
                held.server.url,
                "news",
                load.connections,
                report,
                load.processes,
                given,
                load.opening,
            ) as crew:
                open_all(held, crew)
                reach_all(held)
        except click.ClickException as error:
            held.figures["broke"] = error.message
    return held.figures | (of_swarm(json.loads(report.read_text())) if report.exists() else {})


def of_swarm(result: dict) -> dict[str, object]:
    """What the streams received, and how long it took."""
    return {
        "open_p99_ms": result["measures"]["open"]["p99_ms"],
        "delivery_p50_ms": result["measures"]["latency"]["p50_ms"],
        "delivery_p99_ms": result["measures"]["latency"]["p99_ms"],
        "events_received": result["counters"]["events"],
        "ended_early": result["ended"],
        "faults": {name: count for name, count in result["faults"].items() if count},
    }


@click.command(help=__doc__)
@click.option("--connections", default=100_000, show_default=True, type=click.IntRange(1))
@click.option("--broadcasts", default=3, show_default=True, type=click.IntRange(1))
@click.option("--sample", default=SAMPLE, show_default=True, help="Streams that resume; 0: none.")
@click.option("--workers", default=0, help="0: as many as the descriptors need, at least two.")
@click.option("--patience", "patience_s", default=600, show_default=True, help="Seconds a step.")
@click.option("--rest", "rest_s", default=0.0, help="Seconds until memory is read again; 0: not.")
@click.option("--opening", default=OPENING, help="Streams that a process opens at once.")
@click.option("--tokens", is_flag=True, help="A token for each stream (HS256).")
@click.option("--presence", is_flag=True, help="The server has --subscriptions.")
@click.option("--store", default="", help="The server's --store.")
def main(
    connections: int,
    workers: int,
    patience_s: int,
    tokens: bool,
    presence: bool,
    **others: float | str,
) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - RESERVE
    load = Load(
        connections=connections,
        workers=workers or max(2, math.ceil(connections / (limit - UNEVEN))),
        processes=math.ceil(connections / limit),
        patience_s=patience_s,
        tokens=tokens,
        presence=presence,
        # Who is there is not for everyone: presence wants a key.
        key=secrets.token_hex(32) if tokens or presence else "",
        **others,
    )
    with tempfile.TemporaryDirectory() as folder:
        figures = run(load, Path(folder))
    expected = connections * (load.broadcasts + (2 if load.sample else 0))
    first = {
        "kind": load.kind,
        "connections": connections,
        "workers": load.workers,
        "processes": load.processes,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": {
            **environment(),
            "command": " ".join(["python", "-m", "loadtests.hold", *sys.argv[1:]]),
        },
    }
    click.echo(json.dumps(first | {"events_expected": expected} | figures, indent=2))
    exact = figures.get("sample_resumed_exactly", f"0 of {load.sample}")
    if (
        figures.get("events_received") != expected
        or figures["faults"]
        or exact != f"{load.sample} of {load.sample}"
    ):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
