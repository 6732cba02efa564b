"""Exact observations, in microseconds and to three significant digits, in addition to Locust's.

Locust keeps whole milliseconds in buckets of two digits (147 ms counts as 150), which says little
about a delivery of 0.4 ms. The same observations are therefore kept once more in HdrHistogram's
buckets, sent to the master with the workers' reports, and merged there without loss.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fastsse.swarm import Histogram, _swarm
from fastsse.swarm.results import highest_us

Key = tuple[str, str]
"""Who saw it (`sse`, `swarm`, `publish` …) and what: Locust's type and name."""

Packed = list[list[Any]]
"""What goes over the wire to the master: kind, name, untimed, failed, bucket and count in turn."""


@dataclass(slots=True)
class Observations:
    """Observations of one kind: the count of each value, of no value, and of failures."""

    buckets: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    untimed: int = 0
    failed: int = 0

    @property
    def count(self) -> int:
        return sum(self.buckets.values()) + self.untimed

    def percentiles_us(self, *percents: float) -> list[int]:
        """As `Histogram.percentiles_us` (100: the greatest). O(different values)."""
        filled = sorted(self.buckets.items())
        total = sum(self.buckets.values())
        found: list[int] = []
        seen = 0
        for bucket, count in filled:
            seen += count
            while len(found) < len(percents) and seen >= max(
                1, math.ceil(total * percents[len(found)] / 100 - 1e-9)
            ):
                found.append(highest_us(bucket))
        return found or [0] * len(percents)

    def histogram(self) -> Histogram:
        """All values. About a millisecond."""
        dense = [0] * _swarm.HISTOGRAM_BUCKETS
        for bucket, count in self.buckets.items():
            dense[bucket] = count
        return Histogram(dense)

    def as_json(self) -> dict[str, object]:
        """Percentiles in milliseconds and every value seen (see `Histogram.as_json`)."""
        return {
            **self.histogram().as_json(),
            "count": self.count,
            "untimed": self.untimed,
            "failed": self.failed,
        }


class Exact:
    """Observations by kind and name. One thread."""

    def __init__(self) -> None:
        self.entries: dict[Key, Observations] = defaultdict(Observations)

    def note(self, key: Key, value_us: int | None, *, failed: bool = False) -> None:
        """Adds one observation."""
        entry = self.entries[key]
        if value_us is None:
            entry.untimed += 1
        else:
            entry.buckets[_swarm.bucket_of(max(0, value_us))] += 1
        entry.failed += failed

    def add(
        self, key: Key, buckets: Iterable[tuple[int, int]], untimed: int = 0, failed: int = 0
    ) -> None:
        """Adds many: (bucket, count) pairs, how many without a value, how many of all failed."""
        entry = self.entries[key]
        for bucket, count in buckets:
            entry.buckets[bucket] += count
        entry.untimed += untimed
        entry.failed += failed

    def merge(self, packed: Packed) -> None:
        """Adds the observations that another process removed with `take`."""
        for kind, name, untimed, failed, flat in packed:
            self.add((kind, name), zip(flat[::2], flat[1::2], strict=True), untimed, failed)

    def take(self) -> Packed:
        """Returns and removes everything."""
        packed: Packed = [
            [*key, entry.untimed, entry.failed, [x for pair in entry.buckets.items() for x in pair]]
            for key, entry in self.entries.items()
        ]
        self.entries.clear()
        return packed

    def as_json(self) -> dict[str, object]:
        """By `kind name`."""
        return {" ".join(key): entry.as_json() for key, entry in sorted(self.entries.items())}
