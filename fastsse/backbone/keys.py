"""Publishers' keys: which of them were used of late, and what was published with them.

A key is remembered for a window from its first use. What all of them take is bounded. Above the
bound new keys are refused: the window never gets shorter.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from fastsse.directives import RequestKey

__all__ = ["KEY_COST_BYTES", "KeyTable", "Keys", "KnownKey", "key_cost", "known_of_entry"]

# Of a key in memory, without its text: its row, the tuple, a position.
KEY_COST_BYTES: Final = 320
_POSITION_BYTES: Final = 48


class KnownKey(NamedTuple):
    """What was published with a key: the digest of the whole request (empty for a key of one
    event) and the positions."""

    digest: bytes
    positions: Sequence[int]


_Row = tuple[int, bytes, int | Sequence[int]]
"""Until when it is known, in unix milliseconds, the digest, and the position or all of them."""


def key_cost(key: bytes, count: int) -> int:
    """Bytes that a key with so many positions counts for."""
    return len(key) + KEY_COST_BYTES + _POSITION_BYTES * (count - 1)


class Keys(Protocol):
    """The keys that are known where order is made."""

    def find(self, key: bytes) -> KnownKey | None:
        """What was published with a key within the window."""

    def has_room(self, size_bytes: int) -> bool:
        """Whether so many bytes of new keys can be remembered for the whole window."""


def known_of_entry(position: int, key: bytes) -> tuple[bytes, KnownKey]:
    """The key that an entry carries, and what it stands for: entries of one request lie in a row in
    the stores where this is asked."""
    if key[:1] == b"r":
        request = RequestKey.decode(key[1:])
        positions = range(position, position + request.entry_count)
        return request.key, KnownKey(request.digest, positions)
    return key[1:], KnownKey(b"", (position,))


class KeyTable:
    """Keys in memory.

    Arguments:
        window_ms: how long each is remembered.
        total_bytes: the bound on all.
        now_ms: unix milliseconds.

    Attributes:
        bytes: what they take.
    """

    def __init__(self, window_ms: int, total_bytes: int, now_ms: Callable[[], int]) -> None:
        self.bytes = 0
        self._window_ms: Final = window_ms
        self._total_bytes: Final = total_bytes
        self._now_ms: Final = now_ms
        self._oldest_ms = 0
        self._rows: Final[dict[bytes, _Row]] = {}
        self._order: Final[deque[bytes]] = (
            deque()
        )  # The same keys, in the order of their first use.

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, key: bytes) -> KnownKey | None:
        """As `Keys`. O(1)."""
        row = self._rows.get(key)
        if row is None or row[0] <= self._now_ms():
            return None
        return KnownKey(row[1], (row[2],) if isinstance(row[2], int) else row[2])

    def has_room(self, size_bytes: int) -> bool:
        """As `Keys`. O(keys that are too old)."""
        if self._oldest_ms <= self._now_ms():
            self._forget_old()
        return self.bytes + size_bytes <= self._total_bytes

    def add(self, key: bytes, known: KnownKey, time_ms: int | None = None) -> None:
        """Remembers a key, used at a time, now by default. O(1)."""
        now_ms = self._now_ms()
        until_ms = (now_ms if time_ms is None else time_ms) + self._window_ms
        if until_ms <= now_ms:
            return
        self._forget(key)
        if not self._rows:
            self._oldest_ms = until_ms
        self._rows[key] = until_ms, known.digest, known.positions
        self._order.append(key)
        self.bytes += key_cost(key, len(known.positions))

    def add_new(
        self,
        keys: Sequence[bytes | None],
        digests: Sequence[bytes | None],
        append: Callable[[], Sequence[int]],
    ) -> Sequence[int] | None:
        """Appends events and remembers their keys, if none is known, in the table or twice among
        them, and all have room; else changes nothing and returns None. O(keys).

        Arguments:
            keys: of each event; None: it has none.
            digests: of the request of each; None: it has no key.
            append: appends all events and returns their positions.
        """
        new = [key for key in keys if key is not None]
        size_bytes = sum(map(len, new)) + KEY_COST_BYTES * len(new)
        if not self.has_room(size_bytes):
            return None
        if not self._rows.keys().isdisjoint(new) or len(set(new)) < len(new):
            return None
        positions = append()
        if self._window_ms:
            until_ms = self._now_ms() + self._window_ms
            if not self._rows:
                self._oldest_ms = until_ms
            placed = zip(digests, positions, strict=True)
            found = [(until_ms, digest, place) for digest, place in placed if digest is not None]
            self._rows.update(zip(new, found, strict=True))
            self._order.extend(new)
            self.bytes += size_bytes
        return positions

    def _forget(self, key: bytes) -> None:
        """Forgets a key that is used again."""
        if key in self._rows:
            self._forget_old()
        row = self._rows.pop(key, None)
        if row is not None:
            self._order.remove(key)
            self.bytes -= _cost(key, row)

    def _forget_old(self) -> None:
        now_ms, rows, order = self._now_ms(), self._rows, self._order
        while order:
            row = rows[order[0]]
            if row[0] > now_ms:
                self._oldest_ms = row[0]
                return
            key = order.popleft()
            del rows[key]
            self.bytes -= _cost(key, row)


def _cost(key: bytes, row: _Row) -> int:
    return key_cost(key, 1 if isinstance(row[2], int) else len(row[2]))
