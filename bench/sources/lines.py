"""A line of the application to its viewer, through all programs of `examples/logs`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import httpx

from bench.peers.process import cpu_us_of
from tests.browser.chromium import PROGRAM, chromium
from tests.examples.logs_demo import demo
from tests.sources import kraft

_MARGIN_S = 1.0
_ASK_S = 10
_READ_BYTES = 1 << 18
_TIME = re.compile(rb'"time": ?"([^"]+)"')
# When each line with a time of its own was in the list of the terminal.
_WATCH = """
window.late = [];
window.add = terminal.add.bind(terminal);
window.day = new Date().toISOString().slice(0, 11);
terminal.add = (lines) => {
  add(lines);
  const now = Date.now();
  for (const line of lines)
    if (line.time !== "") late.push([Date.parse(`${day}${line.time}Z`), now]);
};
"""
Pairs = Sequence[tuple[float, float]]
"""When lines were written, and when a viewer had them. Unix milliseconds."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a viewer saw.

    Attributes:
        pairs: of each line.
        cpu_us: what the viewer took.
        waiting: lines that it has received and not looked at.
    """

    pairs: Pairs
    cpu_us: int
    waiting: int = 0


Viewer = Callable[[dict[str, str], float], Seen]
"""Looks for a while."""


@dataclass(frozen=True, slots=True)
class Span:
    """How long things take, in seconds.

    Attributes:
        measured: lines that come in this time are timed.
        warm_up: all but the viewer run for this time first: a broker compiles its code.
        settle: the viewer's first seconds, which are its start.
    """

    measured: float
    warm_up: float = 15.0
    settle: float = 5.0


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured.

    Attributes:
        ms: how long each line took.
        lines: how many were written meanwhile.
        cpu_us: of each program, a line.
        behind_ms: how late the last line was that the viewer had.
        waiting: lines that wait at the end, by what they wait for.
    """

    ms: Sequence[float]
    lines: int
    cpu_us: dict[str, float]
    behind_ms: float
    waiting: dict[str, int]


def in_chromium(places: dict[str, str], duration_s: float) -> Seen:
    """When the terminal had lines in its list."""
    if PROGRAM is None:
        raise click.ClickException("Chromium is not here")
    return asyncio.run(_in_chromium(places, duration_s))


async def _in_chromium(places: dict[str, str], duration_s: float) -> Seen:
    async with chromium(Path(places["folder"]) / "profile") as browser:
        page = await browser.open(places["page"])
        await page.run(_WATCH)
        cpu_us = cpu_us_of(browser.pid)
        await asyncio.sleep(duration_s)
        cpu_us = cpu_us_of(browser.pid) - cpu_us
        waiting = int(await page.run("rawWaiting()"))
        return Seen(json.loads(await page.run("JSON.stringify(late)")), cpu_us, waiting)


def in_stream(places: dict[str, str], duration_s: float) -> Seen:
    """When a program that reads the stream had lines."""
    url = urlsplit(places["server"])
    target = "/events?topic=logs/%7Bservice%7D/%7Blevel%7D"
    found: list[tuple[float, float]] = []
    end_s = time.monotonic() + duration_s
    begun_s = time.process_time()
    with socket.create_connection((url.hostname, url.port), 10) as sock:
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
        rest = b""
        while time.monotonic() < end_s and (more := sock.recv(_READ_BYTES)):
            now_ms = time.time() * 1000
            whole, _, rest = (rest + more).rpartition(b"\n")
            for text in _TIME.findall(whole):
                written = datetime.fromisoformat(text.decode())
                found.append((written.timestamp() * 1000, now_ms))
    return Seen(found, round((time.process_time() - begun_s) * 1e6))


def measure(rate: float, span: Span, viewer: Viewer, folder: Path, *, tansu: bool) -> Found:
    """Starts everything, and looks for a while when it flows."""
    jars = None if tansu else kraft.jars()
    path = None if jars is None else jars.removesuffix("/*")
    with demo().platform(folder, rate, jars=path) as (programs, places):
        time.sleep(span.warm_up)
        pids = {name: process.pid for name, process in programs._running}
        before, written = _cpu(pids), _written(folder)
        seen = viewer(places, span.settle + span.measured + _MARGIN_S)
        after, lines = _cpu(pids), _written(folder) - written
        waiting = _waiting(places, written + lines) | {"the viewer": seen.waiting}
    pairs = seen.pairs
    if not pairs:
        raise click.ClickException("no line came")
    # Not what was there before the viewer, and not what it may not have any more.
    first_ms, last_ms = pairs[0][1] + 1000 * span.settle, pairs[-1][1] - 1000 * _MARGIN_S
    late = [seen - at for at, seen in pairs if first_ms <= at < last_ms]
    cpu_us = {name: (after[name] - before[name]) / lines for name in pids}
    written_ms, seen_ms = pairs[-1]
    cpu_us["viewer"] = seen.cpu_us / lines
    return Found(late, lines, cpu_us, seen_ms - written_ms, waiting)


def _cpu(pids: dict[str, int]) -> dict[str, int]:
    return {name: cpu_us_of(pid) for name, pid in pids.items()}


def _written(folder: Path) -> int:
    """Lines of the application until now."""
    count = 0
    for path in (folder / "logs").iterdir():
        with contextlib.suppress(IsADirectoryError):
            count += path.read_bytes().count(b"\n")
    return count


def _waiting(places: dict[str, str], written: int) -> dict[str, int]:
    """Lines that are not in Kafka, and those there that fastsse has not read."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": places["broker"], "group.id": "watch"})
    try:
        partitions = consumer.list_topics("logs", timeout=_ASK_S).topics["logs"].partitions
        ends = [
            consumer.get_watermark_offsets(TopicPartition("logs", number), timeout=_ASK_S)[1]
            for number in partitions
        ]
    finally:
        consumer.close()
    metrics = httpx.get(f"{places['server']}/metrics", timeout=_ASK_S, trust_env=False).text
    found = re.search(r'fastsse_source_backlog\{source="logs"\} (\S+)', metrics)
    return {
        "the agent": written - sum(ends),
        "fastsse": int(float(found[1])) if found else 0,
    }


def percentiles(values: Sequence[float], *wanted: float) -> list[float]:
    """The values below which these shares are."""
    ordered = sorted(values)
    return [ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))] for share in wanted]


def said(found: Found) -> dict[str, Any]:
    """The figures of a run."""
    figures: dict[str, Any] = {
        "lines": found.lines, "timed": len(found.ms), "behind at the end ms": found.behind_ms,
    }  # fmt: skip
    # None is timed where each came later than the time of the run.
    if found.ms:
        p50, p99 = percentiles(found.ms, 50, 99)
        figures |= {"p50 ms": p50, "p99 ms": p99, "most ms": max(found.ms)}
    figures |= {f"lines that wait for {name}": count for name, count in found.waiting.items()}
    return figures | {f"µs a line, {name}": cpu for name, cpu in found.cpu_us.items()}
