"""Stores the tickets of one node by short names, each until its end."""

import heapq
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from fastsse.control.service import ControlStore
from fastsse.errors import FastsseError

__all__ = ["TicketStore"]

# An opened ticket has three entries: its rights, its client, and its stream.
ENTRIES_MAX: Final = 300_000
ENTRIES_BYTES_MAX: Final = 128 * 1024 * 1024
_END_BYTES: Final = 8
# Ends without an entry, in addition to one for each entry, before they are removed.
_ENDS_KEPT: Final = 1_000


class TicketStore:
    """A `OneTimeStore` in the store of a control service. It survives restarts if that store is a
    file.

    Bounded by number and bytes: the entry unused longest is evicted for a new one.

    Arguments:
        store: the store of the control service.
        now_s: unix seconds.
    """

    def __init__(self, store: ControlStore, now_s: Callable[[], float]) -> None:
        self._store = store
        self._now_s = now_s
        # End in ms and size of each entry; the one unused longest is first.
        self._entries: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._bytes = 0
        self._ends: list[tuple[int, str]] = []
        for key, value in store.items():
            self._note(key, int.from_bytes(value[:_END_BYTES]), len(value))

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: bytes, value: bytes, life_ms: int, done: Callable[[bool], None]) -> None:
        """As `OneTimeStore`. O(log entries), plus the expired entries."""
        name = self._live(key)
        if name in self._entries:
            done(False)
            return
        self._set(name, value, life_ms)
        done(name in self._entries)

    def get(self, key: bytes, done: Callable[[bytes | FastsseError | None], None]) -> None:
        """As `OneTimeStore`."""
        done(self._get(self._live(key)))

    def exchange(
        self, key: bytes, value: bytes, life_ms: int, done: Callable[[bytes | None], None]
    ) -> None:
        """As `OneTimeStore`."""
        name = self._live(key)
        before = self._get(name)
        self._set(name, value, life_ms)
        done(before)

    def renew(self, key: bytes, life_ms: int, done: Callable[[bool | None], None]) -> None:
        """As `OneTimeStore`."""
        name = self._live(key)
        value = self._get(name)
        if value is not None:
            self._set(name, value, life_ms)
        done(value is not None)

    def _live(self, key: bytes) -> str:
        """Drops expired entries and returns the name of a key in the store."""
        now_ms = self._now_s() * 1000
        while self._ends and self._ends[0][0] <= now_ms:
            end_ms, name = heapq.heappop(self._ends)
            if name in self._entries and self._entries[name][0] == end_ms:
                self._drop(name)
        return key.hex()

    def _get(self, name: str) -> bytes | None:
        if name not in self._entries:
            return None
        self._entries.move_to_end(name)
        value = self._store.get(name)
        return None if value is None else value[_END_BYTES:]

    def _set(self, name: str, value: bytes, life_ms: int) -> None:
        if name in self._entries:
            self._drop(name)
        end_ms = round(self._now_s() * 1000) + life_ms
        kept = end_ms.to_bytes(_END_BYTES) + value
        self._store.put(name, kept)
        self._note(name, end_ms, len(kept))
        while len(self._entries) > ENTRIES_MAX or self._bytes > ENTRIES_BYTES_MAX:
            self._drop(next(iter(self._entries)))

    def _note(self, name: str, end_ms: int, size: int) -> None:
        self._entries[name] = end_ms, size
        self._bytes += size
        heapq.heappush(self._ends, (end_ms, name))
        # Each open of a ticket changes the end of an entry, and its earlier end stays in the heap.
        if len(self._ends) > _ENDS_KEPT + 2 * len(self._entries):
            self._ends = [(end_ms, name) for name, (end_ms, _) in self._entries.items()]
            heapq.heapify(self._ends)

    def _drop(self, name: str) -> None:
        self._bytes -= self._entries.pop(name)[1]
        self._store.put(name, None)
