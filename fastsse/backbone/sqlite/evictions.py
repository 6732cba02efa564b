"""Which topics evicted events, and when. The evicting thread notes it, and the reading thread asks.

Marks are made within the transaction that they belong to, and are settled after its commit. A
reader asks for them within its snapshot. It may see a commit that is not settled yet, so it looks
one of those marks up in the snapshot: a transaction is seen as a whole or not at all.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from fastsse.evicted import Step, Steps

__all__ = ["Marks", "StoredEvictions"]

# Topics whose last eviction is remembered, about 200 bytes each. Evictions of further topics count
# for every topic.
TOPICS_MAX: Final = 100_000


class Marks(NamedTuple):
    """The last evictions of some topics: settled ones with the clock's reading, and those of a
    transaction under way with theirs. `probe` is one topic of that transaction and the place up to
    which it evicts; None when there is none."""

    settled: int
    steps: list[Step]
    clock: int
    under_way: list[Step]
    probe: tuple[int, int] | None


class StoredEvictions:
    """The evictions of one file since this process opened it, as places. Any thread.

    Attributes:
        began: the reading of the clock at the beginning. It lies above every reading of a process
            before this one on the same machine, since it is nanoseconds of the monotonic clock.
    """

    def __init__(self) -> None:
        self.began: Final = time.monotonic_ns()
        self._lock: Final = threading.Lock()
        self._clock = self._settled = self.began
        self._by_topic: dict[int, Step] = {}
        self._of_unknown = Steps()
        self._whole = Steps()
        self._noted: dict[int, Step] = {}
        self._noted_whole: list[Step] = []

    @contextmanager
    def noting(self) -> Iterator[None]:
        """A context for a transaction that evicts. Its marks count even if it is unknown whether it
        was committed."""
        try:
            yield
        finally:
            self._settle()

    def note(self, topic: int, place: int) -> None:
        """A topic evicts its events up to a place."""
        with self._lock:
            self._clock += 1
            self._noted[topic] = self._clock, place

    def note_gone(self, place: int) -> None:
        """Events leave the file, the last of them from this place."""
        with self._lock:
            self._clock += 1
            self._noted_whole.append((self._clock, place))

    def note_forgotten(self, topic: int) -> None:
        """A topic loses its row: its last eviction counts for all topics."""
        with self._lock:
            step = self._by_topic.get(topic)
            if step is not None:
                self._of_unknown.add(*step)

    @property
    def settled(self) -> int:
        """The clock's reading at the end of the last transaction."""
        with self._lock:
            return self._settled

    def of(self, topics: Iterable[int] | None) -> Marks:
        """The last evictions of these topics, None for all events. O(topics)."""
        with self._lock:
            probe = next(((topic, place) for topic, (_, place) in self._noted.items()), None)
            if topics is None:
                steps, under_way = list(self._whole), list(self._noted_whole)
            else:
                numbers = list(topics)
                steps = [*_steps(self._by_topic, numbers), *self._of_unknown]
                under_way = _steps(self._noted, numbers)
            return Marks(self._settled, steps, self._clock, under_way, probe)

    def _settle(self) -> None:
        with self._lock:
            for topic, step in self._noted.items():
                self._by_topic.pop(topic, None)
                self._by_topic[topic] = step
            while len(self._by_topic) > TOPICS_MAX:
                self._of_unknown.add(*self._by_topic.pop(next(iter(self._by_topic))))
            for step in self._noted_whole:
                self._whole.add(*step)
            self._noted.clear()
            self._noted_whole.clear()
            self._settled = self._clock


def _steps(known: dict[int, Step], topics: list[int]) -> list[Step]:
    return [known[topic] for topic in topics if topic in known] if known else []
