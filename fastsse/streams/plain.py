"""Topics that were not created as streams, to readers of the protocol (option `streams_plain`)."""

from collections.abc import Callable
from typing import Final

from fastsse.backbone import Stretch
from fastsse.errors import FastsseError
from fastsse.hub import Hub
from fastsse.reserved import is_reserved
from fastsse.streams.requests import StreamMissing
from fastsse.streamstate import Segment, StreamConfig, StreamRow

__all__ = ["PlainTopics"]

_CONTENT_TYPE: Final = "text/plain; charset=utf-8"


class PlainTopics:
    """Finds such topics. Loop thread only.

    A topic counts as private, because each of its events may be. It begins where its history does.

    Arguments:
        hub: knows the topics.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub: Final = hub

    def find(self, topic: str, done: Callable[[StreamRow | FastsseError], None]) -> None:
        """Calls `done` with a row as a stream has it, or StreamMissing when nothing of the topic is
        kept."""
        missing = StreamMissing(f"There is no stream {topic}.")

        def found(stretch: Stretch | FastsseError) -> None:
            if isinstance(stretch, FastsseError):
                done(stretch)
                return
            row = self._row(topic, stretch)
            done(missing if row is None else row)

        if is_reserved(topic):
            done(missing)
        else:
            self._hub.read_stored((topic,), 0, 1, found)

    def _row(self, topic: str, stretch: Stretch) -> StreamRow | None:
        history = self._hub.history
        kept = history.topics.by_name.get(topic)
        log = None if kept is None else kept.log
        if not stretch.entries and log is None:
            return None
        begin = max(stretch.evicted_through, stretch.damaged_through)
        if kept is not None and log is not None:
            begin = min(begin, kept.evicted_through)
        config = StreamConfig(
            _CONTENT_TYPE, private=True, segments=(Segment(topic, begin, history.head),)
        )
        return StreamRow(0, config, history.head, 0 if kept is None else kept.ended_at)
