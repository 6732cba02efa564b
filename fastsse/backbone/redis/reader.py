"""Reading: what the log stores of topics, page by page, for subscribers that resume.

Each topic has its own list next to the stream that nodes follow, with the same ids, trimmed as
its rule says. Exact topics are read there, so a page costs only its own entries. Templates and `*`
are read from the common stream. They also cost the events between, and the stream keeps
`redis_events` events of all topics.

Each event of a topic's list names the one before it. So the oldest stored event shows exactly up to
where events are missing, and a quiet topic causes no false gap.

Over 400 lines: all reads of the log have the same steps.
"""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from itertools import count
from typing import Any, Final

from fastsse.backbone import SNAPSHOT_EVENTS_MAX, Stretch, newest_within
from fastsse.backbone.redis.codec import (
    BLANK_RECORD,
    DamagedRecord,
    decode_record,
    id_at,
    is_control_record,
    parse_entry,
    place_of,
)
from fastsse.backbone.redis.log_scripts import NEWEST, NEWEST_EVENTS, PAGE, TOUCH
from fastsse.backbone.redis.retention import RedisRetention
from fastsse.entries import Entry, encode_entries
from fastsse.events import Event, as_header_value
from fastsse.evicted import Evicted, Step, steps_of
from fastsse.positions import parse_id, position_at
from fastsse.redis.connection import RedisAddress, RedisConnection
from fastsse.redis.health import Health, SkipLog
from fastsse.redis.keys import Keys
from fastsse.selectors import compile_selector
from fastsse.streamstate import StreamRow
from fastsse.subscriptions import Cursor

__all__ = ["RedisReader"]

# Topics of one script call, because Redis does nothing else during a script.
TOPICS_AT_ONCE: Final = 200
SCAN_COUNT: Final = 200
# Events of the common stream that a snapshot of a template looks at.
SNAPSHOT_SCAN_MAX: Final = 20_000
BUDGET_BYTES_MIN: Final = 4 * 1024

Found = dict[int, bytes]

# How often a page is scanned again because entries were trimmed meanwhile.
SCANS_MAX: Final = 3
# Topics whose last seen eviction is remembered; about 250 bytes each.
OBSERVED_MAX: Final = 100_000


class _Observed:
    """When evictions were first seen. Redis evicts by itself and only reports up to which place. A
    clock counts reads, and each read of a topic notes where its evictions end. So a later eviction
    has a later reading of the clock."""

    def __init__(self) -> None:
        # Higher than every reading of an earlier process.
        self._clock = time.monotonic_ns()
        self._steps: OrderedDict[bytes | None, Step] = OrderedDict()

    def tick(self) -> int:
        """The clock's reading for a read."""
        self._clock += 1
        return self._clock

    def note(self, topic: bytes | None, through: int) -> Step:
        """Notes that a topic has evicted its events up to a place. None: the common stream."""
        step = self._steps.get(topic)
        if step is None or step[1] != through:
            step = self._steps[topic] = self._clock, through
        self._steps.move_to_end(topic)
        if len(self._steps) > OBSERVED_MAX:
            self._steps.popitem(last=False)
        return step


class RedisReader:
    """Reads the log on a connection of its own, opened when it is first needed.

    Arguments:
        address, keys: where the log is.
        retention: says how long things are known.
        health: counts what is skipped.
    """

    def __init__(
        self, address: RedisAddress, keys: Keys, retention: RedisRetention, health: Health
    ) -> None:
        self._address = address
        self._keys = keys
        self._retention = retention
        self._health = health
        self._skips = SkipLog()
        self._observed = _Observed()
        self._link: RedisConnection | None = None
        self._opening = asyncio.Lock()

    async def read(
        self, selectors: tuple[str, ...], after: int, through: int, limit_bytes: int
    ) -> Stretch:
        """A page of the entries after one place and up to another, which this node has delivered.
        Raises AnswerLost or Refusal."""
        link = await self._usable_link()
        if _all_exact(selectors):
            return await self._read_topics(link, selectors, after, through, limit_bytes)
        return await self._scan(link, selectors, after, through, limit_bytes)

    async def find(self, own_id: bytes) -> int | None:
        """The position of the earliest event with this id. Raises AnswerLost or Refusal."""
        link = await self._usable_link()
        found = await link.call(b"GET", self._keys.own_id(as_header_value(own_id)))
        return None if found is None else place_of(found)

    async def streams(self, topics: Sequence[str]) -> dict[str, StreamRow]:
        """The rows of those topics that are durable streams. Raises AnswerLost or Refusal."""
        link = await self._usable_link()
        names = [topic.encode() for topic in topics]
        found = await link.call(b"HMGET", self._keys.streams, *names)
        pairs = zip(topics, found, strict=True)
        return {topic: StreamRow.decode(row) for topic, row in pairs if row is not None}

    async def some_streams(self, cursor: bytes, count: int) -> tuple[bytes, dict[str, StreamRow]]:
        """The rows of about so many durable streams behind a cursor of HSCAN, b"0" at first and
        at the end. Raises AnswerLost or Refusal."""
        link = await self._usable_link()
        after, found = await link.call(
            b"HSCAN", self._keys.streams, cursor, b"COUNT", b"%d" % count
        )
        pairs = zip(found[::2], found[1::2], strict=True)
        return after, {topic.decode(): StreamRow.decode(row) for topic, row in pairs}

    async def log_end(self) -> int:
        """Where the log ends; 0 when there is none. Raises AnswerLost or Refusal."""
        link = await self._usable_link()
        newest = await link.call(b"GET", self._keys.newest)
        return 0 if newest is None else place_of(newest.rpartition(b" ")[2])

    async def touch_stream(self, topic: str, generation: int) -> None:
        """Notes that a durable stream was read now. Raises AnswerLost or Refusal."""
        link = await self._usable_link()
        await link.run(TOUCH, [self._keys.streams], topic.encode(), id_at(generation))

    async def ended_topics(self, topics: Sequence[str], through: int) -> dict[str, int]:
        """Those of the topics that ended up to a place, each with its position. Raises AnswerLost
        or Refusal."""
        link = await self._usable_link()
        keys = [self._keys.ended(topic.encode()) for topic in topics]
        found = await link.call(b"MGET", *keys)
        pairs = zip(topics, found, strict=True)
        ends = {topic: place_of(end) for topic, end in pairs if end is not None}
        # What lies above comes down the log.
        return {topic: end for topic, end in ends.items() if end <= through}

    async def place_at(self, time_ms: int) -> int:
        """The place after which events of a unix millisecond and later lie, by Redis's clock.
        Raises AnswerLost or Refusal."""
        link = await self._usable_link()
        newest_before = await link.call(
            b"ZREVRANGEBYSCORE", self._keys.times, b"(%d" % time_ms, b"-inf", b"LIMIT", 0, 1
        )
        marked = place_of(newest_before[0]) if newest_before else 0
        return max(position_at(time_ms), marked)

    async def before_newest(
        self, selectors: tuple[str, ...], through: int, count: int
    ) -> int | None:
        """The place before the newest `count` events, None when there are fewer. Raises AnswerLost
        or Refusal."""
        if count == 0:
            return through
        link = await self._usable_link()
        if _all_exact(selectors):
            newest = await self._newest(link, selectors, through, count)
        else:
            newest = await self._scan_newest(link, selectors, through, count)
        return newest[-1] - 1 if len(newest) == count else None

    async def newest(
        self, selectors: tuple[str, ...], through: int, count: int, limit_bytes: int
    ) -> Stretch:
        """The newest events of each matching topic up to a place. As `Backbone.newest`. Of
        templates and `*` only the newest SNAPSHOT_SCAN_MAX events of the common stream are looked
        at. Raises AnswerLost or Refusal."""
        link = await self._usable_link()
        if _all_exact(selectors):
            names: frozenset[str] | None = frozenset(selectors)
            found, are_all = await self._newest_events(link, selectors, through, count, limit_bytes)
        else:
            names = None
            found, are_all = await self._scan_newest_of_each(link, selectors, through, count)
        entries: list[Entry] = []
        for position in sorted(found):
            read = self._read_record(position, found[position], names)
            if isinstance(read, tuple):
                entries += encode_entries([position], [read[0]], [read[1]])
        stretch = newest_within(entries, limit_bytes, through)
        return stretch._replace(is_last=stretch.is_last and are_all)

    async def close(self) -> None:
        """Ends its connection."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _usable_link(self) -> RedisConnection:
        async with self._opening:
            if self._link is not None and not self._link.is_open:
                await self.close()
            if self._link is None:
                self._link = await RedisConnection.open(self._address)
            return self._link

    # ---- topics ---------------------------------------------------------------------------------

    async def _read_topics(
        self,
        link: RedisConnection,
        topics: Sequence[str],
        after: int,
        through: int,
        limit_bytes: int,
    ) -> Stretch:
        budget_bytes = max(BUDGET_BYTES_MIN, 2 * limit_bytes // len(topics))
        found: Found = {}
        evictions: list[Step] = []
        clock = begins = unknown = known_through = 0
        horizon = through
        for first in range(0, len(topics), TOPICS_AT_ONCE):
            names = [topic.encode() for topic in topics[first : first + TOPICS_AT_ONCE]]
            now_ms, floor, *answers = await link.run(
                PAGE, [self._keys.floor, self._keys.newest, self._keys.lost], self._keys.prefix,
                id_at(after), id_at(through), budget_bytes, self._retention.mark_ms, *names,
            )  # fmt: skip
            clock = clock or self._observed.tick()
            begins = place_of(floor)
            unknown = max(begins, position_at(int(now_ms) - self._retention.mark_ms))
            for name, (gone, is_whole, flat) in zip(names, answers, strict=True):
                gone_through = max(begins, place_of(gone)) if gone else unknown
                known_through = max(known_through, gone_through if gone else 0)
                evictions.append(self._observed.note(name, gone_through))
                pairs = dict(zip(map(place_of, flat[::2]), flat[1::2], strict=True))
                if not is_whole and pairs:
                    horizon = min(horizon, max(pairs))
                found |= pairs
        if known_through <= begins:
            # The other topics have never had an event, as far as is known.
            begins = max(begins, unknown)
        evicted = Evicted(clock, steps_of([step for step in evictions if step[1] > after]), begins)
        wanted = frozenset(topics)
        return self._stretch(found, horizon, horizon == through, evicted, limit_bytes, wanted)

    def _stretch(
        self,
        found: Found,
        horizon: int,
        is_last: bool,
        evicted: Evicted,
        limit_bytes: int,
        names: frozenset[str] | None = None,
    ) -> Stretch:
        """The events up to a horizon: as many as the bytes allow, at least one. A damaged event
        ends the page, or is skipped at its beginning. With `names`, only events of these topics are
        valid."""
        positions: list[int] = []
        events: list[Event] = []
        times: list[int] = []
        damaged_through = 0
        for position in sorted(found):
            if position > horizon:
                break
            record = found[position]
            if record == BLANK_RECORD:
                continue
            limit_bytes -= len(record)
            if limit_bytes < 0 and positions:
                horizon, is_last = positions[-1], False
                break
            read = self._read_record(position, record, names)
            if isinstance(read, tuple):
                positions.append(position)
                events.append(read[0])
                times.append(read[1])
            elif read and positions:
                horizon, is_last = position - 1, False
                break
            elif read:
                damaged_through = position
        entries = encode_entries(positions, events, times)
        return Stretch(entries, horizon, is_last, evicted, damaged_through)

    def _read_record(
        self, position: int, record: bytes, names: frozenset[str] | None
    ) -> tuple[Event, int] | bool:
        """An event and its time. Otherwise whether the record is a lost event (True), or not of
        fastsse."""
        try:
            event, time_ms = decode_record(position, record)
            if names is None or not names.isdisjoint(event.topics):
                return event, time_ms
            why = "it has another topic"
        except ValueError as error:
            why = str(error)
            if names is None and not isinstance(error, DamagedRecord):
                now_s = asyncio.get_running_loop().time()
                self._health.skipped(id_at(position), why, self._skips, now_s)
                return False
        now_s = asyncio.get_running_loop().time()
        self._health.damaged(id_at(position), why, self._skips, now_s)
        return True

    async def _newest(
        self, link: RedisConnection, topics: Sequence[str], through: int, most: int
    ) -> list[int]:
        found: set[int] = set()
        for first in range(0, len(topics), TOPICS_AT_ONCE):
            names = [topic.encode() for topic in topics[first : first + TOPICS_AT_ONCE]]
            found |= set(
                map(
                    place_of,
                    await link.run(NEWEST, [], self._keys.prefix, id_at(through), most, *names),
                )
            )
        return sorted(found, reverse=True)[:most]

    async def _newest_events(
        self,
        link: RedisConnection,
        topics: Sequence[str],
        through: int,
        most: int,
        limit_bytes: int,
    ) -> tuple[Found, bool]:
        found: Found = {}
        for first in range(0, len(topics), TOPICS_AT_ONCE):
            names = [topic.encode() for topic in topics[first : first + TOPICS_AT_ONCE]]
            room_bytes = limit_bytes - sum(map(len, found.values()))
            is_enough, *flat = await link.run(
                NEWEST_EVENTS, [], self._keys.prefix, id_at(through), most, room_bytes, *names
            )
            found |= zip(map(place_of, flat[::2]), flat[1::2], strict=True)
            if not is_enough:
                return found, False
        return found, True

    # ---- everything -----------------------------------------------------------------------------

    async def _scan(
        self,
        link: RedisConnection,
        selectors: Sequence[str],
        after: int,
        through: int,
        limit_bytes: int,
    ) -> Stretch:
        begins, gone_through = await self._trimmed(link)
        for left in reversed(range(SCANS_MAX)):
            page = await self._scanned(link, selectors, after, through, limit_bytes)
            gone_before, (begins, gone_through) = gone_through, await self._trimmed(link)
            # Entries that are trimmed during the scan may be missing or present.
            if gone_through == gone_before or gone_through <= after or not left:
                break
        clock = self._observed.tick()
        step = self._observed.note(None, gone_through)
        evicted = Evicted(clock, (step,) if gone_through > after else (), begins)
        return self._stretch(*page, evicted, limit_bytes)

    async def _trimmed(self, link: RedisConnection) -> tuple[int, int]:
        """Where the common stream begins, and through where it was trimmed."""
        floor, lost, oldest = await link.calls(
            [
                (b"GET", self._keys.floor),
                (b"GET", self._keys.lost),
                (b"XRANGE", self._keys.stream, b"-", b"+", b"COUNT", 1),
            ]
        )
        begins = place_of(floor or b"0-0")
        return begins, max(_gone_through(begins, oldest), place_of(lost or b"0-0"))

    async def _scanned(
        self,
        link: RedisConnection,
        selectors: Sequence[str],
        after: int,
        through: int,
        limit_bytes: int,
    ) -> tuple[Found, int, bool]:
        """The matching records, the place up to which they are complete, and whether that is the
        end."""
        found: Found = {}
        size_bytes, place = 0, after
        for step in count():
            size = min(2 + 4 * step, SCAN_COUNT)
            rows = await link.call(
                b"XRANGE", self._keys.stream, b"(" + id_at(place), id_at(through), b"COUNT", size
            )
            kept = await self._not_erased(link, _all_matching(rows, selectors))
            found |= kept
            size_bytes += sum(map(len, kept.values()))
            if rows:
                place = place_of(rows[-1][0])
            if len(rows) < size:
                return found, through, True
            if size_bytes >= limit_bytes:
                return found, place, place == through
        raise AssertionError

    async def _not_erased(self, link: RedisConnection, found: Found) -> Found:
        """Those that were not deleted: entries of the stream can't be changed, so what is deleted
        of them is noted apart. One look-up if nothing was."""
        if not found or not await link.call(b"EXISTS", self._keys.erased):
            return found
        topics = {at: _topics_of(at, record) for at, record in found.items()}
        names = sorted({name for some in topics.values() for name in some})
        fields = [b"i" + id_at(at) for at in found] + [b"t" + name.encode() for name in names]
        marks = await link.call(b"HMGET", self._keys.erased, *fields)
        ids = {at for at, mark in zip(found, marks, strict=False) if mark is not None}
        purged = {
            name: place_of(mark)
            for name, mark in zip(names, marks[len(found) :], strict=True)
            if mark is not None
        }
        return {
            at: record
            for at, record in found.items()
            if is_control_record(record)
            or not (at in ids or any(at <= purged.get(name, 0) for name in topics[at]))
        }

    async def _scan_newest_of_each(
        self, link: RedisConnection, selectors: Sequence[str], through: int, most: int
    ) -> tuple[Found, bool]:
        compiled = [compile_selector(text) for text in selectors]
        found: Found = {}
        taken: Counter[str] = Counter()
        place = id_at(through)
        for _ in range(SNAPSHOT_SCAN_MAX // SCAN_COUNT):
            rows = await link.call(
                b"XREVRANGE", self._keys.stream, place, b"-", b"COUNT", SCAN_COUNT
            )
            kept = await self._not_erased(link, _all_matching(rows, selectors))
            for position, record in kept.items():
                topics = _topics_of(position, record)
                wanted = [one for one in topics if any(text.matches(one) for text in compiled)]
                if not is_control_record(record):
                    if any(taken[topic] < most for topic in wanted):
                        found[position] = record
                    taken.update(wanted)
            if len(rows) < SCAN_COUNT or len(found) > SNAPSHOT_EVENTS_MAX:
                return found, len(rows) < SCAN_COUNT
            place = b"(" + rows[-1][0]
        return found, False

    async def _scan_newest(
        self, link: RedisConnection, selectors: Sequence[str], through: int, most: int
    ) -> list[int]:
        newest: list[int] = []
        place = id_at(through)
        while len(newest) < most:
            rows = await link.call(
                b"XREVRANGE", self._keys.stream, place, b"-", b"COUNT", SCAN_COUNT
            )
            kept = await self._not_erased(link, _all_matching(rows, selectors))
            newest += [at for at, record in kept.items() if not is_control_record(record)]
            if len(rows) < SCAN_COUNT:
                break
            place = b"(" + rows[-1][0]
        return newest[:most]


def _all_matching(rows: Any, selectors: Sequence[str]) -> Found:
    """The records of those entries that a selector matches, in their order."""
    return {
        place_of(stream_id): record
        for stream_id, fields in rows
        if (record := _matching(stream_id, fields, selectors)) is not None
    }


def _topics_of(position: int, record: bytes) -> tuple[str, ...]:
    """The topics of an event; none when it is damaged, which its reader finds."""
    try:
        return decode_record(position, record)[0].topics
    except ValueError:
        return ()


def _all_exact(selectors: Sequence[str]) -> bool:
    return all(compile_selector(text).is_exact for text in selectors)


def _gone_through(floor: int, oldest: Any) -> int:
    """Up to where the common stream was trimmed. It was not while its first mark is there."""
    if not oldest:
        return floor
    first = place_of(oldest[0][0])
    return floor if first == floor else max(floor, first - 1)


def _matching(stream_id: bytes, fields: Sequence[bytes], selectors: Sequence[str]) -> bytes | None:
    """The record of an entry, if a selector matches it. The follower has counted invalid ones."""
    try:
        entry = parse_entry(stream_id, fields)
        if entry.mark:
            return None
        topics = decode_record(entry.position, entry.record)[0].topics
    except DamagedRecord:
        return fields[-1]  # It may match, so it is passed on, and its reader finds the damage.
    except ValueError:
        return None
    for text in selectors:
        selector = compile_selector(text)
        if any(map(selector.matches, topics)):
            return entry.record
    return None


def wanted_position(cursor: Cursor) -> int | None:
    """The position of an id that is a position, else None."""
    return parse_id(cursor.text)
