"""Live tails: event streams and long-polls that wait for appends."""

from collections.abc import Callable, Sequence
from typing import Final

from fastsse.directives import END
from fastsse.entries import Entry
from fastsse.hub import Hub
from fastsse.streamoffsets import format_offset
from fastsse.streams.content import control_block, data_block
from fastsse.streams.cursors import Cursors
from fastsse.streams.waiting import Waiters
from fastsse.streamstate import StreamRow

__all__ = ["StreamTails"]


class StreamTails:
    """Sends appends to the streams and long-polls that wait for them. Loop thread only.

    Arguments:
        hub: has the tails, and reports committed entries.
        cursors: give the cursors of answers.
        waiters: long-polls that wait.
        touch: records that a stream is read.

    Attributes:
        on_appended: called with the topic of each stream that has new content.
    """

    def __init__(
        self,
        hub: Hub,
        cursors: Cursors,
        waiters: Waiters,
        touch: Callable[[str, StreamRow], None],
    ) -> None:
        self.on_appended: Callable[[str], None] | None = None
        self._hub: Final = hub
        self._cursors: Final = cursors
        self._waiters: Final = waiters
        self._touch: Final = touch
        # Streams with an open tail, each with its row when the newest of them was opened.
        self._tailed: Final[dict[str, StreamRow]] = {}

    def __len__(self) -> int:
        return len(self._tailed)

    def name(self, topic: str, row: StreamRow) -> str:
        """The name of the tail of a stream (`hub/tails.py`)."""
        return f"{format_offset(row.generation)}:{topic}"

    def open(self, topic: str, row: StreamRow) -> None:
        """Call it before a tail of a stream opens. Its row may be older than what was sent to other
        tails since."""
        known = self._tailed.get(topic)
        if known is None or (known.generation, known.tail) < (row.generation, row.tail):
            self._tailed[topic] = row

    def sweep(self) -> None:
        """Records that tailed streams are read. Call it about once a second. O(tailed)."""
        for topic, row in list(self._tailed.items()):
            if self._hub.tails.find(self.name(topic, row)) is None:
                del self._tailed[topic]
            else:
                self._touch(topic, row)

    def on_entries(self, entries: Sequence[Entry]) -> None:
        """Committed entries: sends them to tails, and answers long-polls."""
        waiters, tailed, appended = self._waiters, self._tailed, self.on_appended
        if not tailed and not waiters.count and appended is None:
            return
        sent = False
        for entry in entries:
            for topic in entry.topics:
                if topic in tailed:
                    sent |= self._send(topic, tailed[topic], entry)
                if topic in waiters:
                    waiters.wake(topic)
                if appended is not None:
                    appended(topic)
        if sent:
            self._hub.tails.wake()

    def _send(self, topic: str, row: StreamRow, entry: Entry) -> bool:
        tail = self._hub.tails.find(self.name(topic, row))
        if tail is None:
            del self._tailed[topic]
            return False
        control = None if entry.extras is None else entry.extras.control
        if control is None:
            place = control_block(entry.position, self._cursors.after(None))
            block = data_block(row.config, (entry.frame,)) + place
            tail.send(block, entry.frame.time_ms)
            self._tailed[topic] = row._replace(tail=entry.position)
        elif control == END:
            tail.send(control_block(row.tail, "", is_closed=True), entry.frame.time_ms)
            tail.end()
        else:
            tail.end()
        return True
