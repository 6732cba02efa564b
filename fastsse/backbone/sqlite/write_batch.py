"""A batch of events on its way into the file."""

from collections.abc import Mapping, Sequence
from typing import Final

from fastsse.backbone import Done
from fastsse.backbone.judge import Known, merged
from fastsse.backbone.producers import ProducerRow
from fastsse.backbone.stream_rows import RowChange
from fastsse.entries import Entries, Entry
from fastsse.errors import FastsseError
from fastsse.events import Event
from fastsse.positions import Positions
from fastsse.streamstate import StreamRow

__all__ = ["Key", "StoreBatch"]

# Counted overhead of a batch and of each event in addition to frames: Python objects, and the
# publisher's request with its text. Measured while a disk did not answer.
_BATCH_COST_BYTES: Final = 1_100
_EVENT_COST_BYTES: Final = 400

Key = tuple[bytes, int]
"""The sender of a batch, and the number of the batch, which rises."""


class StoreBatch:
    """Events with positions, which are consecutive, and the call to notify.

    Attributes:
        key: recognises a batch that is sent twice; None: it is never sent twice.
        is_acknowledged: its publisher was answered before it is stored (`received`).
        cost_bytes: its size while it waits, with the publisher's own copy of its text.
        repeats: the positions of the first time, if it is a repeat.
        known: which of its events were stored before, where some were.
        appended: all its events are appends to streams that nothing stands against: the rows after
            them, by topic.
        appended_bytes: what these appends add to the streams.
        refusal: why it may not be stored.
        sequence: the newest of the producer of its known events, -1: they have none.
        rows_before: what the rows of its producers were before it.
        stream_changes: how it changes the rows of durable streams otherwise.
        streams_before: what these were before it.
        taken: the values of the control store that were removed with it, by key.
    """

    __slots__ = (
        "appended",
        "appended_bytes",
        "cost_bytes",
        "done",
        "entries",
        "events",
        "is_acknowledged",
        "key",
        "known",
        "positions",
        "refusal",
        "repeats",
        "rows_before",
        "sequence",
        "stream_changes",
        "streams_before",
        "taken",
    )

    def __init__(
        self, events: Sequence[Event], entries: Entries, done: Done, key: Key | None
    ) -> None:
        self.events: Final = events
        self.positions: Final = Positions(entries[0].position, len(entries))
        self.entries: Final = entries
        self.done: Final = done
        self.key: Final = key
        self.cost_bytes: Final = (
            _BATCH_COST_BYTES + _EVENT_COST_BYTES * len(entries) + 2 * entries.frame_bytes
        )
        self.is_acknowledged = False
        self.appended: Mapping[str, StreamRow] | None = None
        self.appended_bytes = 0
        self.repeats: Sequence[int] | None = None
        self.known: Known | None = None
        self.refusal: FastsseError | None = None
        self.sequence = -1
        self.rows_before: Sequence[tuple[bytes, ProducerRow | None]] = ()
        self.stream_changes: Sequence[RowChange] = ()
        self.streams_before: Sequence[tuple[str, StreamRow | None]] = ()
        self.taken: Sequence[tuple[str, bytes]] = ()

    @property
    def stored(self) -> Sequence[Entry]:
        """Its entries that are new."""
        if self.repeats is not None or self.refusal is not None:
            return ()
        if self.known is None:
            return self.entries
        pairs = zip(self.entries, self.known, strict=True)
        return [entry for entry, place in pairs if place is None]

    @property
    def outcome(self) -> Sequence[int] | FastsseError:
        """What its publisher is answered."""
        if self.refusal is not None:
            return self.refusal
        if self.repeats is not None:
            return self.repeats
        if self.known is None:
            return self.positions
        outcome = merged(self.events, self.known, [entry.position for entry in self.stored])
        outcome.sequence = self.sequence
        return outcome
