"""The native part of `fastsse.entries`. Any thread."""

from collections.abc import Sequence
from typing import Any, TypeVar

from fastsse.events import Event

_Entry = TypeVar("_Entry", bound=tuple[Any, ...])

def encode_entries(
    positions: Sequence[int], events: Sequence[Event], entry_type: type[_Entry]
) -> list[_Entry]:
    """Events that got their positions, each encoded and made an `entry_type`. O(bytes).

    Raises:
        ValueError: there are not as many of both.
    """

def pack_entry(entry: tuple[Any, ...]) -> bytes:
    """An entry (position, topics, own id, frame) as a record. O(bytes).

    Raises:
        ValueError: a topic or id is over 65,535 bytes, or there are none or over 255 topics.
    """

def pack_event(event: Event) -> bytes:
    """An event that has no position yet as a record. O(bytes). Raises as `pack_entry`."""

def unpack_entries(
    buffer: bytes | bytearray | memoryview, entry_type: type[_Entry]
) -> list[_Entry]:
    """The entries of whole records, each made an `entry_type`. O(bytes).

    Raises:
        ValueError: a record was cut or damaged.
    """

def unpack_events(buffer: bytes | bytearray | memoryview) -> list[Event]:
    """The events of whole records, each validated again. O(bytes).

    Raises:
        ValueError: a record was cut or damaged.
        InvalidEvent: it is whole, and an event that can't be.
    """
