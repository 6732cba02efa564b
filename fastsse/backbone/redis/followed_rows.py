"""The rows of all durable streams at one node: read from Redis once, then updated from the log.

Only the node that owns the subscriptions has them, because only it needs all of them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from fastsse.backoff import Backoff
from fastsse.entries import Entry
from fastsse.log import get_logger
from fastsse.redis.errors import AnswerLost, RedisRefusal
from fastsse.streamstate import StreamRow, read_stream_control

__all__ = ["FollowedRows"]

log = get_logger("redis")
# Rows of one answer of Redis.
_READ_AT_ONCE: Final = 500


class FollowedRows:
    """The end of each stream. Of a row only generation, configuration, tail and `is_hidden` are
    updated. Loop thread only.

    Arguments:
        some_streams: reads some rows behind a cursor, as `RedisReader.some_streams`.
        catch_up: waits until this node has read all that is in the log now; reports whether it has.

    Attributes:
        rows, on_changed: as `wakes.index.StreamRowsHere`.
        is_loaded: whether all rows were read.
    """

    def __init__(
        self,
        some_streams: Callable[[bytes, int], Awaitable[tuple[bytes, dict[str, StreamRow]]]],
        catch_up: Callable[[], Awaitable[bool]],
    ) -> None:
        self.rows: dict[str, StreamRow] = {}
        self.on_changed: Callable[[str, StreamRow | None], None] | None = None
        self.is_loaded = False
        self._some_streams: Final = some_streams
        self._catch_up: Final = catch_up
        self._is_wanted = False
        self._loading: Final = asyncio.Lock()
        # Entries of the log that came while rows are read.
        self._held: list[Entry] | None = None

    @property
    def is_followed(self) -> bool:
        """Whether the rows are needed; they may not be read yet."""
        return self._is_wanted

    async def load(self) -> None:
        """Reads all rows, and follows them from now on. Each that differs from what was known is
        reported. O(streams), in pages. Retries until it succeeds, until `forget` is called, or
        until it is cancelled."""
        self._is_wanted = True
        backoff = Backoff()
        async with self._loading:
            while self._is_wanted:
                await backoff.wait()
                try:
                    await self._load()
                    return
                except (AnswerLost, RedisRefusal) as fault:
                    log.warning("The streams can't be read for subscriptions.", why=str(fault))
                finally:
                    self._held = None

    async def _load(self) -> None:
        self._held = []
        rows: dict[str, StreamRow] = {}
        cursor = b""
        while cursor != b"0":
            cursor, found = await self._some_streams(cursor or b"0", _READ_AT_ONCE)
            rows |= found
        if not self._is_wanted:
            return
        before, self.rows = self.rows, rows
        held, self._held, self.is_loaded = self._held, None, True
        self.note(held)
        for topic in {*rows, *before}:
            row = rows.get(topic)
            if row != before.get(topic):
                self._report(topic, row)

    async def catch_up(self) -> bool:
        """Waits until the rows contain what was in the log before the call; reports if they do.
        Bounded in time."""
        try:
            return await self._catch_up()
        except (AnswerLost, RedisRefusal):
            return False

    def forget(self) -> None:
        """Drops the rows, and follows them no more."""
        self.rows, self._held = {}, None
        self.is_loaded = self._is_wanted = False

    def note(self, entries: Sequence[Entry]) -> None:
        """Updates the rows from entries of the log. A row that is newer than an entry stays.
        O(entries) while the rows are followed, else O(1)."""
        if self._held is not None:
            self._held += entries
        if self.is_loaded:
            for entry in entries:
                self._note_entry(entry)

    def _note_entry(self, entry: Entry) -> None:
        control = None if entry.extras is None else entry.extras.control
        if control is not None:
            self._note_control(entry, control)
            return
        for topic in entry.topics:
            row = self.rows.get(topic)
            if row is not None and row.tail < entry.position:
                self._set(topic, row._replace(tail=entry.position))

    def _note_control(self, entry: Entry, text: bytes) -> None:
        control = read_stream_control(text)
        if control is None:
            return
        topic, position = entry.topics[0], entry.position
        row = self.rows.get(topic)
        if row is not None and row.generation >= position:
            return
        if control.op == "create" and control.config is not None:
            config = control.config
            tail = position if config.source is None else config.fork_place
            self._set(topic, StreamRow(position, config, tail))
        elif row is not None and control.op == "hide":
            self._set(topic, row._replace(is_hidden=True))
        elif row is not None:
            del self.rows[topic]
            self._report(topic, None)

    def _set(self, topic: str, row: StreamRow) -> None:
        self.rows[topic] = row
        self._report(topic, row)

    def _report(self, topic: str, row: StreamRow | None) -> None:
        if self.on_changed is not None:
            self.on_changed(topic, row)
