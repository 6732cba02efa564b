"""`python -m bench.html.page RESULTS.json`: the page of one run, from its JSON alone."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import jinja2

from bench.html.figures import figures_of

Result = Mapping[str, Any]
Cell = tuple[str, str]
"""The median, and the least and the greatest of the repeats (empty when there is one)."""

Column = tuple[str, str, int]
"""Heading, the sample's value, decimals."""

FAULTS: tuple[Column, ...] = (
    *(("lost", "lost", 0), ("twice", "repeated", 0), ("out of order", "disordered", 0)),
    ("disconnects", "disconnects", 0),
)
LATENCY: tuple[Column, ...] = (
    *(("p50", "p50_ms", 2), ("p90", "p90_ms", 2), ("p99", "p99_ms", 2)),
    *(("p99.9", "p99_9_ms", 2), ("max", "max_ms", 1)),
)
COUNTS: tuple[Column, ...] = (
    *(("expected", "expected", 0), ("delivered", "delivered", 0), *FAULTS, *LATENCY),
    ("last client p99", "last_client_p99_ms", 1),
)
COSTS: tuple[Column, ...] = (
    *(("server µs", "server_cpu_us", 2), ("bare loop µs", "bare_cpu_us", 2)),
    *(("client µs", "client_cpu_us", 2), ("events a send", "events_a_send", 2)),
    *(("bytes", "bytes_a_delivery", 0), ("server cores", "server_busy", 2)),
    *(("client cores", "client_busy", 2), ("others' cores", "others_busy", 2)),
    *(("publisher late p99 ms", "publisher_late_p99_ms", 2), ("answer p99 ms", "answer_p99_ms", 2)),
)
OTHERS: tuple[Column, ...] = (
    *(("a second", "a_second", 0), ("refused", "refused", 0)),
    *(("answer p99 ms", "answer_p99_ms", 2), ("open p99 ms", "open_p99_ms", 1)),
    *(("server µs each", "server_cpu_us", 2), ("client µs each", "client_cpu_us", 2)),
    *(("server cores", "server_busy", 2), ("client cores", "client_busy", 2)),
    ("others' cores", "others_busy", 2),
)
IDLE: tuple[Column, ...] = (
    *(("private B each", "private", 0), ("PSS B each", "pss", 0)),
    ("kernel B each, both ends", "kernel_both_ends", 0),
)
LADDER: tuple[Column, ...] = (
    *(("rate", "rate", 0), ("offered/s", "offered_a_second", 0)),
    *(("delivered/s", "delivered_a_second", 0), *FAULTS, *LATENCY),
    *(("server µs", "server_cpu_us", 2), ("client µs", "client_cpu_us", 2)),
    *(("events a send", "events_a_send", 1), ("client cores", "client_busy", 2)),
)


def cell(values: Sequence[float], decimals: int) -> Cell:
    """A figure as text."""
    middle = f"{statistics.median(values):,.{decimals}f}"
    low, high = f"{min(values):,.{decimals}f}", f"{max(values):,.{decimals}f}"
    return middle, "" if low == high else f"{low} – {high}"  # noqa: RUF001


def _row(samples: Sequence[Mapping[str, float]], columns: Sequence[Column]) -> list[Cell]:
    return [_value(samples, name, decimals) for _, name, decimals in columns]


def _value(samples: Sequence[Mapping[str, float]], name: str, decimals: int) -> Cell:
    if name == "events_a_send":
        values = [s["deliveries"] / s["sends"] for s in samples if s.get("sends")]
    else:
        values = [sample[name] for sample in samples if name in sample]
    return cell(values, decimals) if values else ("", "")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of figures under headings."""

    title: str
    headings: Sequence[str]
    rows: Sequence[tuple[str, list[Cell]]]


def _table(title: str, columns: Sequence[Column], results: Sequence[Result]) -> Table:
    """The columns that any of the results has something for."""
    used = [
        column for column in columns if any(_value(r["samples"], *column[1:])[0] for r in results)
    ]
    rows = [(result["title"], _row(result["samples"], used)) for result in results]
    return Table(title, [heading for heading, _, _ in used], rows)


def _tables(results: Sequence[Result]) -> list[Table]:
    fan_outs = [result for result in results if result["is_fan_out"]]
    idle = [result for result in results if result["name"].startswith("idle")]
    rest = [result for result in results if result not in [*fan_outs, *idle]]
    tables = (
        _table("Fan-out: counts and latency", COUNTS, fan_outs),
        _table("Fan-out: what a delivery costs", COSTS, fan_outs),
        _table("Connecting and publishing", OTHERS, rest),
        _table("Idle memory", IDLE, idle),
    )
    return [table for table in tables if table.rows]


def _ladder_rows(results: Sequence[Result]) -> list[tuple[bool, list[Cell]]]:
    steps: dict[float, list[Mapping[str, float]]] = {}
    for result in results:
        for point in result["curve"] if result["name"] == "ladder" else ():
            steps.setdefault(point["rate"], []).append(point)
    return [
        (all(step["held"] for step in group), _row(group, LADDER))
        for _, group in sorted(steps.items())
    ]


def _verdicts(results: Sequence[Result]) -> list[Result]:
    found: list[Result] = []
    for result in results:
        name, unit = result["figure"]
        values = [sample[name] for sample in result["samples"]]
        shown = cell(values, 0 if statistics.median(values) >= 100 else 2)
        found.append({**result, "shown": shown, "unit": unit, "repeats": len(values)})
    return found


def _flat(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested facts as rows, the longest lists last."""
    plain = [(name, str(fact)) for name, fact in facts.items() if not isinstance(fact, Mapping)]
    nested = [
        (name, "; ".join(f"{key} {value}" for key, value in fact.items()).replace("\t", " "))
        for name, fact in facts.items()
        if isinstance(fact, Mapping)
    ]
    return plain + nested


def render(run: Mapping[str, Any]) -> str:
    """The page of what `bench.report.as_json` returned, as one HTML document."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    results = run["results"]
    return environment.get_template("page.html").render(
        run=run,
        verdicts=_verdicts(results),
        figures=figures_of(results),
        tables=_tables(results),
        ladder=([heading for heading, _, _ in LADDER], _ladder_rows(results)),
        facts=_flat(run["environment"]),
    )


@click.command()
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(results: Path) -> None:
    """Writes the page of RESULTS (a run's JSON) next to it."""
    page = results.with_suffix(".html")
    page.write_text(render(json.loads(results.read_text())))
    click.echo(f"Written to {page}")


if __name__ == "__main__":
    main()
