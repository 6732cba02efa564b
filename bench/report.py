"""Results as a table in the terminal and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from bench.cases import Result, Setup
from fastsse.swarm.results import spread

RESULTS = Path(__file__).with_name("results")
BUSY = 0.7
OTHERS_BUSY = 0.1


def _met(result: Result) -> str:
    return {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[result.met]


def _spread(result: Result, name: str) -> str:
    return spread([sample[name] for sample in result.samples])


def fan_out_table(results: Sequence[Result]) -> Table:
    """Losses stand before percentiles: without them a percentile says nothing."""
    table = Table(title="fan-out (median of the repeats)", title_justify="left")
    for name in ("case", "delivered", "lost / repeated / ended", "p50", "p99", "p99.9 ms"):
        table.add_column(name, justify="left" if name == "case" else "right")
    for name in ("last client", "events a send", "CPU server", "client", "bare µs", "others"):
        table.add_column(name, justify="right")
    for result in results:
        table.add_row(*_fan_out_row(result))
    return table


def _fan_out_row(result: Result) -> list[str]:
    median = result.median
    first = result.samples[0]
    sends = median("sends") if "sends" in first else 0
    return [
        result.title,
        f"{median('delivered_share'):.2%}",
        " / ".join(f"{median(n):,.0f}" for n in ("lost", "repeated", "disconnects")),
        *(f"{median(n):,.2f}" for n in ("p50_ms", "p99_ms", "p99_9_ms")),
        f"{median('last_client_p99_ms'):,.2f}",
        f"{median('deliveries') / sends:.2f}" if sends else "",
        f"{median('server_cpu_us'):.2f}",
        f"{median('client_cpu_us'):.2f}",
        f"{median('bare_cpu_us'):.2f}" if "bare_cpu_us" in first else "",
        f"{median('others_busy'):.0%}",
    ]


def verdict_table(results: Sequence[Result]) -> Table:
    """The one figure that each case is about."""
    table = Table(title="what is promised", title_justify="left")
    for name in ("case", "median (least to greatest)", "", "to reach", ""):
        table.add_column(name)
    for result in results:
        name, unit = result.figure
        cells = (result.title, _spread(result, name), unit, result.to_reach, _met(result))
        table.add_row(*cells)
    return table


def tables(results: Sequence[Result]) -> list[Table]:
    """The tables that have rows."""
    fan_outs = [result for result in results if result.is_fan_out]
    found = [fan_out_table(fan_outs)] if fan_outs else []
    return [*found, verdict_table(results)]


def notes(setup: Setup, results: Sequence[Result]) -> list[str]:
    """Remarks for the tables."""
    said = [f"{result.title}: {note}" for result in results for note in result.notes]
    where = f"server on core {setup.server_cpu}, clients on core {setup.client_cpu}"
    said.append(f"Loopback, both ends on this machine; {where}. CPU in µs a delivery.")
    busy = [
        r.title for r in results if "client_busy" in r.samples[0] and r.median("client_busy") > BUSY
    ]
    if busy:
        said.append("Above 70 % of the client's core, so its own queueing is in the figures of: ")
        said[-1] += "; ".join(busy)
    disturbed = [r.title for r in results if r.median("others_busy") > OTHERS_BUSY]
    if disturbed:
        said.append(
            f"Other processes took more than {OTHERS_BUSY:.0%} of a core during: "
            + "; ".join(disturbed)
        )
    if setup.quick:
        said.append("Quick mode: it shows that the cases run. Its figures mean nothing.")
    return said


def as_json(
    setup: Setup, results: Sequence[Result], facts: Mapping[str, object]
) -> dict[str, object]:
    """Everything measured, with what it was measured on (`facts`: bench.machine.environment)."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": dict(facts),
        "setup": {
            "quick": setup.quick,
            "repeats": setup.repeats,
            "server_cpu": setup.server_cpu,
            "client_cpu": setup.client_cpu,
        },
        "results": [asdict(result) for result in results],
        "notes": notes(setup, results),
    }


def write(path: Path, result: Mapping[str, object]) -> None:
    """Writes JSON, making the folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
