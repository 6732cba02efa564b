"""Entries: committed events as everybody passes them on, and both kinds of record that carry them.

An event is encoded once, where it gets its position. From there on it is an `Entry`: what
history, the stores and the workers of a node hand to each other, never its fields again. What is
still to be committed travels as a draft. Both records are for our own processes and files: a
record that was cut or damaged is refused, whoever can write them is trusted.
"""

from collections.abc import Sequence
from typing import NamedTuple

from fastsse import _records
from fastsse._core import Frame
from fastsse._records import pack_entry
from fastsse.errors import InvalidEvent
from fastsse.events import Event
from fastsse.positions import N_BITS, N_MASK, uuid_of_position

__all__ = [
    "Entry",
    "encode_entries",
    "id_of",
    "pack_entry",
    "pack_events",
    "unpack_entries",
    "unpack_events",
]


class Entry(NamedTuple):
    """One committed event.

    `own_id` is the publisher's own, by which history finds the event too. `frame` is the event
    encoded; its position is the entry's, and it says whether the event is private.
    """

    position: int
    topics: tuple[str, ...]
    own_id: bytes | None
    frame: Frame


def encode_entries(positions: Sequence[int], events: Sequence[Event]) -> list[Entry]:
    """Events that got their positions, encoded. O(bytes)."""
    return _records.encode_entries(positions, events, Entry)


def id_of(position: int, event: Event) -> bytes:
    """What an event's `id:` line says: the publisher's own id, else its position."""
    if event.id is not None:
        return event.id
    if event.id_style == "uuid":
        return uuid_of_position(position)
    return b"%d-%d" % (position >> N_BITS, position & N_MASK)


def unpack_entries(buffer: bytes | bytearray | memoryview) -> list[Entry]:
    """The entries of whole records. Raises ValueError when one is cut or damaged. O(bytes)."""
    return _records.unpack_entries(buffer, Entry)


def pack_events(events: Sequence[Event]) -> bytes:
    """Events that have no position yet, as records. O(bytes)."""
    return b"".join(map(_records.pack_event, events))


def unpack_events(buffer: bytes | bytearray | memoryview) -> list[Event]:
    """The events of whole records, each validated again. Raises ValueError. O(bytes)."""
    try:
        return _records.unpack_events(buffer)
    except InvalidEvent as error:
        raise ValueError(f"an event that can't be: {error}") from None
