"""Append buffer: collects the newest entries until a reader needs them. Then it appends them to the
logs, without those that would be evicted at once.

Most entries of a busy topic never reach a log. On a topic without readers this saves most of the
cost of storing.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from fastsse.entries import Entry
from fastsse.hub.backfill import Evictions
from fastsse.hub.history import History
from fastsse.hub.topics import Topics

__all__ = ["AppendBuffer"]

# The most entries in the buffer.
UNSETTLED_MAX: Final = 16 * 1024
UNSETTLED_BYTES: Final = 8 * 1024 * 1024


class AppendBuffer:
    """Entries on their way into a history. Loop thread only.

    Arguments:
        topics: the history's.
        history: read it only after `settle`.
    """

    def __init__(self, topics: Topics, history: History) -> None:
        self._topics = topics
        self._history = history
        self._unsettled: list[Entry] = []
        self._unsettled_bytes = 0

    def keep(self, entries: Sequence[Entry]) -> None:
        """Keeps the newest entries."""
        self._unsettled += entries
        self._unsettled_bytes += sum([entry[3].size for entry in entries])
        is_full = len(self._unsettled) > UNSETTLED_MAX or self._unsettled_bytes > UNSETTLED_BYTES
        # A control entry has effect at once.
        if is_full or any([entry[4] is not None and entry[4].control for entry in entries]):
            self.settle()

    def settle(self) -> None:
        """Appends the entries to their topics' logs, without those that would be evicted at once.
        O(entries since the last call)."""
        entries, self._unsettled = self._unsettled, []
        if not entries:
            return
        self._unsettled_bytes = 0
        surplus = self._surplus(entries)
        if surplus:
            of_all = max(surplus.values())
            self._history.evict(Evictions(surplus, of_all, self._topics.forgotten_through))
            entries = [
                entry
                for entry in entries
                if len(entry[1]) > 1 or entry[0] > surplus.get(entry[1][0], 0)
            ]
        self._history.take(entries)

    def _surplus(self, entries: Sequence[Entry]) -> dict[str, int]:
        """Topics with more entries than their rules keep. For each the last position that need not
        be appended: only entries before the first one that it shares with other topics count."""
        busy = self._too_busy(Counter([entry.topics for entry in entries]))
        if not busy:
            return {}
        alone: dict[str, list[int]] = {name: [] for name in busy}
        met: set[str] = set()
        for position, names, *_ in entries:
            if len(names) > 1:
                met.update(names)
            elif names[0] in busy and names[0] not in met:
                alone[names[0]].append(position)
        surplus = {}
        for name, positions in alone.items():
            too_many = min(busy[name], len(positions))
            if too_many:
                surplus[name] = positions[too_many - 1]
        return surplus

    def _too_busy(self, counts: Counter[tuple[str, ...]]) -> dict[str, int]:
        """Topics with more entries than their rules keep, and how many more."""
        by_name: Counter[str] = Counter()
        for names, count in counts.items():
            for name in names:
                by_name[name] += count
        rule = self._topics.rule
        return {
            name: count - kept
            for name, count in by_name.items()
            if count > (kept := rule(name).events)
        }
