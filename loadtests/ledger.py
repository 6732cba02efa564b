"""Writes results to Locust's statistics and to the exact figures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from locust import stats as locust_stats
from locust.env import Environment
from locust.stats import RequestStats, StatsEntry, StatsError

from fastsse.swarm import Histogram
from fastsse.swarm.results import highest_us
from loadtests.exact import Exact, Key


class Ledger:
    """The results of one process; those of the master are the sum of all workers.

    Attributes:
        exact: everything since the start (on a worker: since its last report to the master).
        now: the number of streams by state.
        workers: the same of each worker, by its id; on the master only.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.exact = Exact()
        self.now: dict[str, int] = {}
        self.workers: dict[str, dict[str, int]] = {}
        environment.events.report_to_master.add_listener(self._report)
        environment.events.worker_report.add_listener(self._take_report)

    def clear(self) -> None:
        """A new run begins."""
        self.exact.entries.clear()
        self.now.clear()
        self.workers.clear()

    def one(
        self,
        key: Key,
        value_us: int | None = None,
        *,
        size_bytes: int = 0,
        error: Exception | None = None,
    ) -> None:
        """Notes one observation; with `error` it is a failure."""
        self.exact.note(key, value_us, failed=error is not None)
        self._environment.events.request.fire(
            request_type=key[0],
            name=key[1],
            response_time=None if value_us is None else max(0, value_us) / 1000,
            response_length=size_bytes,
            exception=error,
            context={},
        )

    def many(
        self, key: Key, values: Histogram | None, untimed: int = 0, size_bytes: int = 0
    ) -> None:
        """Notes the observations of a histogram, and `untimed` that have no value.

        Counts may be negative if an earlier call counted too many. O(buckets): a millisecond for
        any number of observations.
        """
        filled = list(values.filled()) if values is not None else []
        if not filled and not untimed:
            return
        self.exact.add(key, filled, untimed)
        stats = self._environment.stats
        _extend(stats, key, _entry_of(stats, key, filled, untimed, size_bytes))

    def faults(self, key: Key, says: str, count: int) -> None:
        """Notes `count` failures that have no duration, all for the same reason."""
        if count <= 0:
            return
        stats = self._environment.stats
        self.exact.add(key, (), count, count)
        entry = _entry_of(stats, key, (), count, 0)
        entry.num_failures = count
        entry.num_fail_per_sec[int(time.time())] = count
        _extend(stats, key, entry)
        error_key = StatsError.create_key(*key, says)
        error = stats.errors.setdefault(error_key, StatsError(*key, says))
        error.occurred()
        error.occurrences += count - 1

    def moved(self, state: str, by: int) -> None:
        """Adds `by` to the number of streams in a state."""
        self.now[state] = self.now.get(state, 0) + by

    @property
    def received(self) -> int:
        """The reported number of events that readers have received, without slow readers, which may
        stay behind."""
        return self._count("delivery", "replay")

    @property
    def returned(self) -> int:
        """Number of streams that were opened again, without slow readers."""
        return self._count("resume", "return")

    def _count(self, *names: str) -> int:
        return sum(
            entry.count
            for (kind, name), entry in self.exact.entries.items()
            if kind != "slow" and name in names
        )

    def states(self) -> dict[str, int]:
        """Streams in each state, of all processes."""
        total: dict[str, int] = {}
        for states in (self.now, *self.workers.values()):
            for state, count in states.items():
                total[state] = total.get(state, 0) + count
        return total

    def _report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        runner = self._environment.runner
        data["fastsse"] = {
            "exact": self.exact.take(),
            "now": self.now,
            "cpu_percent": runner.current_cpu_usage if runner is not None else 0.0,
        }

    def _take_report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        told = data.get("fastsse")
        if told:
            self.exact.merge(told["exact"])
            self.workers[client_id] = told["now"]


def _entry_of(
    stats: RequestStats,
    key: Key,
    filled: Sequence[tuple[int, int]],
    untimed: int,
    size_bytes: int,
) -> StatsEntry:
    """A Locust entry that holds just this."""
    kind, name = key
    entry = StatsEntry(stats, name, kind)
    now = time.time()
    for bucket, count in filled:
        value_ms = highest_us(bucket) / 1000
        entry.response_times[locust_stats.bucket_response_time(value_ms)] += count
        entry.total_response_time += value_ms * count  # type: ignore[assignment]  # as Locust does
    if filled:
        entry.min_response_time = highest_us(filled[0][0]) / 1000  # type: ignore[assignment]
        entry.max_response_time = highest_us(filled[-1][0]) / 1000  # type: ignore[assignment]
    entry.num_requests = sum(count for _, count in filled) + untimed
    entry.num_none_requests = untimed
    entry.total_content_length = size_bytes
    entry.num_reqs_per_sec[int(now)] = entry.num_requests
    entry.last_request_timestamp = now
    return entry


def _extend(stats: RequestStats, key: Key, entry: StatsEntry) -> None:
    stats.entries[key[1], key[0]].extend(entry)
    stats.total.extend(entry)
