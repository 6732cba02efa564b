"""Publishers' keys: which of them were used of late, and what was published with them.

A key is remembered for a window from its first use. What all of them take is bounded. Above the
bound new keys are refused: the window never gets shorter.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from fastsse._keys import KEY_COST_BYTES, POSITION_COST_BYTES, KeyRows
from fastsse.directives import RequestKey

__all__ = ["KEY_COST_BYTES", "KeyTable", "Keys", "KnownKey", "key_cost", "known_of_entry"]


class KnownKey(NamedTuple):
    """What was published with a key: the digest of the whole request (empty for a key of one
    event) and the positions."""

    digest: bytes
    positions: Sequence[int]


def key_cost(key: bytes, count: int) -> int:
    """Bytes that a key with so many positions counts for."""
    return len(key) + KEY_COST_BYTES + POSITION_COST_BYTES * (count - 1)


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


class KeyTable(KeyRows):
    """Keys in memory.

    Arguments:
        window_ms: how long each is remembered.
        total_bytes: the bound on all.
        now_ms: unix milliseconds.

    Attributes:
        bytes: what they count for.
    """

    def find(self, key: bytes) -> KnownKey | None:
        """As `Keys`. O(1)."""
        row = self.find_row(key)
        return None if row is None else KnownKey(*row)

    def add(self, key: bytes, known: KnownKey, time_ms: int | None = None) -> None:
        """Remembers a key, used at a time, now by default. O(1)."""
        self.add_row(key, known.digest, known.positions, time_ms)
