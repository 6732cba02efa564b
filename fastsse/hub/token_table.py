"""Streams with tokens, as columns of numbers next to the sender's table.

The loop keeps no object for a stream, and nothing else of its token.
"""

from array import array
from typing import NamedTuple

__all__ = ["TokenRow", "TokenTable"]

_SLOT_BITS = 32


class TokenRow(NamedTuple):
    """One stream with a token.

    Attributes:
        channel: the channel's number.
        subject_hash: a hash of the token's subject; 0: it has none.
        expires_ms: when the token ends, in unix milliseconds; 0: never.
        is_notified: whether the stream receives an event before that.
    """

    channel: int
    subject_hash: int
    expires_ms: int
    is_notified: bool


class TokenTable:
    """Rows by slot of the sender's table; the handle says to which stream a row belongs. 28 bytes
    for each slot up to the highest with a token. Loop thread only; each call is O(1)."""

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
        missing = slot + 1 - len(self._handles)
        if missing > 0:
            for column in (self._handles, self._subjects, self._ends_ms, self._channels):
                column.frombytes(bytes(missing * column.itemsize))
        self._handles[slot] = handle
        self._subjects[slot] = bearer.subject_hash
        self._ends_ms[slot] = bearer.expires_ms
        self._channels[slot] = bearer.channel << 1 | bearer.is_notified

    def find(self, handle: int) -> TokenRow | None:
        """The row of a stream; None for one that has ended or has no token."""
        slot = _slot(handle)
        if not handle or slot >= len(self._handles) or self._handles[slot] != handle:
            return None
        marks = self._channels[slot]
        return TokenRow(marks >> 1, self._subjects[slot], self._ends_ms[slot], bool(marks & 1))

    def renew(self, handle: int, expires_ms: int) -> None:
        """Sets another end for a stream that has a row."""
        self._ends_ms[_slot(handle)] = expires_ms

    def drop(self, handle: int) -> None:
        """A stream ended."""
        slot = _slot(handle)
        if slot < len(self._handles) and self._handles[slot] == handle:
            self._handles[slot] = 0


def _slot(handle: int) -> int:
    return handle & ((1 << _SLOT_BITS) - 1)
