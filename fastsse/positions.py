"""Positions: an event's place in the order, strictly increasing, also when the clock jumps.

In memory a position is one int, `(unix_ms << 64) | n`; as text it is `<unix-ms>-<n>`, the shape
of a Redis stream id, or a UUID that holds the same. `n` begins at 1 in each millisecond, so that
`position - 1` is always a place just before that event and after the one before it.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from fastsse._positions import Clock, Positions, now_ms

__all__ = [
    "Clock",
    "Positions",
    "TimeMarks",
    "format_position",
    "is_position_shaped",
    "now_ms",
    "parse_id",
    "parse_position",
    "position_at",
    "position_ms",
    "uuid_of_position",
]

N_BITS = 64
N_MASK = (1 << N_BITS) - 1
_SHAPE = re.compile(rb"[0-9]+-[0-9]+")
_CANONICAL = re.compile(rb"(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,19})")
_MS_LIMIT = 1 << 63
# A UUID of version 7 (RFC 9562 5.7) is 48 bits of milliseconds, 12 free bits and 62 more. Ours
# have a tag in the 12 and a small `n` in the 62, so that one in 2**42 of others' looks like it.
_UUID_PREFIX = b"urn:uuid:"
_UUID_TAG = 0x5E5
_UUID_MS_LIMIT = 1 << 48
_UUID_N_LIMIT = 1 << 32
_UUID_SHAPE = re.compile(
    rb"urn:uuid:([0-9a-f]{8})-([0-9a-f]{4})-7%03x-8000-0000([0-9a-f]{8})" % _UUID_TAG,
    re.IGNORECASE,
)


def position_at(ms: int) -> int:
    """The place before every event of this unix millisecond."""
    return ms << N_BITS


def position_ms(position: int) -> int:
    """The unix millisecond of a position."""
    return position >> N_BITS


def format_position(position: int) -> bytes:
    """`<unix-ms>-<n>` in decimal, without leading zeros."""
    return b"%d-%d" % (position >> N_BITS, position & N_MASK)


def uuid_of_position(position: int) -> bytes:
    """The position as `urn:uuid:…` of version 7, whose bits hold it: the ids that Mercure's
    clients know. Its plain text where the bits don't (after the year 10889, `n` from 2**32)."""
    ms, n = position >> N_BITS, position & N_MASK
    if ms >= _UUID_MS_LIMIT or n >= _UUID_N_LIMIT:
        return format_position(position)
    return b"%b%08x-%04x-7%03x-8000-0000%08x" % (
        _UUID_PREFIX,
        ms >> 16,
        ms & 0xFFFF,
        _UUID_TAG,
        n,
    )


def parse_id(text: bytes) -> int | None:
    """The position that an id of ours names, whichever way it is written; else None."""
    match = _UUID_SHAPE.fullmatch(text)
    if match is None:
        return parse_position(text)
    return (int(match[1], 16) << 16 | int(match[2], 16)) << N_BITS | int(match[3], 16)


def is_position_shaped(text: bytes) -> bool:
    """True for digits, a hyphen, digits, and for a position as a UUID: what no publisher's own
    id may look like."""
    return _SHAPE.fullmatch(text) is not None or _UUID_SHAPE.fullmatch(text) is not None


def parse_position(text: str | bytes) -> int | None:
    """The position that `format_position` would write as `text`, else None.

    Leading zeros, signs, spaces, digits of other scripts and numbers out of range
    (`ms` < 2**63, `n` < 2**64) are no position.
    """
    raw = text.encode("utf-8", "replace") if isinstance(text, str) else text
    match = _CANONICAL.fullmatch(raw)
    if match is None:
        return None
    ms, n = int(match[1]), int(match[2])
    return None if ms >= _MS_LIMIT or n > N_MASK else ms << N_BITS | n


class TimeMarks:
    """Which time belongs to which place while positions are ahead of the clock.

    A position's milliseconds are its event's time as long as the clock only goes forward. After a
    clock that was ahead was set back, or a restart above a lease, positions stay where they are
    until the clock has reached them, and times fall behind. Marks say how far: an event of that
    time lies there, and all events of before it lie below. Not thread-safe.

    At most MARKS_MAX marks, one for each MARK_MS; with more every second one goes, which only ever
    answers with an earlier place.
    """

    MARKS_MAX = 4_096
    MARK_MS = 100

    __slots__ = ("_positions", "_times")

    def __init__(self, marks: Iterable[tuple[int, int]] = ()) -> None:
        self._times: list[int] = []
        self._positions: list[int] = []
        for time_ms, position in marks:
            self.note(time_ms, position)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._times, self._positions, strict=True))

    def __len__(self) -> int:
        return len(self._times)

    def note(self, time_ms: int, position: int) -> None:
        """An event of this time, which is before its position's, lies at a position above all
        before it. It takes the place of marks of the same MARK_MS and later. O(1), amortized."""
        times, positions = self._times, self._positions
        begins = self.begin_of(time_ms)
        while times and times[-1] >= begins:
            times.pop()
            positions.pop()
        times.append(time_ms)
        positions.append(position)
        if len(times) > self.MARKS_MAX:
            del times[1:-1:2], positions[1:-1:2]

    def begin_of(self, time_ms: int) -> int:
        """From where on marks are replaced by one of this time."""
        return time_ms - time_ms % self.MARK_MS

    def place_at(self, time_ms: int) -> int:
        """The place after which events of this unix millisecond and later lie; those below it are
        older, or were given a time by a clock that was ahead. O(log marks)."""
        at = bisect_left(self._times, time_ms)
        place = position_at(time_ms)
        return max(place, self._positions[at - 1]) if at else place
