"""The topic rule `max_publish_rate`: how many events a second publishers may send to a topic.

A topic with such a rule has a token bucket that holds the amount of two seconds. What comes down
the log takes from it, also events of other workers, other nodes and sources. So every worker judges
at once and by itself, and the limit holds for the whole service. In one process it is exact.
Several workers together may exceed it by what they accept within the time of one commit.

A publish is accepted while the bucket has at least one left. Its further events make the bucket
negative, as with the limits per client.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from fastsse.entries import Entry
from fastsse.errors import RateExceeded
from fastsse.events import Event
from fastsse.hub.topics import Topics

__all__ = ["PublishRates"]

BURST_S: Final = 2.0
# Buckets that one sweep looks at.
_LOOKED_AT_MAX: Final = 4_000


class _Bucket:
    """How many events a topic may still get, and when that was so; `pending` are those that are on
    their way to the log."""

    __slots__ = ("at_s", "left", "pending", "rate")

    def __init__(self, rate: int, now_s: float) -> None:
        self.rate = rate
        self.left = max(1.0, rate * BURST_S)
        self.at_s = now_s
        self.pending = 0

    def fill(self, now_s: float) -> None:
        full = max(1.0, self.rate * BURST_S)
        self.left = min(full, self.left + (now_s - self.at_s) * self.rate)
        self.at_s = now_s


class PublishRates:
    """The buckets of topics that have a limit. Loop thread only.

    Arguments:
        topics: gives the rules.
        time: seconds, of a clock that only goes forward.

    `active`: whether any rule has a limit; without one nothing needs to be called.
    """

    def __init__(self, topics: Topics, time: Callable[[], float] = time.monotonic) -> None:
        self.active = topics.rules.limit_publishes
        self._topics = topics
        self._time = time
        # Those used longest ago come first.
        self._buckets: dict[str, _Bucket] = {}

    def apply_rules(self) -> None:
        """Applies rules that have changed: a bucket is filled at its topic's new rate. O(buckets x
        rules)."""
        now_s = self._time()
        rates = {name: self._topics.rules.rule(name).max_publish_rate for name in self._buckets}
        for name, rate in rates.items():
            if rate is None:
                del self._buckets[name]
            else:
                self._buckets[name].fill(now_s)
                self._buckets[name].rate = rate
        self.active = self._topics.rules.limit_publishes

    def objection(self, events: Sequence[Event]) -> RateExceeded | None:
        """Why a publish must wait; None, and then it counts as pending until `ended`. O(events)."""
        counted = Counter(name for event in events for name in event.topics)
        used = [(name, count, self._bucket(name)) for name, count in counted.items()]
        for name, _, bucket in used:
            if bucket is not None and bucket.left - bucket.pending < 1:
                wait_s = (1 - bucket.left + bucket.pending) / bucket.rate
                return RateExceeded(name, bucket.rate, math.ceil(wait_s))
        for _, count, bucket in used:
            if bucket is not None:
                bucket.pending += count
        return None

    def ended(self, events: Sequence[Event]) -> None:
        """A publish that `objection` let pass is in the log, or was refused."""
        for event in events:
            for name in event.topics:
                bucket = self._buckets.get(name)
                if bucket is not None:
                    # New rules may have made the bucket after this publish was let pass.
                    bucket.pending = max(0, bucket.pending - 1)

    def on_entries(self, entries: Iterable[Entry]) -> None:
        """Entries came down the log."""
        for entry in entries:
            for name in entry.topics:
                bucket = self._bucket(name)
                if bucket is not None:
                    bucket.left -= 1

    def sweep(self) -> None:
        """Forgets buckets that are full. Looks at a bounded number, those used longest ago."""
        now_s = self._time()
        for name in list(self._buckets)[:_LOOKED_AT_MAX]:
            bucket = self._buckets[name]
            bucket.fill(now_s)
            if bucket.pending == 0 and bucket.left >= bucket.rate * BURST_S:
                del self._buckets[name]

    def __len__(self) -> int:
        return len(self._buckets)

    def _bucket(self, name: str) -> _Bucket | None:
        """The bucket of a topic, filled up to now; None if it has no limit."""
        now_s = self._time()
        bucket = self._buckets.pop(name, None)
        if bucket is None:
            rate = self._topics.rule(name).max_publish_rate
            if rate is None:
                return None
            bucket = _Bucket(rate, now_s)
        bucket.fill(now_s)
        self._buckets[name] = bucket
        return bucket
