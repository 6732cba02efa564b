"""A batch of events on its way into the file."""

from collections.abc import Sequence
from typing import Final

from fastsse.backbone import Done
from fastsse.entries import Entry

__all__ = ["Key", "StoreBatch"]

Key = tuple[bytes, int]
"""Who sends a batch, and which of its batches it is: numbers that rise."""


class StoreBatch:
    """Events with positions, and the call to notify.

    Attributes:
        key: by which the batch is known again when it is sent twice; None: it never is.
        is_told: its publisher was notified already, and its events were delivered (`received`).
        repeats: the positions that it got the first time, once it turned out to be a repeat.
    """

    __slots__ = ("done", "entries", "is_told", "key", "repeats")

    def __init__(self, entries: Sequence[Entry], done: Done, key: Key | None) -> None:
        self.entries: Final = entries
        self.done: Final = done
        self.key: Final = key
        self.is_told = False
        self.repeats: Sequence[int] | None = None

    @property
    def positions(self) -> Sequence[int]:
        """Those it was stored at; a batch lies in a row."""
        first = self.entries[0].position
        return range(first, first + len(self.entries))
