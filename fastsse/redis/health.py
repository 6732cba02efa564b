"""Health of the connection between this node and Redis: what is wrong, and what was counted."""

from collections import Counter
from typing import Final

from fastsse.log import get_logger

__all__ = ["Health", "Outage", "SkipLog"]

log = get_logger("redis")
# Skipped entries usually come in large numbers.
SKIPS_LOGGED: Final = 5
SKIPS_EACH_S: Final = 10.0
# A fault that lasts is logged again after this time, with the newest reason.
REMINDERS_EACH_S: Final = 30.0
REASONS_LOGGED: Final = 8


class Health:
    """What is wrong with each part of the log (`publishing`, `following`), as a text, and counters.

    Each change is logged once.
    """

    __slots__ = ("_troubles", "counts")

    def __init__(self) -> None:
        self._troubles: dict[str, str] = {}
        self.counts: Final[Counter[str]] = Counter()

    @property
    def trouble(self) -> str | None:
        """What is wrong now, each text once; None: nothing."""
        return "; ".join(dict.fromkeys(self._troubles.values())) or None

    def fails(self, part: str, why: str) -> None:
        """Notes that a part fails."""
        if self._troubles.get(part) != why:
            log.warning("Redis fails.", part=part, why=why)
        self._troubles[part] = why

    def works(self, part: str) -> None:
        """Notes that a part works."""
        if self._troubles.pop(part, None) is not None:
            log.info("Redis works again.", part=part)

    def damaged(self, stream_id: bytes, why: str, skips: "SkipLog", now_s: float) -> None:
        """An event in the log is damaged, so readers get a gap event."""
        self.counts["redis_entries_damaged"] += 1
        unlogged = skips.take(now_s)
        if unlogged is not None:
            log.error(
                "An event in Redis is damaged; readers get a gap event.",
                id=stream_id.decode("latin-1"),
                why=why,
                unlogged_before=unlogged,
            )

    def skipped(self, stream_id: bytes, why: str, skips: "SkipLog", now_s: float) -> None:
        """An entry was skipped, because another program wrote it or it is invalid."""
        self.counts["redis_entries_skipped"] += 1
        unlogged = skips.take(now_s)
        if unlogged is not None:
            log.warning(
                "An entry of the stream was skipped.",
                id=stream_id.decode("latin-1"),
                why=why,
                unlogged_before=unlogged,
            )


class SkipLog:
    """Allows this many log records in each period, and counts the rest."""

    __slots__ = ("_left", "_unlogged", "_until_s")

    def __init__(self) -> None:
        self._until_s = 0.0
        self._left = 0
        self._unlogged = 0

    def take(self, now_s: float) -> int | None:
        """How many were omitted since the last logged one; None if this one must be omitted too."""
        if now_s >= self._until_s:
            self._until_s = now_s + SKIPS_EACH_S
            self._left = SKIPS_LOGGED
        if self._left == 0:
            self._unlogged += 1
            return None
        self._left -= 1
        unlogged, self._unlogged = self._unlogged, 0
        return unlogged


class Outage:
    """Logs that a system can't be reached, and why: at once, then rarely, however many tries fail.

    Arguments:
        lost, back: the log lines for the start and the end.
        about: fields of each of these records.
    """

    __slots__ = ("_about", "_again_s", "_back", "_lost", "_reasons")

    def __init__(self, lost: str, back: str, **about: str) -> None:
        self._lost = lost
        self._back = back
        self._about = about
        self._reasons: set[str] = set()
        self._again_s = 0.0

    def lasts(self, why: str, now_s: float) -> None:
        """Reports a failed try, with the time of the loop's clock."""
        is_new = why not in self._reasons and len(self._reasons) < REASONS_LOGGED
        if is_new or now_s >= self._again_s:
            self._reasons.add(why)
            self._again_s = now_s + REMINDERS_EACH_S
            log.warning(self._lost, why=why, **self._about)

    def is_over(self) -> None:
        """Reports a success."""
        if self._reasons:
            self._reasons.clear()
            log.info(self._back, **self._about)
