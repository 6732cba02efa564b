"""The clock that gives out positions, and runs of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import overload

def now_ms() -> int:
    """Unix milliseconds."""

class Positions(Sequence[int]):
    """Positions in a row, without an int for each.

    Arguments:
        first: the lowest.
        count: how many, 0 or more.
    """

    def __init__(self, first: int, count: int) -> None: ...
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __iter__(self) -> Iterator[int]: ...

class Clock:
    """Gives out positions in order. One owner; not thread-safe.

    Arguments:
        now_ms: gives unix milliseconds; it may stand still or jump, either way.
        last: the last position in use; all that are given out lie above it.

    Attributes:
        time_ms: what `now_ms` said when the last positions were given out: their events' time.
    """

    last: int
    _now_ms: Callable[[], int]

    def __init__(self, now_ms: Callable[[], int], last: int = 0) -> None: ...
    @property
    def time_ms(self) -> int: ...
    def take(self, count: int) -> int:
        """Reserves `count` (>= 1) positions in a row and returns the first."""

    def take_all(self, count: int) -> Positions:
        """Reserves `count` (>= 1) positions in a row and returns them."""

    def next(self) -> int:
        """One position above all before it."""
