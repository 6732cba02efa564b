"""Deletes streams, and hidden streams whose last fork is gone."""

from collections.abc import Callable
from typing import Final

from fastsse.backbone.stream_expiry import control_event
from fastsse.errors import FastsseError, StreamChanged
from fastsse.events import Event
from fastsse.hub import Hub, Published
from fastsse.log import get_logger
from fastsse.streams.finding import StreamFinder
from fastsse.streams.requests import TRIES_MAX, PublishEvents, publish_safely
from fastsse.streamstate import StreamControl, StreamRow

__all__ = ["StreamRemover"]

log = get_logger("streams")


class StreamRemover:
    """Deletes streams. Loop thread only.

    Arguments:
        hub: knows the rows, and publishes.
        finder: finds them.
    """

    def __init__(self, hub: Hub, finder: StreamFinder) -> None:
        self._hub: Final = hub
        self._finder: Final = finder

    def delete(
        self,
        topic: str,
        publish: PublishEvents,
        done: Callable[[FastsseError | None], None],
        tries: int = TRIES_MAX,
    ) -> None:
        """Deletes a stream; one with forks is kept for them. `done` gets None, StreamMissing or
        StreamGone."""

        def found(row: StreamRow | FastsseError) -> None:
            if isinstance(row, FastsseError):
                done(row)
            else:
                self.drop(topic, row, publish, dropped)

        def dropped(error: FastsseError | None) -> None:
            if isinstance(error, StreamChanged) and tries:
                self.delete(topic, publish, done, tries - 1)
            else:
                done(error)

        self._finder.find(topic, found)

    def drop_expired(self, topic: str, row: StreamRow) -> None:
        """Deletes a stream that has expired. After a failure the next request tries again."""

        def dropped(error: FastsseError | None) -> None:
            if error is not None and not isinstance(error, StreamChanged):
                log.warning("An expired stream could not be deleted.", topic=topic)

        self.drop(topic, row, self._hub.publish, dropped)

    def drop(
        self,
        topic: str,
        row: StreamRow,
        publish: PublishEvents,
        done: Callable[[FastsseError | None], None],
    ) -> None:
        """Hides a stream that has forks. Drops a stream without forks, and hidden streams that it
        was the last fork of."""
        if row.forks:
            events = [control_event(topic, StreamControl("hide"), row.generation, "hide")]
            publish_safely(publish, events, lambda outcome: done(_error(outcome)))
            return
        events = [control_event(topic, StreamControl("drop"), row.generation, "drop")]

        def found(all_events: list[Event]) -> None:
            publish_safely(publish, all_events, lambda outcome: done(_error(outcome)))

        self._find_unneeded(row, events, found)

    def _find_unneeded(
        self, row: StreamRow, events: list[Event], done: Callable[[list[Event]], None]
    ) -> None:
        source = row.config.source
        if source is None:
            done(events)
            return

        def found(rows: dict[str, StreamRow] | FastsseError) -> None:
            above = None if isinstance(rows, FastsseError) else rows.get(source)
            is_unneeded = (
                above is not None
                and above.generation == row.config.source_generation
                and above.is_hidden
                and above.forks == 1
            )
            if above is None or not is_unneeded:
                done(events)
                return
            events.append(control_event(source, StreamControl("drop"), above.generation, "drop"))
            self._find_unneeded(above, events, done)

        self._hub.find_streams((source,), found)


def _error(outcome: Published | FastsseError) -> FastsseError | None:
    return outcome if isinstance(outcome, FastsseError) else None
