"""The content of durable streams in frames, as it was appended. Any thread."""

from collections.abc import Iterable, Sequence

from fastsse._core import Frame

def take_content(
    frames: Iterable[Frame], through: int, room_bytes: int, taken: list[Frame], now_ms: int = 0
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

def join_content(
    frames: Sequence[Frame], separator: bytes = b"", opening: bytes = b"", closing: bytes = b""
) -> bytes:
    """What was appended by each, one behind the other, between `opening` and `closing`. O(bytes).

    Raises MemoryError.
    """
