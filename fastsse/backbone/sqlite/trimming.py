"""Evicts at once, without a server: `fastsse history trim`."""

import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.retention import SqliteRetention
from fastsse.config import HistoryOptions, TopicLimits

__all__ = ["Bounds", "trim"]

_ANY_NUMBER: Final = 1 << 62
# Before any position.
_ANY_AGE_S: Final = 4e9


class Bounds(NamedTuple):
    """What to keep: of the topics that a glob matches, of all together, and by a server's rules.
    None, and 0 in total: no bound."""

    topic: str = "*"
    events: int | None = None
    age_s: float | None = None
    bytes: int | None = None
    total_bytes: int = 0
    rules: HistoryOptions | None = None

    @property
    def is_empty(self) -> bool:
        """Whether everything is kept."""
        return not self.total_bytes and all(
            bound is None for bound in (self.events, self.age_s, self.bytes, self.rules)
        )

    def limits(self, topic: str) -> TopicLimits:
        """What holds for a topic: the strictest of what was said."""
        limits = TopicLimits(_ANY_NUMBER, _ANY_AGE_S, _ANY_NUMBER, None, None)
        if self.rules is not None:
            limits = self.rules.limits(topic)
        if not fnmatchcase(topic, self.topic):
            return limits
        return limits._replace(
            events=_least(limits.events, self.events),
            age_s=limits.age_s if self.age_s is None else min(limits.age_s, self.age_s),
            bytes=_least(limits.bytes, self.bytes),
        )


def trim(
    file: HistoryFile,
    bounds: Bounds,
    compact: bool,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> int:
    """Evicts; returns how many events left the file. O(topics + what goes)."""
    began_ms = now_ms()
    retention = SqliteRetention(file, bounds.limits, bounds.total_bytes, lambda: began_ms)
    while retention.step() or retention.round_is_due(began_ms):
        pass
    if compact:
        file.connection.execute("VACUUM")
    file.flush()
    return retention.let_go


def _least(limit: int, bound: int | None) -> int:
    return limit if bound is None else min(limit, bound)
