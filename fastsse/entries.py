"""Entries: committed events as all parts pass them on, and both kinds of record that carry them.

An event is encoded once, where it gets its position. From there on it is an `Entry`: history, the
stores and the workers of a node pass the entry on, never its fields again. An event that is not
committed yet travels as a draft. Both records are for our own processes and files. Each has a
checksum over its whole content, its position and topics too, so a record that was cut or damaged
is refused. A process that can write records is trusted.
"""

from typing import NamedTuple

from fastsse import _batch, _records
from fastsse._batch import (
    Entries,
    EventBatch,
    KeyedBatch,
    SharedFields,
    encode_entries,
    joined_entries,
    kinds_of,
    sizes,
)
from fastsse._core import Frame
from fastsse._records import pack_entry, pack_events
from fastsse.errors import InvalidEvent
from fastsse.events import Event
from fastsse.positions import N_BITS, N_MASK, uuid_of_position

__all__ = [
    "Entries",
    "Entry",
    "EventBatch",
    "Extras",
    "KeyedBatch",
    "SharedFields",
    "encode_entries",
    "id_of",
    "joined_entries",
    "kinds_of",
    "pack_entry",
    "pack_events",
    "sizes",
    "unpack_entries",
    "unpack_entries_1",
    "unpack_events",
]


class Extras(NamedTuple):
    """What an entry may have in addition to the required: the optional fields of entry format 2.

    Attributes:
        expires_ms: unix milliseconds from which on it is not sent any more.
        event_type: the event's type, as the frame's `event:` line says it.
        payload: the data as it was sent, where the frame's lines can't give it back.
        key: the publisher's key against repeats.
        meta: a JSON object.
        trace: the trace context (W3C `traceparent`).
        control: what a control entry says; None for an event.

    The order is that of the tags in a record (`_records.pyx`); `control` is its body.
    """

    expires_ms: int | None = None
    event_type: bytes | None = None
    payload: bytes | None = None
    key: bytes | None = None
    meta: bytes | None = None
    trace: bytes | None = None
    control: bytes | None = None

    def blanked(self) -> "Extras":
        """What is left when the event is deleted: its key, against repeats."""
        return Extras(key=self.key)

    @property
    def size(self) -> int:
        """Bytes of its texts."""
        return sum([len(value) for value in self if isinstance(value, bytes)])


class Entry(NamedTuple):
    """One committed event.

    `own_id` is the publisher's own, by which history finds the event too. `frame` is the event
    encoded; its position is the entry's, and it says when the event was published, whether it
    is private, and what kind of data it has. `extras` are the optional fields, None when there are
    none. A control entry's frame is a comment, so that a stream that does not know the operation
    shows nothing.
    """

    position: int
    topics: tuple[str, ...]
    own_id: bytes | None
    frame: Frame
    extras: Extras | None = None


_batch.set_entry_types(Entry, Extras)


def id_of(position: int, event: Event) -> bytes:
    """What an event's `id:` line says: the publisher's own id, else its position."""
    if event.id is not None:
        return event.id
    if event.id_style == "uuid":
        return uuid_of_position(position)
    return b"%d-%d" % (position >> N_BITS, position & N_MASK)


def unpack_entries(buffer: bytes | bytearray | memoryview) -> list[Entry]:
    """The entries of whole records. Raises ValueError when one is cut or damaged. O(bytes)."""
    return _records.unpack_entries(buffer, Entry, Extras)


def unpack_entries_1(buffer: bytes | bytearray | memoryview) -> list[Entry]:
    """The same of records of format 1, which had no checksum: a damaged one may pass."""
    return _records.unpack_entries_1(buffer, Entry)


def unpack_events(buffer: bytes | bytearray | memoryview) -> EventBatch:
    """The events of whole records, each validated again. Raises ValueError. O(bytes)."""
    try:
        return _records.unpack_events(buffer)
    except InvalidEvent as error:
        raise ValueError(f"an event that can't be: {error}") from None
