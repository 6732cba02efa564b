"""The rows of durable streams in memory: the memory store, and copies of what other stores keep."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

from fastsse.backbone.judge import Known, TopicStates
from fastsse.backbone.stream_expiry import LOOKS, deletions
from fastsse.backbone.stream_rows import RowChange, StreamLimits, asked_of, changes, check
from fastsse.entries import kinds_of
from fastsse.errors import Conflict
from fastsse.events import Event
from fastsse.streamstate import StreamRow

__all__ = ["StreamTable"]


class StreamTable:
    """Rows in memory. Loop thread only.

    Arguments:
        total_bytes: the bound on all streams.
        now_ms: unix milliseconds.

    Attributes:
        rows: by topic.
        bytes: what all of them take.
        on_changed: called with each stream that has changed, and its row; None: it is gone.
    """

    def __init__(self, total_bytes: int, now_ms: Callable[[], int]) -> None:
        self.rows: Final[dict[str, StreamRow]] = {}
        self.bytes = 0
        self.on_changed: Callable[[str, StreamRow | None], None] | None = None
        # Those that can expire; the next to be looked at first.
        self._expiring: Final[OrderedDict[str, None]] = OrderedDict()
        self._total_bytes: Final = total_bytes
        self._now_ms: Final = now_ms

    def get(self, topic: str) -> StreamRow | None:
        """As `StreamRows`. O(1)."""
        return self.rows.get(topic)

    def has_any(self, events: Sequence[Event]) -> bool:
        """Whether an event is of a stream. O(events and topics)."""
        rows = self.rows
        return bool(rows) and any(
            topic in rows for topics, _ in kinds_of(events) for topic in topics
        )

    def find(self, topics: Iterable[str]) -> dict[str, StreamRow]:
        """The rows of those topics that are streams."""
        return {topic: row for topic in topics if (row := self.rows.get(topic)) is not None}

    @property
    def limits(self) -> StreamLimits:
        """The bound, and what is taken now; the time."""
        return StreamLimits(self._total_bytes, self.bytes, self._now_ms())

    def check(
        self, events: Sequence[Event], known: Known | None, states: TopicStates
    ) -> Conflict | None:
        """As the function `check`."""
        if not self._may_change(events):
            return None
        return check(events, known, self, self.limits, states)

    def store(self, events: Sequence[Event], known: Known | None, positions: Sequence[int]) -> None:
        """Notes what a batch changes that was stored."""
        if not self._may_change(events):
            return
        self.apply(changes(events, known, positions, self, self._now_ms()))

    def _may_change(self, events: Sequence[Event]) -> bool:
        """Whether a batch may concern a stream: without streams only one that creates one does."""
        return bool(self.rows) or any(asked_of(event) is not None for event in events)

    def apply(self, changed: Iterable[RowChange]) -> None:
        """Takes new rows. O(changed)."""
        for topic, row in changed:
            before = self.rows.pop(topic, None)
            self.bytes -= 0 if before is None else before.size_bytes
            if row is not None:
                self.rows[topic] = row
                self.bytes += row.size_bytes
            if before is None and row is not None and row.config.can_expire:
                self._expiring[topic] = None
            elif row is None:
                self._expiring.pop(topic, None)
            if self.on_changed is not None:
                self.on_changed(topic, row)

    def replace(self, rows: Sequence[RowChange]) -> None:
        """Takes these rows in place of all. O(streams)."""
        gone = self.rows.keys() - {topic for topic, _ in rows}
        self.apply([*(RowChange(topic, None) for topic in gone), *rows])

    def note(self, rows: Mapping[str, StreamRow], size_bytes: int) -> None:
        """Takes the rows of streams after appends, which together added so much. O(rows)."""
        self.rows.update(rows)
        self.bytes += size_bytes
        if self.on_changed is not None:
            for topic, row in rows.items():
                self.on_changed(topic, row)

    def expired(self) -> list[list[Event]]:
        """The batches that delete the expired ones of the next streams. Bounded, whatever there
        is; all are looked at in turn."""
        topics = list(islice(self._expiring, LOOKS))
        for topic in topics:
            self._expiring.move_to_end(topic)
        rows = [(topic, self.rows[topic]) for topic in topics if topic in self.rows]
        return deletions(rows, self.rows.get, self._now_ms())

    def touch(self, topic: str, generation: int) -> StreamRow | None:
        """Notes that a stream was read now; returns its row if there is one."""
        row = self.rows.get(topic)
        if row is None or row.generation != generation:
            return None
        row = self.rows[topic] = row._replace(touched_ms=self._now_ms())
        return row
