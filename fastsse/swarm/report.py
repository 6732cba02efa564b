"""What a run comes to: a table for people, JSON for programs, and what makes figures doubtful."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from rich.table import Table

from fastsse.swarm.plan import Plan
from fastsse.swarm.results import Histogram, SwarmResults
from fastsse.units import counted
from fastsse.version import __version__

BUSY_SHARE = 0.7
"""A client above this much of a core measures itself as well as the server."""

STALL_US = 5000
CLOCK_STEP_US = 1000

FAULTS = (
    *("lost", "lost_announced", "gaps_announced", "late", "repeated"),
    *("id_repeated", "id_disordered"),
)

MEASURES = {
    "latency": "latency (due → read)",
    "replay": "replayed (due → read)",
    "first": "broadcast, first client",
    "completion": "broadcast, last client",
    "connect": "connect",
    "first_byte": "first byte",
    "open": "stream open",
    "reconnect": "cut → stream again",
    "turn": "client's own stalls",
    "delay": "due → sent",
    "answer": "sent → answered",
    "total": "due → answered",
}
"""The histograms of a swarm and of a publisher, in the order in which a table has them."""


@dataclass(frozen=True, slots=True)
class Report:
    """The end of a run.

    Attributes:
        elapsed_s: from the start of the processes to the order to stop.
        peak: the state of the connections before the order to stop.
        clock_step_us: how much the real-time clock was set during the run.
        cpu_shares: of each process, CPU seconds a second.
    """

    plan: Plan
    figures: SwarmResults
    elapsed_s: float
    peak: dict[str, int]
    cpu_shares: list[float] = field(default_factory=list)
    clock_step_us: int = 0

    @property
    def ended(self) -> dict[str, int]:
        """Connections that ended, by reason; those that the run itself ended are not among them."""
        return {
            name.removeprefix("end_"): count
            for name, count in self.figures.counters.items()
            if name.startswith("end_") and count
        }

    @property
    def faults(self) -> dict[str, int]:
        """What must be 0 for a sound delivery."""
        return {name: self.figures[name] for name in FAULTS}

    def warnings(self) -> Iterator[str]:
        """Why the figures may not mean what they seem to."""
        busiest = max(self.cpu_shares, default=0)
        if busiest > BUSY_SHARE:
            yield (
                f"The client used {busiest:.0%} of a core: latencies hold its own queueing. "
                "Use more --processes on free cores, or less load."
            )
        stall = self.figures.measures["turn"].percentiles_us(99.9)[0]
        if stall > STALL_US:
            yield f"The client's own loop stalled for {stall / 1000:.1f} ms (p99.9)."
        if abs(self.clock_step_us) > CLOCK_STEP_US:
            yield f"The clock was set by {self.clock_step_us / 1000:.1f} ms during the run."
        if self.figures["early"]:
            yield (
                f"{counted(self.figures['early'], 'event')} came too early: the publisher's "
                "clock is not this machine's."
            )
        if self.figures["events"] and not self.figures["stamped"]:
            yield "No event carries a due time (see `fastsse publish --rate`): no latency."

    def as_json(self) -> dict[str, object]:
        """Everything, fit for json.dumps."""
        return {
            "tool": "fastsse swarm",
            "version": __version__,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine_facts(),
            "plan": asdict(self.plan),
            "elapsed_s": round(self.elapsed_s, 3),
            "connections": self.peak,
            "counters": dict(self.figures.counters),
            "faults": self.faults,
            "ended": self.ended,
            "cpu_shares": [round(share, 4) for share in self.cpu_shares],
            "clock_step_us": self.clock_step_us,
            "warnings": list(self.warnings()),
            "measures": {name: m.as_json() for name, m in self.figures.measures.items()},
        }

    def tables(self) -> Iterator[Table]:
        """The end's tables: counts first, because a percentile without losses says nothing."""
        yield self._counts()
        yield measures_table(self.figures.measures)

    def _counts(self) -> Table:
        table = Table(title="fastsse swarm", title_justify="left", show_header=False)
        figures = self.figures
        rows = {
            "connections": ", ".join(f"{n:,} {name}" for name, n in self.peak.items() if n),
            "streams opened": f"{figures['streams']:,} ({figures['resumed']:,} resumed, "
            f"{figures['churned']:,} churned, {figures['cut']:,} cut)",
            "ended": ", ".join(f"{n:,} {name}" for name, n in self.ended.items()) or "none",
            "events": f"{figures['events']:,} ({figures['events'] / self.elapsed_s:,.0f}/s), "
            f"{figures['events_slow']:,} to slow clients",
            "lost": f"{figures['lost'] - figures['late']:,} silently, "
            f"{figures['lost_announced']:,} announced by "
            f"{counted(figures['gaps_announced'], 'gap event')}",
            "order": f"{figures['repeated'] + figures['id_repeated']:,} repeated, "
            f"{figures['late'] + figures['id_disordered']:,} out of order",
            "received": f"{figures['bytes'] / 1e6:,.1f} MB",
            "client CPU": _cpu_text(figures, self.cpu_shares),
        }
        for name, text in rows.items():
            table.add_row(name, text)
        return table


def _cpu_text(figures: SwarmResults, shares: list[float]) -> str:
    text = f"{', '.join(f'{share:.0%}' for share in shares[:8])} of a core"
    if figures["events"]:
        text += f", {figures['cpu_us'] / figures['events']:.2f} µs an event"
    return text


def measures_table(measures: Mapping[str, Histogram]) -> Table:
    """Percentiles of the histograms that hold anything, in milliseconds."""
    table = Table(title="milliseconds", title_justify="left")
    table.add_column("")
    for name in ("count", "p50", "p90", "p99", "p99.9", "max"):
        table.add_column(name, justify="right")
    for name, title in MEASURES.items():
        histogram = measures.get(name)
        if histogram is not None and histogram.count:
            values = [*histogram.percentiles_us(50, 90, 99, 99.9), histogram.max_us()]
            table.add_row(title, f"{histogram.count:,}", *(f"{v / 1000:,.2f}" for v in values))
    return table


def machine_facts() -> dict[str, object]:
    """What a figure means nothing without."""
    return {
        "kernel": platform.release(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next((x.split(":", 1)[1].strip() for x in lines if x[:10] == "model name"), "?")
    except OSError:
        return "?"
