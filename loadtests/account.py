"""Adds the growth of a swarm's figures to Locust's statistics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastsse.swarm import Crew, Histogram, SwarmResults

if TYPE_CHECKING:  # Locust's import makes sockets and threads of the whole process its own.
    from loadtests.ledger import Ledger

KIND = "swarm"

MEASURES = {
    "latency": ("delivery", "stamped"),
    "replay": ("replay", "replayed"),
    "connect": ("connect", "connected"),
    "first_byte": ("first byte", "connected"),
    "open": ("open", "streams"),
    "reconnect": ("resume", "resumed"),
    "first": ("broadcast, first client", "stamped"),
    "completion": ("broadcast, last client", "stamped"),
}
"""The swarm's histograms: their names in Locust's statistics, and the counter without whose rise a
histogram is not worth a look."""

STATES = {
    "stream": "open",
    "slow": "slow",
    "connecting": "opening",
    "head": "opening",
    "waiting": "waiting",
    "over": "over",
}

UNTIMED = {
    "events_slow": "delivery, slow",
    "gaps_announced": "gap",
    "lost_announced": "announced",
    "end_ended": "ended",
    "end_eof": "ended",
    "end_reset": "ended",
}
"""Counters that are no failure and have no duration."""

FAILURES = {
    "repeated": ("repeated", "came twice"),
    "id_repeated": ("repeated", "an id came twice"),
    "late": ("out of order", "came after a later one"),
    "id_disordered": ("out of order", "an id lower than the one before"),
    "end_bad_stream": ("ended", "not an event stream"),
    "end_too_large": ("ended", "an event is too large"),
    "end_refused": ("open", "connection refused"),
    "end_timed_out": ("open", "timed out"),
    "end_status": ("open", "an HTTP status that is not 200"),
    "end_bad_response": ("open", "not an HTTP answer"),
    "end_no_port": ("open", "no local port is free"),
    "end_fd_limit": ("open", "too many open files"),
    "end_other": ("open", "another error"),
}


class Account:
    """Of one swarm. After `close`, every sum in the statistics equals the swarm's own."""

    def __init__(self, ledger: Ledger, *, conflates: bool) -> None:
        self._ledger = ledger
        self._conflates = conflates
        self._counters: dict[str, int] = defaultdict(int)
        self._measures = {name: Histogram() for name in MEASURES}
        self._untimed = self._lost = 0
        self._closed = False

    def look(self, crew: Crew, pause: Callable[[], None] = lambda: None) -> None:
        """Adds new observations while the swarm runs.

        Takes one or two milliseconds for each changed histogram. `pause` is called between
        histograms, and `close` may be called meanwhile.
        """
        # First the counters: an event is then seldom in its histogram and not yet in its counter.
        counters = crew.counters()
        changed = [name for name, (_, counter) in MEASURES.items()
                   if counters[counter] > self._counters[counter]]  # fmt: skip
        for name in changed:
            if name != "latency":
                self._enter_measure(name, crew.measure(name))
                pause()
                if self._closed:
                    return
        latency = crew.measure("latency") if "latency" in changed else self._measures["latency"]
        self._enter_counters(counters, latency)
        self._enter_states(counters)

    def close(self, last: SwarmResults) -> None:
        """Adds the rest of the swarm's last figures."""
        self._closed = True
        for name in MEASURES:
            if name != "latency":
                self._enter_measure(name, last.measures[name])
        self._enter_counters(dict(last.counters), last.measures["latency"])
        self._enter_states({})

    def _enter_measure(self, name: str, values: Histogram) -> None:
        before, self._measures[name] = self._measures[name], values
        self._ledger.many((KIND, MEASURES[name][0]), values - before)

    def _enter_counters(self, counters: dict[str, int], latency: Histogram) -> None:
        new = {name: value - self._counters[name] for name, value in counters.items()}
        self._enter_deliveries(counters["events"], latency, new["data_bytes"])
        self._enter_losses(counters)
        for counter, title in UNTIMED.items():
            self._ledger.many((KIND, title), None, new[counter])
        for counter, (title, says) in FAILURES.items():
            self._ledger.faults((KIND, title), says, new[counter])
        self._counters.update(
            (name, value) for name, value in counters.items() if name not in STATES
        )

    def _enter_deliveries(self, events: int, latency: Histogram, size_bytes: int) -> None:
        """Adds all events; those without a time have no duration."""
        before, self._measures["latency"] = self._measures["latency"], latency
        untimed = max(0, events - latency.count)
        values = latency - before if latency is not before else None
        self._ledger.many((KIND, "delivery"), values, untimed - self._untimed, size_bytes)
        self._untimed = untimed

    def _enter_losses(self, counters: dict[str, int]) -> None:
        """Adds events that were skipped and did not arrive late."""
        lost = max(self._lost, counters["lost"] - counters["late"])
        if self._conflates:
            self._ledger.many((KIND, "conflated"), None, lost - self._lost)
        else:
            self._ledger.faults((KIND, "lost"), "jumped over in silence", lost - self._lost)
        self._lost = lost

    def _enter_states(self, counters: dict[str, int]) -> None:
        for counter, state in STATES.items():
            now = counters.get(counter, 0)
            self._ledger.moved(state, now - self._counters[counter])
            self._counters[counter] = now
