"""The comparison as one table and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from rich.table import Table

from bench.load import Sample
from bench.machine import environment
from bench.peers.cases import DISTURBED, TIMEOUT_S, Case, Figure, Run
from bench.peers.catalogue import OURS
from bench.peers.peer import Peer

COLUMNS = ("", "delivered", "repeated", "p50 ms", "p99 ms", "p99.9 ms", "figure", "", "x ours")


@dataclass(slots=True)
class Outcome:
    """What one peer came to in one case: a sample for each repeat that worked."""

    case: Case
    peer: Peer
    samples: list[Sample] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def median(self, name: str) -> float:
        return statistics.median(sample[name] for sample in self.samples)

    def text(self, name: str) -> str:
        """The median; of several samples also the least and the greatest."""
        values = [sample[name] for sample in self.samples]
        middle = _digits(self.median(name))
        if len(values) == 1:
            return middle
        return f"{middle} ({_digits(min(values))} to {_digits(max(values))})"


Outcomes = Mapping[tuple[str, str], Outcome]
"""By the names of case and peer."""


def ratio(outcome: Outcome, figure: str, outcomes: Outcomes) -> float | None:
    """A figure as a multiple of ours in the same run, None when either is missing."""
    ours = outcomes.get((outcome.case.name, OURS.name))
    if ours is None or not ours.samples or not outcome.samples or not ours.median(figure):
        return None
    return outcome.median(figure) / ours.median(figure)


def rows(outcomes: Outcomes) -> dict[str, list[list[str]]]:
    """By the titles of cases: a row for each figure of each peer, in the order of COLUMNS."""
    found: dict[str, list[list[str]]] = {}
    cases = {outcome.case.name: outcome.case for outcome in outcomes.values()}
    for case in cases.values():
        section = found.setdefault(case.title, [])
        for figure in case.figures:
            of_case = [outcome for outcome in outcomes.values() if outcome.case.name == case.name]
            section += [_row(outcome, figure, outcomes) for outcome in of_case]
    return found


def _row(outcome: Outcome, figure: Figure, outcomes: Outcomes) -> list[str]:
    if not outcome.samples:
        return [outcome.peer.title, "", "", "", "", "", "failed", outcome.failures[0], ""]
    cells = [""] * 5
    if outcome.case.is_fan_out:
        cells = [
            f"{outcome.median('delivered_share'):.2%}",
            f"{outcome.median('repeated'):,.0f}",
            *(f"{outcome.median(name):,.1f}" for name in ("p50_ms", "p99_ms", "p99_9_ms")),
        ]
    multiple = ratio(outcome, figure.name, outcomes)
    last = "" if multiple is None else f"{multiple:.3g}"
    return [
        outcome.peer.title,
        *cells,
        outcome.text(figure.name),
        figure.unit,
        last,
    ]


def _digits(value: float) -> str:
    return f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"


def table(outcomes: Outcomes) -> Table:
    """For the terminal: a section for each case."""
    made = Table(title="fastsse and what one would pick instead", title_justify="left")
    for name in COLUMNS:
        made.add_column(name, justify="left" if not name else "right")
    for title, section in rows(outcomes).items():
        made.add_section()
        made.add_row(f"[bold]{title}[/]")
        for row in section:
            made.add_row(*row)
    return made


def as_markdown(outcomes: Outcomes) -> str:
    """The same rows, for a README."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    for title, section in rows(outcomes).items():
        lines.append(f"| **{title}** |" + " |" * (len(COLUMNS) - 1))
        lines += ["| " + " | ".join(row) + " |" for row in section]
    return "\n".join(lines) + "\n"


def notes(run: Run, outcomes: Outcomes, left_out: Sequence[Peer]) -> list[str]:
    """Remarks for the table."""
    where = f"servers on core {run.server_cpu}, clients on core {run.client_cpu}"
    said = [
        f"Loopback, both ends on this machine; {where}. Medians of {run.repeats} run(s).",
        f"Delivered: of what was due, until {TIMEOUT_S} s after the last event was due. "
        "Percentiles are those of the deliveries that happened, from the time an event was due.",
    ]
    for peer in left_out:
        said.append(f"Left out: {peer.title} ({peer.missing()} not installed): {peer.install}")
    disturbed = sorted(
        f"{outcome.case.name}/{outcome.peer.name}"
        for outcome in outcomes.values()
        if outcome.samples and outcome.median("others_busy") > DISTURBED
    )
    if disturbed:
        said.append(f"Other processes took over {DISTURBED:.0%} of a core in: ")
        said[-1] += ", ".join(disturbed)
    if run.quick:
        said.append("Quick mode: it shows that the cases run. Its figures mean nothing.")
    return said


def as_json(
    run: Run, outcomes: Outcomes, left_out: Sequence[Peer], command: str
) -> dict[str, object]:
    """Everything measured, with what it was measured on."""
    peers = {outcome.peer.name: outcome.peer for outcome in outcomes.values()}
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": {**environment(), "command": command},
        "run": asdict(run),
        "peers": {
            name: {
                "title": peer.title,
                "versions": dict(peer.versions()),
                "settings": peer.settings,
            }
            for name, peer in peers.items()
        },
        "left_out": {peer.name: peer.install for peer in left_out},
        "results": results_of(outcomes),
        "notes": notes(run, outcomes, left_out),
    }


def results_of(outcomes: Outcomes) -> list[dict[str, object]]:
    """Samples and medians of each case and peer."""
    return [
        {
            "case": outcome.case.name,
            "title": outcome.case.title,
            "peer": outcome.peer.name,
            "figures": {
                figure.name: {
                    "unit": figure.unit,
                    "median": outcome.median(figure.name) if outcome.samples else None,
                    "x_ours": ratio(outcome, figure.name, outcomes),
                }
                for figure in outcome.case.figures
            },
            "samples": outcome.samples,
            "failures": outcome.failures,
        }
        for outcome in outcomes.values()
    ]
