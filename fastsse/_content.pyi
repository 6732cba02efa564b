"""The content of durable streams in frames and in records, as it was appended. Any thread."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from fastsse._core import Frame

class StoredContent:
    """The events of one topic as the store has them, read where they lie. Made without the GIL.

    Arguments:
        records: whole records; each bytes have at least one.
        topic: each of them has it.
        places: where they were found, in order.

    Attributes:
        count: of events, with those that are no content.

    Raises:
        ValueError: a record is damaged, missing, of another topic or of another place.
        MemoryError: there is no room for what is noted of each event.
    """

    count: int
    def __init__(self, records: list[bytes], topic: str, places: list[int]) -> None: ...

class ContentRun:
    """The events of stored content that a page has, at least one."""

    @property
    def position(self) -> int:
        """Of the last one."""

_Content: TypeAlias = Frame | ContentRun

def take_content(
    frames: Iterable[Frame], through: int, room_bytes: int, taken: list[_Content], now_ms: int = 0
) -> int:
    """Appends the frames of a page to `taken`; control entries are left out. O(frames).

    Arguments:
        frames: in order of their positions.
        through: the position up to which.
        room_bytes: how much may be taken. One frame is taken whatever its size, if `taken` is
            empty.
        now_ms: events that have expired at this unix time are left out.

    Returns:
        The room that is left; 0 or less when the page is full.
    """

def take_stored(
    stored: StoredContent, through: int, room_bytes: int, taken: list[_Content], now_ms: int = 0
) -> int:
    """As `take_content`, of what was read from the store: appends a run, or nothing. O(events)."""

def join_content(
    contents: Sequence[_Content], separator: bytes = b"", opening: bytes = b"", closing: bytes = b""
) -> bytes:
    """What was appended by each, one behind the other, between `opening` and `closing`. O(bytes).

    Raises MemoryError.
    """
