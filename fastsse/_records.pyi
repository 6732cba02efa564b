"""The native part of `fastsse.entries`. Any thread."""

from collections.abc import Sequence
from typing import Any, TypeVar

from fastsse._batch import EventBatch
from fastsse.events import Event

_Extras = TypeVar("_Extras", bound=tuple[Any, ...])
_Entry = TypeVar("_Entry", bound=tuple[Any, ...])

def crc32c(data: bytes | bytearray | memoryview, by_table: bool = False) -> int:
    """The CRC-32C (RFC 3720) of bytes. O(bytes).

    With `by_table` it is computed without the processor's own instruction.
    """

def pack_entry(entry: tuple[Any, ...]) -> bytes:
    """An entry (position, topics, own id, frame, extras) as a record of format 2. O(bytes).

    Raises:
        ValueError: a topic is over 65,535 bytes, or there are none or over 255 topics.
    """

def pack_events(events: Sequence[Event]) -> bytes:
    """Events that have no position yet as records. O(bytes). Raises as `pack_entry`."""

def pack_event(event: Event) -> bytes:
    """One event as such a record."""

def unpack_entries(
    buffer: bytes | bytearray | memoryview,
    entry_type: type[_Entry],
    extras_type: type[_Extras],
) -> list[_Entry]:
    """The entries of whole records, each made an `entry_type`. O(bytes).

    Fields of unknown tags are skipped. The optional fields of an entry that has some are made an
    `extras_type`.

    Raises:
        ValueError: a record was cut, its checksum fails, or it says what can't be.
    """

def unpack_entries_1(
    buffer: bytes | bytearray | memoryview, entry_type: type[_Entry]
) -> list[_Entry]:
    """The same of records of format 1, which have no checksum. Raises as `unpack_entries`."""

def unpack_events(buffer: bytes | bytearray | memoryview) -> EventBatch:
    """The events of whole drafts, each validated again. O(bytes).

    Raises:
        ValueError: a record was cut or damaged.
        InvalidEvent: it is whole, and an event that can't be.
    """
