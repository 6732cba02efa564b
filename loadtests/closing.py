"""The end of a run: a table of exact figures, warnings about them, and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fastsse.swarm.report import machine_facts
from fastsse.version import __version__
from loadtests.trial import Trial
from loadtests.watch import ServerWatch
from loadtests.webtabs import EXACT_COLUMNS, exact_rows

STALL_US = 5000
BUSY_PERCENT = 70.0


class Closing:
    """Prints and writes the results of a run, in the master or the only process."""

    def __init__(self, trial: Trial, watch: ServerWatch) -> None:
        self._trial = trial
        self._watch = watch
        self._busiest_percent = 0.0

    def clear(self) -> None:
        """A new run begins."""
        self._busiest_percent = 0.0

    def note_cpu(self, percent: float) -> None:
        """A worker's (or this process's) CPU at some moment."""
        self._busiest_percent = max(self._busiest_percent, percent)

    def doubts(self) -> Iterator[str]:
        """Reasons why the figures may be wrong."""
        if self._busiest_percent > BUSY_PERCENT:
            yield (
                f"A Locust process used {self._busiest_percent:.0f} % of a core: what its users "
                "measured includes their own queueing. Use more --processes on free cores."
            )
        stalls = self._trial.ledger.exact.entries.get(("client", "stall"))
        stall_us = stalls.percentiles_us(99.9)[0] if stalls else 0
        if stall_us > STALL_US:
            yield f"Locust's own loop stalled for {stall_us / 1000:.1f} ms (p99.9)."
        growth = self._watch.growth()
        if growth:
            yield growth

    def print(self, console: Console) -> None:
        """The table and the doubts."""
        rows = exact_rows(self._trial.ledger.exact)
        if not rows:
            return
        table = Table(title="Exact figures", title_justify="left")
        for key, title in EXACT_COLUMNS.items():
            table.add_column(title, justify="left" if key in ("type", "name") else "right")
        for row in rows:
            table.add_row(*(_text(row[key]) for key in EXACT_COLUMNS))
        console.print(table)
        for doubt in self.doubts():
            console.print(f"Note: {doubt}", style="yellow")

    def write(self, folder: Path) -> None:
        """`run.json`: options, machine, exact figures and the server's own over time."""
        folder.mkdir(parents=True, exist_ok=True)
        result = {
            "tool": "fastsse loadtests",
            "version": __version__,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine_facts(),
            "target": self._trial.url.geturl(),
            "options": asdict(self._trial.options),
            "measures": self._trial.ledger.exact.as_json(),
            "server": self._watch.looks,
            "busiest_percent": self._busiest_percent,
            "doubts": list(self.doubts()),
        }
        (folder / "run.json").write_text(json.dumps(result, indent=1) + "\n")


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
