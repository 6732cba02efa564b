"""A batch of events on its way into the file."""

from collections.abc import Sequence
from typing import Final

from fastsse.backbone import Done
from fastsse.entries import Entry

__all__ = ["Key", "StoreBatch"]

# Counted overhead of a batch and of each event in addition to frames: Python objects, and the
# publisher's request with its text. Measured while a disk did not answer.
_BATCH_COST_BYTES: Final = 1_100
_EVENT_COST_BYTES: Final = 400

Key = tuple[bytes, int]
"""The sender of a batch, and the number of the batch, which rises."""


class StoreBatch:
    """Events with positions, and the call to notify.

    Attributes:
        key: recognises a batch that is sent twice; None: it is never sent twice.
        is_told: its publisher was notified already, and its events were delivered (`received`).
        cost_bytes: its size while it waits, with the publisher's own copy of its text.
        repeats: the positions of the first time, if it is a repeat.
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
        """The positions of the batch, which are consecutive."""
        first = self.entries[0].position
        return range(first, first + len(self.entries))
