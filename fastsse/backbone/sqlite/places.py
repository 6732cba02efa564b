"""Places: positions in 63 bits, which is what SQLite orders fastest.

A place is `ms << 20 | n`. In a millisecond `n` never exceeds 2**20 - 1, so that every position of
this store fits. After that the store's clock continues in the next millisecond, ahead of real time.
"""

from collections.abc import Callable
from typing import Final

from fastsse.positions import N_BITS, N_MASK, Clock

__all__ = [
    "BATCH_EVENTS_MAX",
    "EVENT_COST_BYTES",
    "PLACE_N_MAX",
    "PlaceClock",
    "fits",
    "place_of",
    "position_of",
]

_PLACE_BITS: Final = 20
PLACE_N_MAX: Final = (1 << _PLACE_BITS) - 1
_MS_MAX: Final = (1 << 43) - 1
# A batch is within one millisecond of the order, so its first place and its size give all places.
BATCH_EVENTS_MAX: Final = PLACE_N_MAX
# The cost of an event in the file without its record: its entries in two trees, and free space of
# pages. Measured with `python -m bench.stored`.
EVENT_COST_BYTES: Final = 48


def place_of(position: int) -> int:
    """The last place at or before a position. It is the position itself if it `fits`."""
    ms, n = position >> N_BITS, position & N_MASK
    if ms > _MS_MAX:
        return _MS_MAX << _PLACE_BITS | PLACE_N_MAX
    return ms << _PLACE_BITS | min(n, PLACE_N_MAX)


def position_of(place: int) -> int:
    """The position of a place."""
    return (place >> _PLACE_BITS) << N_BITS | place & PLACE_N_MAX


def fits(position: int) -> bool:
    """Whether an event can be stored at this position."""
    return position >> N_BITS <= _MS_MAX and 0 < position & N_MASK <= PLACE_N_MAX


class PlaceClock(Clock):
    """Reserves positions that fit, each batch within one millisecond.

    Arguments:
        now_ms: gives unix milliseconds; it may stand still or jump, either way.
        last: the last position in use.
    """

    __slots__ = ()

    def __init__(self, now_ms: Callable[[], int], last: int) -> None:
        super().__init__(now_ms, last)

    def take(self, count: int) -> int:
        """Reserves 1 to BATCH_EVENTS_MAX positions in a row and returns the first."""
        if (self.last & N_MASK) + count > PLACE_N_MAX and self._now_ms() <= self.last >> N_BITS:
            self.last = ((self.last >> N_BITS) + 1) << N_BITS
        return super().take(count)
