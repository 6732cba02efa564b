"""Streams with tokens, as columns of numbers next to the sender's table.

The loop keeps no object for a stream, and nothing else of its token.
"""

from array import array
from typing import NamedTuple

__all__ = ["TokenRow", "TokenTable"]

_SLOT_BITS = 32


class TokenRow(NamedTuple):
    """What is known of one: the channel's number, a hash of the subject (0: none), when its token
    ends in unix ms (0: never), and whether it wants a notice of that."""

    channel: int
    subject_hash: int
    expires_ms: int
    is_told: bool


class TokenTable:
    """By slot of the table; the handle shows whose row it is. 28 bytes for each slot up to the
    highest that was used by a bearer. Loop thread only; each call is O(1)."""

    __slots__ = ("_channels", "_ends_ms", "_handles", "_subjects")

    def __init__(self) -> None:
        self._handles = array("Q")
        self._subjects = array("Q")
        self._ends_ms = array("Q")
        # The number, and in the lowest bit whether it gets a notice.
        self._channels = array("I")

    def add(self, handle: int, bearer: TokenRow) -> None:
        """A stream opened."""
        slot = _slot(handle)
        lacking = slot + 1 - len(self._handles)
        if lacking > 0:
            for column in (self._handles, self._subjects, self._ends_ms, self._channels):
                column.frombytes(bytes(lacking * column.itemsize))
        self._handles[slot] = handle
        self._subjects[slot] = bearer.subject_hash
        self._ends_ms[slot] = bearer.expires_ms
        self._channels[slot] = bearer.channel << 1 | bearer.is_told

    def find(self, handle: int) -> TokenRow | None:
        """What is known of a stream; None for one that has ended or bears no token."""
        slot = _slot(handle)
        if not handle or slot >= len(self._handles) or self._handles[slot] != handle:
            return None
        marks = self._channels[slot]
        return TokenRow(marks >> 1, self._subjects[slot], self._ends_ms[slot], bool(marks & 1))

    def renew(self, handle: int, expires_ms: int) -> None:
        """A stream that is known has another end."""
        self._ends_ms[_slot(handle)] = expires_ms

    def drop(self, handle: int) -> None:
        """A stream ended."""
        slot = _slot(handle)
        if slot < len(self._handles) and self._handles[slot] == handle:
            self._handles[slot] = 0


def _slot(handle: int) -> int:
    return handle & ((1 << _SLOT_BITS) - 1)
