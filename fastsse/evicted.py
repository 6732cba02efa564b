"""What a source of events has evicted of some topics, and when.

Several topics evict at different places of the order: a busy one near its newest event, a quiet one
far below. The highest of those places says whether anything is missing. It can't say whether more
is missing than a moment ago: the quiet topic may evict one event after the other below it. So
each eviction has a reading of the source's clock, which counts evictions, and a reader remembers
the reading up to which it was notified.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

__all__ = ["NEVER", "Evicted", "Steps", "steps_of"]

# The reading of a clock by a reader that was notified of nothing.
NEVER: Final = -1
# Steps that are kept apart. With more the oldest are merged, which may report an eviction again.
STEPS_MAX: Final = 256

Step = tuple[int, int]
"""A reading of the clock, and the highest position that was evicted then or later."""


class Evicted(NamedTuple):
    """What was evicted of a selection of topics when it was read.

    `clock` is the reading then. `steps` are in the order of their clocks, their positions strictly
    fall. `begins` is where the source itself began: it never had anything at or below it.
    """

    clock: int = 0
    steps: tuple[Step, ...] = ()
    begins: int = 0

    @property
    def through(self) -> int:
        """The highest position that was evicted; 0 for none."""
        return self.steps[0][1] if self.steps else 0

    def since(self, clock: int) -> int:
        """The highest position that was evicted after a reading of the clock; 0 for none."""
        return next((position for at, position in self.steps if at > clock), 0)

    def up_to(self, position: int) -> "Evicted":
        """The same, of a source that is sure to have everything above a position."""
        if self.through <= position:
            return self
        steps = [(at, min(place, position)) for at, place in self.steps]
        return self._replace(steps=steps_of(steps) if position else ())


class Steps:
    """The steps of a selection that evicts one event after the other. O(1) an eviction, amortized;
    at most STEPS_MAX steps."""

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: list[Step] = []

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def through(self) -> int:
        """The highest position; 0 for none."""
        return self._steps[0][1] if self._steps else 0

    def add(self, clock: int, position: int) -> None:
        """Notes an eviction. Its reading of the clock may lie before that of others."""
        steps = self._steps
        at = len(steps)
        while at and steps[at - 1][0] > clock:
            at -= 1
        if at < len(steps) and steps[at][1] >= position:
            return
        first = at
        while first and steps[first - 1][1] <= position:
            first -= 1
        steps[first:at] = [(clock, position)]
        if len(steps) > STEPS_MAX:
            steps[:2] = [(steps[1][0], steps[0][1])]


def steps_of(evictions: Iterable[Step]) -> tuple[Step, ...]:
    """The steps of evictions in any order: each is a reading of the clock and a position. O(n) for
    each step, of which there are few: about the logarithm of n."""
    left = list(evictions)
    steps: list[Step] = []
    while left:
        clock, position = max(left, key=lambda step: (step[1], step[0]))
        left = [step for step in left if step[0] > clock]
        if len(steps) == STEPS_MAX - 1:
            clock, left = max([clock, *(step[0] for step in left)]), []
        steps.append((clock, position))
    return tuple(steps)
