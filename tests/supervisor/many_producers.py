"""Very many producers append to one stream, each under an id of its own: what the table of
producers takes, what is answered at its bound, after a kill, and when producers are forgotten.

    python -m tests.supervisor.many_producers --producers 1000000 --store sqlite --total 512MiB
    python -m tests.supervisor.many_producers --producers 1000000 --store memory --window 600
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.supervisor.service import Service

_CONNECTIONS = 8
# Requests that a connection sends before it reads their answers.
_AT_ONCE = 100
_SAMPLE = 500


@dataclass
class Plan:
    """How many producers, the bound of their table, and how long each is known. `kills`: the
    server is killed and started again; only with a file."""

    producers: int = 1_000
    store: str = "memory"
    total: str = "64MiB"
    window_s: float = 0
    kills: bool = False
    seed: int = 0


@dataclass
class Figures:
    """Statuses by step; sizes in bytes, of the process that has the table."""

    answers: dict[str, Counter[int]] = field(default_factory=dict)
    before_bytes: int = 0
    after_bytes: int = 0
    file_bytes: int = 0
    took_s: dict[str, float] = field(default_factory=dict)
    known: Sequence[int] = field(default_factory=list, repr=False)
    refused: Sequence[int] = field(default_factory=list, repr=False)


async def send(url: str, names: Sequence[int], seq: int) -> list[int]:
    """The status of an append of each producer, in their order."""
    place = urlsplit(url)
    parts = [names[n::_CONNECTIONS] for n in range(_CONNECTIONS)]
    found: dict[int, int] = {}

    async def run(part: Sequence[int]) -> None:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        for at in range(0, len(part), _AT_ONCE):
            some = part[at : at + _AT_ONCE]
            writer.write(b"".join(_request(name, seq) for name in some))
            for name in some:
                found[name] = await _status(reader)
        writer.close()

    await asyncio.gather(*map(run, parts))
    return [found[name] for name in names]


def _request(name: int, seq: int) -> bytes:
    return (
        f"POST /streams/log HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
        f"Content-Length: 1\r\nProducer-Id: device-{name}\r\nProducer-Epoch: 0\r\n"
        f"Producer-Seq: {seq}\r\n\r\nx"
    ).encode()


async def _status(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    at = head.lower().find(b"content-length:")
    if at >= 0:
        await reader.readexactly(int(head[at + 15 : head.index(b"\r", at)]))
    return int(head[9:12])


async def run(plan: Plan) -> Figures:
    """All steps: the kill and the end of the window only if the plan has them."""
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "h.db"
        store = f"sqlite:{path}" if plan.store == "sqlite" else "memory"
        options = ["--port", "0", "--store", store, "--producers-total", plan.total]
        options += ["--streams-total", "2GiB"]
        options += ["--producer-window", f"{plan.window_s:g}s"] if plan.window_s else []
        service = await (await Service.start(*options)).wait(600)
        try:
            await _fill(plan, service, figures)
            if plan.kills:
                figures.file_bytes = sum(one.stat().st_size for one in path.parent.iterdir())
                service.signal(signal.SIGKILL)
                await service.ended()
                began_s = time.monotonic()
                service = await (await Service.start(*options)).wait(600)
                figures.took_s["restart"] = time.monotonic() - began_s
                await _ask_again(plan, service, figures, "after the kill", 1)
            if plan.window_s:
                await asyncio.sleep(plan.window_s * 1.1)
                await _forgotten(plan, service, figures)
        finally:
            service.signal(signal.SIGTERM)
            await service.ended()
    return figures


async def _fill(plan: Plan, service: Service, figures: Figures) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        headers = {"Content-Type": "text/plain"}
        assert (await client.put(f"{service.url}/streams/log", headers=headers)).status_code == 201
    figures.before_bytes = _memory_bytes(service.process.pid)
    began_s = time.monotonic()
    statuses = await send(service.url, range(plan.producers), 0)
    figures.answers["first"] = Counter(statuses)
    figures.known = [name for name, status in enumerate(statuses) if status == 200]
    figures.refused = [name for name, status in enumerate(statuses) if status != 200]
    figures.took_s["first"] = time.monotonic() - began_s
    figures.after_bytes = _memory_bytes(service.process.pid)
    await _ask_again(plan, service, figures, "again", 0)


async def _ask_again(
    plan: Plan, service: Service, figures: Figures, step: str, newest: int
) -> None:
    """Some of the producers that are known, and some that were refused: their newest append again,
    then the next."""
    luck = random.Random(plan.seed)
    known = luck.sample(figures.known, min(_SAMPLE, len(figures.known)))
    figures.answers[step] = Counter(await send(service.url, known, newest))
    figures.answers[f"next {step}"] = Counter(await send(service.url, known, newest + 1))
    refused = await send(service.url, figures.refused[:_SAMPLE], 0)
    figures.answers[f"refused {step}"] = Counter(refused)


async def _forgotten(plan: Plan, service: Service, figures: Figures) -> None:
    """After the window: appends that go on are gaps, and new producers are taken."""
    known = figures.known[:_SAMPLE]
    figures.answers["forgotten goes on"] = Counter(await send(service.url, known, 7))
    new = range(plan.producers, plan.producers + 10)
    figures.answers["new after"] = Counter(await send(service.url, new, 0))
    figures.answers["forgotten begins"] = Counter(await send(service.url, known, 0))


def _memory_bytes(pid: int) -> int:
    """What a process and its children hold of their own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    texts = [Path(f"/proc/{one}/smaps_rollup").read_text() for one in (pid, *children)]
    lines = [line.split() for text in texts for line in text.splitlines()]
    return sum(int(words[1]) * 1024 for words in lines if words[0].startswith("Private_"))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--producers", type=int, default=1_000_000)
    parser.add_argument("--store", choices=("sqlite", "memory"), default="sqlite")
    parser.add_argument("--total", default="64MiB", help="the bound of the table")
    parser.add_argument("--window", type=float, default=0, help="seconds; 0: the default")
    given = parser.parse_args()
    kills = given.store == "sqlite"
    plan = Plan(given.producers, given.store, given.total, given.window, kills)
    figures = asyncio.run(run(plan))
    print(given, figures, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
