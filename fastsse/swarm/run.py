"""One run from beginning to end: open, hold, end, report."""

from __future__ import annotations

import time

from rich.console import Console

from fastsse.swarm.crew import Crew
from fastsse.swarm.plan import Plan
from fastsse.swarm.progress import REFRESH_S, Progress
from fastsse.swarm.report import Report

STATES = ("connecting", "head", "stream", "slow", "waiting", "over", "new")


def clock_offset_us() -> int:
    """The real-time clock against one that is never set."""
    return (time.time_ns() - time.monotonic_ns()) // 1000


def run(plan: Plan, duration_s: float, console: Console) -> Report:
    """Holds the swarm for `duration_s` once every connection was opened (0: until interrupted).

    Opening is not part of the duration. Ctrl-C ends the run early, with its report; with
    `fastsse swarm` so does SIGTERM.
    """
    offset = clock_offset_us()
    with Crew(plan) as crew:
        progress = Progress(crew, console)
        try:
            with progress.shown():
                _hold(crew, progress, duration_s)
        except KeyboardInterrupt:
            console.print("Interrupted: ending the connections.")
        return report_of(crew, clock_offset_us() - offset)


def _hold(crew: Crew, progress: Progress, duration_s: float) -> None:
    settled_at = 0.0
    while crew.alive:
        if not settled_at and crew.wait_until_settled(REFRESH_S):
            settled_at = time.monotonic()
        if settled_at:
            left_s = settled_at + duration_s - time.monotonic() if duration_s else REFRESH_S
            time.sleep(max(0.0, min(REFRESH_S, left_s)))
            if duration_s and left_s <= REFRESH_S:
                return
        progress.look()


def report_of(crew: Crew, clock_step_us: int = 0) -> Report:
    """Looks at a running crew, ends it, and reports."""
    elapsed_s = time.monotonic() - crew.started_at
    counters = crew.counters()
    peak = {state: counters[state] for state in STATES if counters[state]}
    shares = [cpu_us / 1e6 / elapsed_s for cpu_us in crew.cpu_us()]
    figures = crew.stop()
    return Report(crew.plan, figures, elapsed_s, peak, shares, clock_step_us)
