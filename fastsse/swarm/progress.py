"""A running swarm on the terminal, twice a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table

from fastsse.swarm.crew import Crew
from fastsse.units import counted

REFRESH_S = 0.5
PLAIN_EVERY_S = 5.0
"""How often a line is printed where there is no terminal to redraw."""


class Progress:
    """Rates are those of the time since the last look."""

    def __init__(self, crew: Crew, console: Console) -> None:
        self._crew = crew
        self._console = console
        self._before = crew.counters()
        self._looked_at = self._printed_at = time.monotonic()
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draws while the block runs, if there is a terminal."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, transient=True, auto_refresh=False) as self._live:
            yield
        self._live = None

    def look(self) -> None:
        """Redraws, or prints a line now and then."""
        now = time.monotonic()
        if self._live is None and now - self._printed_at < PLAIN_EVERY_S:
            return
        counters = self._crew.counters()
        rates = {
            name: (value - self._before[name]) / max(now - self._looked_at, 1e-3)
            for name, value in counters.items()
        }
        self._before, self._looked_at = counters, now
        if self._live is not None:
            self._live.update(self._table(counters, rates), refresh=True)
        else:
            self._printed_at = now
            self._console.print(_line(counters, rates, now - self._crew.started_at))

    def _table(self, counters: dict[str, int], rates: dict[str, float]) -> Table:
        table = Table.grid(padding=(0, 2))
        elapsed_s = time.monotonic() - self._crew.started_at
        p50, p99 = self._crew.measure("latency").percentiles_us(50, 99)
        table.add_row("elapsed", f"{elapsed_s:.1f} s in {_processes(self._crew.processes)}")
        table.add_row("streams", f"{counters['stream']:,} of {self._crew.plan.connections:,}")
        table.add_row("opening", f"{counters['connecting'] + counters['head']:,}")
        table.add_row("opened", f"{rates['streams']:,.0f}/s")
        table.add_row("waiting to reconnect", f"{counters['waiting']:,}")
        table.add_row("slow", f"{counters['slow']:,}")
        table.add_row("given up", f"{counters['over']:,}")
        table.add_row("events", f"{counters['events']:,}  {rates['events']:,.0f}/s")
        table.add_row("received", f"{rates['bytes'] / 1e6:,.1f} MB/s")
        table.add_row("lost", f"{counters['lost'] - counters['late']:,}")
        table.add_row("latency so far", f"p50 {p50 / 1000:.2f} ms, p99 {p99 / 1000:.2f} ms")
        return table


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _line(counters: dict[str, int], rates: dict[str, float], elapsed_s: float) -> str:
    return (
        f"{elapsed_s:6.1f} s  {counted(counters['stream'], 'stream')}  "
        f"{rates['streams']:,.0f} opened/s  "
        f"{rates['events']:,.0f} events/s  {counters['lost'] - counters['late']:,} lost"
    )
