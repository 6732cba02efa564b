"""What is measured next to the streams: this client's own stalls, and the server's metrics."""

from __future__ import annotations

import logging
import re
import statistics
import time

import gevent

from loadtests.trial import Trial
from loadtests.wire import BadAnswer, Wire

log = logging.getLogger(__name__)

NAP_S = 0.02
"""The stall probe sleeps this long; what it oversleeps is a wait that every user here had too."""

LOOK_S = 5.0
FIRST_LOOK_S = 1.0

METRICS = {
    "process_resident_memory_bytes": "rss_bytes",
    "process_cpu_seconds_total": "cpu_s",
    "fastsse_connections": "connections",
    "fastsse_memory_bytes": "memory_bytes",
    "fastsse_history_bytes": "history_bytes",
    "fastsse_ring_bytes": "ring_bytes",
    "fastsse_lag_bytes": "lag_bytes",
    "fastsse_deliveries_total": "deliveries",
    "fastsse_missed_edges_total": "missed_edges",
}
_SAMPLE = re.compile(r"^(\w+) ([0-9.eE+-]+)$", re.MULTILINE)

GROWTH_SHARE = 0.1
LOOKS_MIN = 12


def probe_stalls(trial: Trial) -> None:
    """Notes how much too late this process's greenlets wake up, once its readers are settled.

    Runs for ever; spawn it as a greenlet.
    """
    while True:
        slept_at = time.perf_counter_ns()
        gevent.sleep(NAP_S)
        over_us = (time.perf_counter_ns() - slept_at) // 1000 - int(NAP_S * 1e6)
        if trial.settled:
            trial.ledger.one(("client", "stall"), over_us)


class ServerWatch:
    """The server's own figures over a run, when it is a fastsse (others are not asked again).

    Attributes:
        looks: one row a look: `at_s` since the run's begin and the METRICS.
    """

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self.looks: list[dict[str, float]] = []
        self._began = time.monotonic()

    def clear(self) -> None:
        """A new run begins."""
        self.looks.clear()
        self._began = time.monotonic()

    def run(self) -> None:
        """Looks for ever; spawn it as a greenlet."""
        gevent.sleep(FIRST_LOOK_S)
        while True:
            self.look()
            gevent.sleep(LOOK_S)

    def look(self) -> None:
        """Adds a row; none when the server is away or says nothing."""
        try:
            text = self._scrape()
        except (OSError, BadAnswer):
            return
        found = {METRICS[name]: float(value) for name, value in _SAMPLE.findall(text)
                 if name in METRICS}  # fmt: skip
        if found:
            self.looks.append({"at_s": round(time.monotonic() - self._began, 1), **found})

    def _scrape(self) -> str:
        wire = Wire(self._trial.url)
        try:
            wire.send("GET", "/metrics", (("Accept-Encoding", "identity"),))
            text = b""
            while wire.status() == 200 and (piece := wire.read()):
                text += piece
            return text.decode(errors="replace")
        finally:
            wire.close()

    def growth(self) -> str | None:
        """A sentence when the server's memory still grew in the second half of the run.

        Medians of the third and the fourth quarter are compared: histories and the allocator have
        settled by then, or the run was too short to say.
        """
        sizes = [look["rss_bytes"] for look in self.looks if "rss_bytes" in look]
        if len(sizes) < LOOKS_MIN:
            return None
        quarter = len(sizes) // 4
        third = statistics.median(sizes[2 * quarter : 3 * quarter])
        fourth = statistics.median(sizes[3 * quarter :])
        if fourth <= third * (1 + GROWTH_SHARE):
            return None
        return (
            f"The server's memory grew from {third / 1e6:,.0f} to {fourth / 1e6:,.0f} MB "
            "in the last half of the run."
        )
