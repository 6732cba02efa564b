"""Finds the row of a stream, and records that it was read."""

from collections.abc import Callable
from typing import Final

from fastsse.errors import FastsseError
from fastsse.hub import Hub
from fastsse.streams.plain import PlainTopics
from fastsse.streams.requests import StreamGone, StreamMissing
from fastsse.streamstate import StreamRow

__all__ = ["StreamFinder"]

# A read is recorded at most once in a tenth of the time to live.
_TOUCHES: Final = 10
_TOUCHED_MAX: Final = 10_000


class StreamFinder:
    """Finds streams. Loop thread only.

    Arguments:
        hub: knows the rows.
        now_ms: unix milliseconds.
        plain: finds topics that are no streams, for readers; None: they are not served.

    Attributes:
        on_expired: called with topic and row of an expired stream that was found.
        answers_at_once: the last rows that `find_readable` asked for came within the call.
    """

    def __init__(
        self, hub: Hub, now_ms: Callable[[], int], plain: PlainTopics | None = None
    ) -> None:
        self.now_ms: Final = now_ms
        self.on_expired: Callable[[str, StreamRow], None] | None = None
        self.answers_at_once = True
        self._hub: Final = hub
        self._plain: Final = plain
        self._touched: Final[dict[str, int]] = {}

    def find(self, topic: str, done: Callable[[StreamRow | FastsseError], None]) -> None:
        """Calls `done` with the row of a stream, StreamMissing or StreamGone."""
        self._hub.find_streams((topic,), lambda rows: self._found(topic, rows, done))

    def find_readable(self, topic: str, done: Callable[[StreamRow | FastsseError], None]) -> None:
        """As `find`, and with a row for a topic that was not created as a stream, if such are
        served."""
        plain = self._plain
        is_within = True

        def found(rows: dict[str, StreamRow] | FastsseError) -> None:
            self.answers_at_once = is_within
            if plain is None or isinstance(rows, FastsseError) or topic in rows:
                self._found(topic, rows, done)
            else:
                plain.find(topic, done)

        self._hub.find_streams((topic,), found)
        is_within = False

    def _found(
        self,
        topic: str,
        rows: dict[str, StreamRow] | FastsseError,
        done: Callable[[StreamRow | FastsseError], None],
    ) -> None:
        if isinstance(rows, FastsseError):
            done(rows)
            return
        row = rows.get(topic)
        if row is None or (row.is_expired(self.now_ms()) and not row.is_hidden):
            if row is not None and self.on_expired is not None:
                self.on_expired(topic, row)
            done(StreamMissing(f"There is no stream {topic}."))
        elif row.is_hidden:
            done(StreamGone(f"The stream {topic} was deleted; forks of it remain."))
        else:
            done(row)

    def find_here(
        self, topic: str, row: StreamRow, done: Callable[[StreamRow | FastsseError], None]
    ) -> None:
        """Calls `done`, within the call, with `row` updated by the entries that this worker has
        received since."""
        history = self._hub.history
        kept = history.topics.by_name.get(topic)
        if kept is None or kept.log is None:
            done(row)
            return
        tail = row.tail
        for frame in kept.log.after(max(row.tail, row.generation)):
            if frame.events:
                tail = frame.position
        done(row._replace(tail=tail, closed=row.closed or kept.ended_at))

    def touch(self, topic: str, row: StreamRow) -> None:
        """Records that a stream with a time to live was read. O(1)."""
        ttl_s = row.config.ttl_s
        if ttl_s is None:
            return
        now_ms = self.now_ms()
        newest_ms = max(row.touched_ms, self._touched.get(topic, 0))
        if now_ms - newest_ms >= ttl_s * 1000 // _TOUCHES:
            if len(self._touched) >= _TOUCHED_MAX:
                self._touched.clear()
            self._touched[topic] = now_ms
            self._hub.touch_stream(topic, row.generation)
