"""The Redis backbone: one stream is the log of all nodes.

Three connections, each with one owner and one task: one appends, one follows, one reads. Order
comes from the stream alone, and every node delivers what it reads there, its own events too.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from fastsse._batch import has_control
from fastsse.backbone import Broken, Deliver, Done, Ended, FoundStreams, Placed, Stretched
from fastsse.backbone.redis.followed_rows import FollowedRows
from fastsse.backbone.redis.follower import LogEnd, RedisFollower, find_end
from fastsse.backbone.redis.reader import RedisReader, wanted_position
from fastsse.backbone.redis.retention import RedisRetention
from fastsse.backbone.redis.writer import Key, RedisWriter
from fastsse.backbone.stream_expiry import LOOKS, deletion_of, deletions
from fastsse.config import Config, HistoryOptions
from fastsse.entries import Entry
from fastsse.errors import FastsseError, Unavailable
from fastsse.events import Event
from fastsse.log import get_logger
from fastsse.positions import now_ms
from fastsse.redis.connection import RedisAddress, RedisConnection
from fastsse.redis.errors import AnswerLost, RedisRefusal
from fastsse.redis.health import Health
from fastsse.redis.keys import Keys
from fastsse.redis.memory import MemoryWatch, read_info
from fastsse.redis.opening import ask_when_ready
from fastsse.streamstate import StreamRow
from fastsse.subscriptions import Cursor

__all__ = ["COUNTS", "Attached", "RedisBackbone", "open_redis"]

log = get_logger("redis")
COUNTS: Final = (
    "redis_reconnects",
    "redis_resent",
    "redis_repeats",
    "redis_refused",
    "redis_entries_damaged",
    "redis_entries_skipped",
    "redis_index_failures",
    "redis_gaps_lost",
    "redis_gaps_trimmed",
    "redis_gaps_flushed",
    "redis_gaps_damaged",
    "redis_gaps_failed",
)
# SET with GET and PX, and MINID, exist since this version.
OLDEST_VERSION: Final = (6, 2)
# How long a resume waits until this node reaches a position that another node gave out.
REACH_S: Final = 2.0
RETRY_AFTER_S: Final = 2


class Attached(Protocol):
    """A part that lives as long as the log is followed."""

    async def run(self) -> None:
        """Works until it is cancelled."""

    async def close(self) -> None:
        """Ends its connections."""


async def open_redis(url: str, config: Config) -> "RedisBackbone":
    """Opens the log, and creates it if there is none.

    Waits up to `redis_start` for a Redis that is away or loading. Raises FastsseError, whose text
    says what is wrong, if Redis is still away then, refuses the connection, or is too old.
    """
    address = RedisAddress(url, config.redis_timeout)
    keys = Keys(config.redis_stream)

    async def find(link: RedisConnection) -> tuple[LogEnd, bool]:
        await _look_at(link, may_evict=config.redis_may_evict)
        return await find_end(link, keys, 0), bool(await link.call(b"EXISTS", keys.ends))

    end, has_ended = await ask_when_ready(address, config.redis_start, find)
    return RedisBackbone(config, address, keys, end, has_ended=has_ended)


async def _look_at(link: RedisConnection, *, may_evict: bool) -> None:
    """Refuses a Redis that is too old, or that may evict history unless that is allowed. A user
    without the right to INFO is not refused."""
    try:
        info = read_info(await link.call(b"INFO"))
    except RedisRefusal as refusal:
        if refusal.code != "NOPERM":
            raise
        return
    version = tuple(int(part) for part in info["redis_version"].split(".")[:2])
    if version < OLDEST_VERSION:
        raise FastsseError(f"Redis {info['redis_version']} is too old: 6.2 or later is needed")
    if info.get("maxmemory", "0") != "0" and info.get("maxmemory_policy") != "noeviction":
        policy = info.get("maxmemory_policy")
        if not may_evict:
            raise FastsseError(
                f"Redis may evict history: its maxmemory-policy is {policy}. Set noeviction, or "
                "allow losses with redis_may_evict."
            )
        log.warning(
            "Redis may evict history: maxmemory_policy should be noeviction.", policy=policy
        )


class RedisBackbone:
    """A node's side of the log. Made by `open_redis`.

    Attributes:
        has_ended: as Backbone: a topic had ended when the log was opened, or has since.
        followed_streams: the rows of all streams, for the node that needs them.
    """

    judges_each = False
    append_now = None

    def __init__(
        self,
        config: Config,
        address: RedisAddress,
        keys: Keys,
        end: LogEnd,
        *,
        has_ended: bool = False,
    ) -> None:
        retention = RedisRetention(config, config.redis_events)
        self._retention: Final = retention
        self.start: Final = end.position
        self._health = health = Health()
        self._keys = keys
        self._reader = RedisReader(address, keys, retention, health)
        self.followed_streams: Final = FollowedRows(self._reader.some_streams, self._catch_up)
        self._tail = RedisFollower(address, keys, end, health)
        self._appender = RedisWriter(
            address, keys, retention, config.redis_wait, health, self._tail
        )
        self._attached: Attached | None = None
        self._memory = MemoryWatch(address)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        # Batches that delete expired streams, and where the next look for such streams begins.
        self._expired: list[list[Event]] = []
        self._stream_cursor = b"0"
        self._is_looking = False
        self.has_ended = has_ended

    @property
    def head(self) -> int:
        """The last position that this node has delivered or passed over."""
        return self._tail.head

    @property
    def trouble(self) -> str | None:
        """What is wrong with Redis."""
        return "closed" if self._is_closed else self._health.trouble

    def attach(self, part: Attached) -> None:
        """Runs `part` from `tail` on, and closes it with the log. Once, before `tail`."""
        self._attached = part

    def tail(self, after: int, deliver: Deliver, broken: Broken) -> None:
        """Delivers everything after the place where the log was opened."""

        def note_and_deliver(entries: Sequence[Entry]) -> None:
            self.has_ended |= has_control(entries)
            deliver(entries)
            self.followed_streams.note(entries)

        def read_again_and_break(why: str, through: int) -> None:
            broken(why, through)
            if self.followed_streams.is_followed:
                self._answer(self.followed_streams.load(), lambda _: None)

        self._spawn(self._tail.follow(note_and_deliver, read_again_and_break))
        self._spawn(self._appender.run())
        self._spawn(self._memory.run())
        if self._attached is not None:
            self._spawn(self._attached.run())

    def append(self, events: Sequence[Event], done: Done, key: Key | None = None) -> None:
        """Sends a batch. `done` is called when this node has read the batch back from the log, or
        after `redis_timeout`.

        A batch whose key was stored within the last hour is not stored again: `done` gets the
        positions of the first time.
        """
        if self._is_closed:
            done(Unavailable("backbone", RETRY_AFTER_S))
        else:
            self._appender.append(events, done, key)

    def read(
        self, selectors: tuple[str, ...], after: int, limit_bytes: int, done: Stretched
    ) -> None:
        """Reading exact topics costs O(read). Templates and `*` also cost the entries between."""
        self._answer(self._reader.read(selectors, after, self.head, limit_bytes), done)

    def read_stream(self, topic: str, after: int, limit_bytes: int, done: Stretched) -> None:
        """As `read`."""
        self.read((topic,), after, limit_bytes, done)

    def read_content(self, topic: str, after: int, limit_bytes: int, done: Stretched) -> None:
        """As `read`."""
        self.read((topic,), after, limit_bytes, done)

    def seek(self, selectors: tuple[str, ...], cursor: Cursor, done: Placed) -> None:
        """An own id is one look-up, O(1); `last` N reads N ids of each topic."""
        self._answer(self._seek(selectors, cursor), done)

    def newest(
        self, selectors: tuple[str, ...], count: int, limit_bytes: int, done: Stretched
    ) -> None:
        """One script for exact topics; templates and `*` look at the common stream."""
        self._answer(self._reader.newest(selectors, self.head, count, limit_bytes), done)

    def ended_topics(self, topics: tuple[str, ...], done: Ended) -> None:
        """One look-up for all, O(topics)."""
        self._answer(self._reader.ended_topics(topics, self.head), done)

    def find_streams(self, topics: tuple[str, ...], done: FoundStreams) -> None:
        """One look-up for all, and the time until this node has what the rows know of."""
        self._answer(self._find_streams(topics), done)

    async def _find_streams(self, topics: tuple[str, ...]) -> dict[str, StreamRow]:
        rows = await self._reader.streams(topics)
        newest = max(
            [max(row.generation, row.tail, row.closed) for row in rows.values()], default=0
        )
        if not await self._tail.reached(newest, REACH_S):
            raise AnswerLost("the log does not arrive here")
        return rows

    async def _catch_up(self) -> bool:
        return await self._tail.reached(await self._reader.log_end(), REACH_S)

    def touch_stream(self, topic: str, generation: int) -> None:
        """One script."""
        self._answer(self._reader.touch_stream(topic, generation), lambda _: None)

    def expired_streams(self) -> Sequence[Sequence[Event]]:
        """What the last look has found; begins the next one: one HSCAN."""
        found, self._expired = self._expired, []
        if not self._is_looking:
            self._is_looking = True
            self._answer(self._look_for_expired(), self._on_looked)
        return found

    async def _look_for_expired(self) -> None:
        self._stream_cursor, rows = await self._reader.some_streams(self._stream_cursor, LOOKS)
        unneeded = {
            topic: row._replace(is_hidden=False)
            for topic, row in rows.items()
            if row.is_hidden and not row.forks
        }
        self._expired = deletions(rows.items(), rows.get, now_ms())
        self._expired += [deletion_of(*one, rows.get) for one in unneeded.items()]

    def _on_looked(self, _: FastsseError | None) -> None:
        self._is_looking = False

    def apply_rules(self, history: HistoryOptions) -> None:
        """As Backbone. Entries that are stored already keep the age that they were stored with."""
        self._retention.apply_rules(history)

    def counters(self) -> dict[str, int]:
        """Counters of the connection between this node and Redis."""
        return {name: self._health.counts[name] for name in COUNTS} | self._memory.counters()

    async def close(self) -> None:
        """Refuses what is pending and ends all connections."""
        self._is_closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._reader.close()
        if self._attached is not None:
            await self._attached.close()

    async def _seek(self, selectors: tuple[str, ...], cursor: Cursor) -> int | None:
        if cursor.kind == "last":
            assert isinstance(cursor.value, int)
            return await self._reader.before_newest(selectors, self.head, cursor.value)
        if cursor.kind == "since":
            assert isinstance(cursor.value, int)
            return await self._reader.place_at(cursor.value)
        position = wanted_position(cursor)
        if position is None:
            position = await self._reader.find(cursor.text)
        if position is None or not await self._tail.reached(position, REACH_S):
            return None
        return position

    def _answer(self, question: Coroutine[Any, Any, Any], done: Callable[[Any], None]) -> None:
        """Calls `done` with the answer of a query."""

        async def ask() -> None:
            try:
                answer = await question
            except (AnswerLost, RedisRefusal) as fault:
                log.warning("History can't be read.", why=str(fault))
                answer = Unavailable("backbone", RETRY_AFTER_S)
            except asyncio.CancelledError:
                answer = Unavailable("backbone", RETRY_AFTER_S)
            done(answer)

        self._spawn(ask())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
