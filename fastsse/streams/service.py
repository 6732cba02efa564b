"""Durable streams: create, append, close, delete, read. The protocol without HTTP.

Each change is checked against the row of the stream, and published with the row's generation. If
the row has changed meanwhile, the process that orders events refuses it, and it is checked again.
"""

from collections.abc import Callable
from typing import Final

from fastsse.hub import Hub
from fastsse.streams.appending import StreamAppender
from fastsse.streams.creating import StreamCreator
from fastsse.streams.cursors import Cursors
from fastsse.streams.deleting import StreamRemover
from fastsse.streams.finding import StreamFinder
from fastsse.streams.plain import PlainTopics
from fastsse.streams.reading import ChunkRead, StreamReader
from fastsse.streams.tailing import StreamTails
from fastsse.streams.turns import ReadTurns
from fastsse.streams.waiting import Waiters
from fastsse.streamstate import StreamRow

__all__ = ["DurableStreams"]


class DurableStreams:
    """All streams, as one worker serves them. Loop thread only.

    Arguments:
        hub: orders, keeps and sends.
        poll_s: how long a long-poll waits.
        now_ms: unix milliseconds.
        serves_plain: whether topics that were not created as streams are readable.

    Attributes:
        turns: of readers that catch up.
        reader: reads pages.
        cursors: give the cursors of answers.
        waiters: long-polls that wait.
        tails: event streams that wait.
        finder: finds rows; find, find_readable, find_here and touch are its own.
        create, append, delete: of StreamCreator, StreamAppender and StreamRemover.
    """

    def __init__(
        self, hub: Hub, poll_s: float, now_ms: Callable[[], int], *, serves_plain: bool = False
    ) -> None:
        finder = StreamFinder(hub, now_ms, PlainTopics(hub) if serves_plain else None)
        remover = StreamRemover(hub, finder)
        finder.on_expired = remover.drop_expired
        self.turns: Final = ReadTurns(self._is_live)
        self.reader: Final = StreamReader(hub.history, hub, self.turns)
        self.cursors: Final = Cursors(now_ms)
        self.waiters: Final = Waiters(poll_s)
        self.tails: Final = StreamTails(hub, self.cursors, self.waiters, finder.touch)
        self.finder: Final = finder
        self.find: Final = finder.find
        self.find_readable: Final = finder.find_readable
        self.find_here: Final = finder.find_here
        self.touch: Final = finder.touch
        self.create: Final = StreamCreator(hub, self.reader, remover, now_ms).create
        self.append: Final = StreamAppender(finder).append
        self.delete: Final = remover.delete
        hub.on_content = self.tails.on_entries
        hub.on_sweep = self.sweep
        self._hub: Final = hub

    def close(self) -> None:
        """Answers the long-polls that wait."""
        self.waiters.close()
        self.turns.close()

    def sweep(self) -> None:
        """Deletes some of the streams that have expired, and records that tails are read. Call it
        about once a second. O(tails)."""
        self.tails.sweep()
        for batch in self._hub.expired_streams():
            # What is refused is tried again in the next turn.
            self._hub.publish(batch, lambda outcome: None)

    def counters(self) -> dict[str, int]:
        """Its counters, by the names of the metrics."""
        return {"streams_waiting": self.waiters.count, "streams_tailed": len(self.tails)}

    def read(self, topic: str, row: StreamRow, after: int, done: ChunkRead) -> None:
        """As StreamReader, in its turn. Counts as a read for the time to live."""
        self.touch(topic, row)
        self.turns.take(lambda: self.reader.read(topic, row, after, done))

    def read_new(self, topic: str, row: StreamRow, after: int, done: ChunkRead) -> None:
        """As `read`, without a turn: for a long-poll that a new event has woken, whose page is what
        is new."""
        self.touch(topic, row)
        self.reader.read(topic, row, after, done)

    def _is_live(self) -> bool:
        return len(self._hub.channels) > 0 or self.waiters.count > 0
