"""What a run measured: counters and histograms, read from the blocks that loops write into.

Counters only rise and buckets only fill, so figures can be subtracted (what happened between two
looks) and added (several processes). Histograms have HdrHistogram's buckets for microseconds with
three significant digits, up to 71 minutes.
"""

from __future__ import annotations

import math
import operator
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fastsse.swarm import _swarm

_HALF = 1024
GAUGES = frozenset(
    {
        *("new", "connecting", "head", "stream", "slow", "waiting", "over"),
        *("began_at_us", "settled_at_us", "started_at_us", "ended_at_us"),
        *("last_errno", "last_status"),
    }
)
"""Counters that say how things are, not how often something happened."""
_ORDER_WORDS = len(_swarm.ORDER_NAMES)


def highest_us(bucket: int) -> int:
    """The largest value that a bucket stands for (HdrHistogram reports this one)."""
    shift = max(bucket // _HALF - 1, 0)
    return (bucket - shift * _HALF + 1 << shift) - 1


def lowest_us(bucket: int) -> int:
    """The smallest value that a bucket stands for."""
    shift = max(bucket // _HALF - 1, 0)
    return bucket - shift * _HALF << shift


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of microsecond values; every figure is exact to three significant digits."""

    buckets: Sequence[int] = field(default_factory=lambda: [0] * _swarm.HISTOGRAM_BUCKETS)

    @property
    def count(self) -> int:
        return sum(self.buckets)

    def percentiles_us(self, *percents: float) -> list[int]:
        """The values below or at which these shares of all values lie, 0s when there are none.

        Args:
            percents: 0 … 100, rising.
        """
        total = self.count
        wanted = [max(1, math.ceil(total * p / 100 - 1e-9)) for p in percents] if total else []
        found: list[int] = []
        seen = 0
        for bucket, count in enumerate(self.buckets):
            seen += count
            while len(found) < len(wanted) and seen >= wanted[len(found)]:
                found.append(highest_us(bucket))
        return found or [0] * len(percents)

    def max_us(self) -> int:
        """O(buckets)."""
        return next((highest_us(i) for i, n in self.filled(reverse=True)), 0)

    def mean_us(self) -> float:
        """Each value is taken as the middle of its bucket."""
        total = self.count
        if not total:
            return 0.0
        return sum(n * (lowest_us(i) + highest_us(i)) / 2 for i, n in self.filled()) / total

    def filled(self, *, reverse: bool = False) -> Iterable[tuple[int, int]]:
        """The (bucket, count) pairs that are not empty."""
        buckets = range(len(self.buckets))
        for bucket in reversed(buckets) if reverse else buckets:
            if self.buckets[bucket]:
                yield bucket, self.buckets[bucket]

    def as_json(self) -> dict[str, object]:
        """Percentiles in milliseconds, and every value seen, so that runs can be merged later."""
        p50, p90, p99, p999 = self.percentiles_us(50, 90, 99, 99.9)
        return {
            "count": self.count,
            "mean_ms": round(self.mean_us() / 1000, 4),
            "p50_ms": p50 / 1000,
            "p90_ms": p90 / 1000,
            "p99_ms": p99 / 1000,
            "p99_9_ms": p999 / 1000,
            "max_ms": self.max_us() / 1000,
            "values_us": [[highest_us(i), n] for i, n in self.filled()],
        }

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(list(map(operator.add, self.buckets, other.buckets)))

    def __sub__(self, other: Histogram) -> Histogram:
        return Histogram(list(map(operator.sub, self.buckets, other.buckets)))


@dataclass(frozen=True, slots=True)
class SwarmResults:
    """One look at one or several loops."""

    counters: Mapping[str, int]
    measures: Mapping[str, Histogram]

    def __getitem__(self, counter: str) -> int:
        return self.counters[counter]

    def __add__(self, other: SwarmResults) -> SwarmResults:
        return SwarmResults(
            {name: value + other.counters[name] for name, value in self.counters.items()},
            {name: value + other.measures[name] for name, value in self.measures.items()},
        )

    def __sub__(self, before: SwarmResults) -> SwarmResults:
        """What happened since `before`; gauges keep their present value."""
        return SwarmResults(
            {
                name: value if name in GAUGES else value - before.counters[name]
                for name, value in self.counters.items()
            },
            {name: value - before.measures[name] for name, value in self.measures.items()},
        )


def read_counters(block: memoryview, names: Sequence[str]) -> dict[str, int]:
    """The counters of a block (as a memoryview of unsigned 64-bit words)."""
    return dict(zip(names, block[_ORDER_WORDS : _ORDER_WORDS + len(names)].tolist(), strict=True))


def read_measure(block: memoryview, names: Sequence[str], counters: int, name: str) -> Histogram:
    """One histogram of a block that has `counters` counters before its `names` measures."""
    start = _ORDER_WORDS + counters + names.index(name) * _swarm.HISTOGRAM_BUCKETS
    return Histogram(block[start : start + _swarm.HISTOGRAM_BUCKETS].tolist())


def read_block(block: memoryview) -> SwarmResults:
    """Everything in a swarm's block. About a millisecond."""
    counters, measures = _swarm.COUNTER_NAMES, _swarm.MEASURE_NAMES
    return SwarmResults(
        read_counters(block, counters),
        {name: read_measure(block, measures, len(counters), name) for name in measures},
    )


def read_publish_block(block: memoryview) -> SwarmResults:
    """Everything in a publisher's block."""
    counters, measures = _swarm.PUBLISH_COUNTER_NAMES, _swarm.PUBLISH_MEASURE_NAMES
    return SwarmResults(
        read_counters(block, counters),
        {name: read_measure(block, measures, len(counters), name) for name in measures},
    )


def total(figures: Iterable[SwarmResults]) -> SwarmResults:
    """The sum of several processes' figures (at least one)."""
    first, *others = figures
    for other in others:
        first += other
    return first


def spread(values: Sequence[float]) -> str:
    """The median of repeats with the least and the greatest: `5.8 (5.6 to 6.1)`."""
    middle = statistics.median(values)
    if len(values) == 1:
        return f"{middle:.4g}"
    return f"{middle:.4g} ({min(values):.4g} to {max(values):.4g})"
