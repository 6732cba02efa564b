"""A batch of events on its way into the file."""

from collections.abc import Sequence
from typing import Final

from fastsse.backbone import Done
from fastsse.entries import Entry

__all__ = ["Key", "StoreBatch"]

# What a batch and each of its events hold in addition to frames: objects of Python, the publisher's
# call with its text. Measured while a disk did not answer.
_BATCH_COST_BYTES: Final = 1_100
_EVENT_COST_BYTES: Final = 400

Key = tuple[bytes, int]
"""Who sends a batch, and which of its batches it is: numbers that rise."""


class StoreBatch:
    """Events with positions, and the call to notify.

    Attributes:
        key: by which the batch is known again when it is sent twice; None: it never is.
        is_told: its publisher was notified already, and its events were delivered (`received`).
        cost_bytes: what it holds while it waits, with the publisher's own copy of its text.
        repeats: the positions that it got the first time, once it turned out to be a repeat.
    """

    __slots__ = ("cost_bytes", "done", "entries", "is_told", "key", "repeats")

    def __init__(self, entries: Sequence[Entry], done: Done, key: Key | None) -> None:
        self.entries: Final = entries
        self.done: Final = done
        self.key: Final = key
        text_bytes = sum([entry.frame.size for entry in entries])
        self.cost_bytes: Final = (
            _BATCH_COST_BYTES + _EVENT_COST_BYTES * len(entries) + 2 * text_bytes
        )
        self.is_told = False
        self.repeats: Sequence[int] | None = None

    @property
    def positions(self) -> Sequence[int]:
        """Those it was stored at; a batch lies in a row."""
        first = self.entries[0].position
        return range(first, first + len(self.entries))
