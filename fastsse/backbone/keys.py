"""Publishers' keys: which of them were used of late, and what was published with them.

A key is remembered for a window from its first use. What all of them take is bounded. Above the
bound new keys are refused: the window never gets shorter.
"""

from collections import OrderedDict
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
        self._known: Final[OrderedDict[bytes, tuple[int, KnownKey]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, key: bytes) -> KnownKey | None:
        """As `Keys`. O(1)."""
        found = self._known.get(key)
        return None if found is None or found[0] <= self._now_ms() else found[1]

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
        before = self._known.pop(key, None)
        if before is not None:
            self.bytes -= key_cost(key, len(before[1].positions))
        elif not self._known:
            self._oldest_ms = until_ms
        self._known[key] = until_ms, known
        self.bytes += key_cost(key, len(known.positions))

    def _forget_old(self) -> None:
        now_ms = self._now_ms()
        while self._known:
            key, (until_ms, known) = next(iter(self._known.items()))
            if until_ms > now_ms:
                self._oldest_ms = until_ms
                return
            del self._known[key]
            self.bytes -= key_cost(key, len(known.positions))
