"""The result of a publish, for its answer."""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

from fastsse.backbone.judge import repeats_of
from fastsse.entries import id_of
from fastsse.errors import FastsseError
from fastsse.events import Event

__all__ = ["InterceptedPublished", "Published", "Separate"]


class Published:
    """The result of a publish. An id is the publisher's own, or the text of the position.

    `duplicates` is the number of events that were not stored again, because their keys or producers
    are known; `sequence` is the newest one of the producer of such events; -1: none. `repeats` are
    the places of all that were stored before, as far as the backbone says that.
    """

    __slots__ = ("_events", "_positions", "duplicates", "receipt", "repeats", "sequence")

    def __init__(
        self, positions: Sequence[int], events: Sequence[Event], duplicates: int = 0
    ) -> None:
        self._positions = positions
        self._events = events
        self.duplicates = duplicates
        self.sequence = -1
        self.repeats: Collection[int] = ()
        #: The counts of matching streams for the answer, if they were requested.
        self.receipt: Mapping[str, object] | None = None

    @property
    def positions(self) -> Sequence[int]:
        """The position of each event, in order; with a shared log not always consecutive."""
        return self._positions

    @property
    def placed(self) -> Sequence[int | None]:
        """The position of each event of the publisher, None for one that interceptors dropped."""
        return self._positions

    @property
    def count(self) -> int:
        """Number of accepted events."""
        return len(self._events)

    @property
    def first(self) -> bytes:
        """The id of the first event."""
        return id_of(self._positions[0], self._events[0])

    @property
    def last(self) -> bytes:
        """The id of the last event."""
        return id_of(self._positions[-1], self._events[-1])

    @property
    def ids(self) -> list[bytes]:
        """Every event's id, in order. O(count)."""
        return list(map(id_of, self._positions, self._events))


class InterceptedPublished(Published):
    """As Published, for events that interceptors may have dropped or copied. Each event of the
    publisher stands for its first copy. A dropped event is not counted, and its id is empty."""

    __slots__ = ("_firsts",)

    def __init__(self, published: Published, firsts: Sequence[int | None]) -> None:
        positions, events = published._positions, published._events
        duplicates = repeats_of(positions, events, published.duplicates, firsts)
        super().__init__(positions, events, duplicates)
        self.sequence = published.sequence
        self._firsts = firsts

    @property
    def placed(self) -> Sequence[int | None]:
        """As of Published."""
        return [None if first is None else self._positions[first] for first in self._firsts]

    @property
    def count(self) -> int:
        """Number of accepted events."""
        return sum(first is not None for first in self._firsts)

    @property
    def first(self) -> bytes:
        """The id of the first event that was not dropped; empty if all were."""
        return next(filter(None, self.ids), b"")

    @property
    def last(self) -> bytes:
        """The id of the last event that was not dropped; empty if all were."""
        return next(filter(None, reversed(self.ids)), b"")

    @property
    def ids(self) -> list[bytes]:
        """Every event's id, in order; empty for those that were dropped. O(count)."""
        return [
            b"" if first is None else id_of(self._positions[first], self._events[first])
            for first in self._firsts
        ]


Separate: TypeAlias = int | Published | FastsseError
"""What came of one of several publishes: its position, or why not."""
