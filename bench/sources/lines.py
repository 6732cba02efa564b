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

from bench.peers.process import cpu_us_of
from tests.browser.chromium import PROGRAM, chromium
from tests.examples.logs_demo import demo
from tests.sources import kraft

_WARM_UP_S = 3.0
_MARGIN_S = 1.0
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
Viewer = Callable[[dict[str, str], float], tuple[Pairs, int]]
"""Looks for a while; its pairs, and the CPU µs that the viewer took."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured.

    Attributes:
        ms: how long each line took.
        lines: how many were written meanwhile.
        cpu_us: of each program, a line.
        behind_ms: how late the last line was that the viewer had.
    """

    ms: Sequence[float]
    lines: int
    cpu_us: dict[str, float]
    behind_ms: float


def in_chromium(places: dict[str, str], duration_s: float) -> tuple[Pairs, int]:
    """When the terminal had lines in its list."""
    if PROGRAM is None:
        raise click.ClickException("Chromium is not here")
    return asyncio.run(_in_chromium(places, duration_s))


async def _in_chromium(places: dict[str, str], duration_s: float) -> tuple[Pairs, int]:
    async with chromium(Path(places["folder"]) / "profile") as browser:
        page = await browser.open(places["page"])
        await page.run(_WATCH)
        cpu_us = cpu_us_of(browser.pid)
        await asyncio.sleep(duration_s)
        cpu_us = cpu_us_of(browser.pid) - cpu_us
        return json.loads(await page.run("JSON.stringify(late)")), cpu_us


def in_stream(places: dict[str, str], duration_s: float) -> tuple[Pairs, int]:
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
    return found, round((time.process_time() - begun_s) * 1e6)


def measure(rate: float, duration_s: float, viewer: Viewer, folder: Path, *, tansu: bool) -> Found:
    """Starts everything, and looks for a while when it flows."""
    jars = None if tansu else kraft.jars()
    path = None if jars is None else jars.removesuffix("/*")
    with demo().platform(folder, rate, jars=path) as (programs, places):
        time.sleep(_WARM_UP_S)
        pids = {name: process.pid for name, process in programs._running}
        before, written = _cpu(pids), _written(folder)
        pairs, viewer_us = viewer(places, duration_s + 2 * _MARGIN_S)
        after, lines = _cpu(pids), _written(folder) - written
    if not pairs:
        raise click.ClickException("no line came")
    # Not what was there before the viewer, and not what it may not have any more.
    first_ms, last_ms = pairs[0][1] + 1000 * _MARGIN_S, pairs[-1][1] - 1000 * _MARGIN_S
    late = [seen - at for at, seen in pairs if first_ms <= at < last_ms]
    cpu_us = {name: (after[name] - before[name]) / lines for name in pids}
    written_ms, seen_ms = pairs[-1]
    return Found(late, lines, cpu_us | {"viewer": viewer_us / lines}, seen_ms - written_ms)


def _cpu(pids: dict[str, int]) -> dict[str, int]:
    return {name: cpu_us_of(pid) for name, pid in pids.items()}


def _written(folder: Path) -> int:
    """Lines of the application until now."""
    count = 0
    for path in (folder / "logs").iterdir():
        with contextlib.suppress(IsADirectoryError):
            count += path.read_bytes().count(b"\n")
    return count


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
    return figures | {f"µs a line, {name}": cpu for name, cpu in found.cpu_us.items()}
