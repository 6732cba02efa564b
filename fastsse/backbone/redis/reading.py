"""Reading: what the log stores of topics, page by page, for subscribers who come back.

Each topic has a list of its own beside the stream that nodes follow, with the same ids, trimmed as
its rule says. Exact topics are read there, so a page costs what it holds. Templates and `*` are
read from the common stream: what they cost is the events between, and it keeps as many events of
all topics as `redis_events` says.

Each event of a topic's list names the one before it. So the oldest that is left tells exactly
through where something is gone, and a quiet topic gives no false gap.
"""

import asyncio
from collections.abc import Sequence
from itertools import count
from typing import Any, Final

from fastsse.backbone import Stretch
from fastsse.backbone.redis.health import Health, SkipLog
from fastsse.backbone.redis.keys import Keys
from fastsse.backbone.redis.link import Address, Link
from fastsse.backbone.redis.records import decode_event, id_at, parse_entry, place_of
from fastsse.backbone.redis.retention import Retention
from fastsse.backbone.redis.scripts import NEWEST, PAGE
from fastsse.entries import encode_entries
from fastsse.events import Event, as_header_value
from fastsse.positions import parse_id, position_at
from fastsse.selectors import compile_selector
from fastsse.subscriptions import Cursor

__all__ = ["Reader"]

# Topics that one script looks at: Redis does nothing else meanwhile.
TOPICS_AT_ONCE: Final = 200
SCAN_COUNT: Final = 200
BUDGET_LEAST_BYTES: Final = 4 * 1024

Found = dict[int, bytes]


class Reader:
    """Reads the log on a connection of its own, opened when it is first needed.

    Arguments:
        address, keys: where the log is.
        retention: says how long things are known.
        health: counts what is skipped.
    """

    def __init__(self, address: Address, keys: Keys, retention: Retention, health: Health) -> None:
        self._address = address
        self._keys = keys
        self._retention = retention
        self._health = health
        self._skips = SkipLog()
        self._link: Link | None = None
        self._opening = asyncio.Lock()

    async def read(
        self, selectors: tuple[str, ...], after: int, through: int, limit_bytes: int
    ) -> Stretch:
        """A page of what lies after one place and up to another, which this node has delivered.
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

    async def before_newest(self, selectors: tuple[str, ...], through: int, count: int) -> int:
        """The place before the newest `count` events, before all when there are fewer; `through`
        when there is none. Raises AnswerLost or Refusal."""
        if count == 0:
            return through
        link = await self._usable_link()
        if _all_exact(selectors):
            newest = await self._newest(link, selectors, through, count)
        else:
            newest = await self._scan_newest(link, selectors, through, count)
        return newest[-1] - 1 if newest else through

    async def close(self) -> None:
        """Ends its connection."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _usable_link(self) -> Link:
        async with self._opening:
            if self._link is not None and not self._link.is_open:
                await self.close()
            if self._link is None:
                self._link = await Link.open(self._address)
            return self._link

    # ---- topics ---------------------------------------------------------------------------------

    async def _read_topics(
        self, link: Link, topics: Sequence[str], after: int, through: int, limit_bytes: int
    ) -> Stretch:
        budget_bytes = max(BUDGET_LEAST_BYTES, 2 * limit_bytes // len(topics))
        found: Found = {}
        gone_through, horizon = 0, through
        for first in range(0, len(topics), TOPICS_AT_ONCE):
            names = [topic.encode() for topic in topics[first : first + TOPICS_AT_ONCE]]
            now_ms, floor, *answers = await link.run(
                PAGE, [self._keys.floor], self._keys.prefix,
                id_at(after), id_at(through), budget_bytes, *names,
            )  # fmt: skip
            unknown = max(place_of(floor), position_at(int(now_ms) - self._retention.mark_ms))
            for gone, is_whole, flat in answers:
                gone_through = max(
                    gone_through, place_of(floor), place_of(gone) if gone else unknown
                )
                pairs = dict(zip(map(place_of, flat[::2]), flat[1::2], strict=True))
                if not is_whole and pairs:
                    horizon = min(horizon, max(pairs))
                found |= pairs
        return self._stretch(found, horizon, horizon == through, gone_through, limit_bytes)

    def _stretch(
        self, found: Found, horizon: int, is_last: bool, gone_through: int, limit_bytes: int
    ) -> Stretch:
        """The events up to a horizon, as many as the bytes allow, at least one."""
        positions: list[int] = []
        events: list[Event] = []
        for position in sorted(found):
            if position > horizon:
                break
            record = found[position]
            limit_bytes -= len(record)
            if limit_bytes < 0 and positions:
                horizon, is_last = positions[-1], False
                break
            event = self._event(position, record)
            if event is not None:
                positions.append(position)
                events.append(event)
        entries = encode_entries(positions, events)
        return Stretch(entries, horizon, is_last, gone_through)

    def _event(self, position: int, record: bytes) -> Event | None:
        try:
            return decode_event(record)
        except ValueError as error:
            now_s = asyncio.get_running_loop().time()
            self._health.skipped(id_at(position), str(error), self._skips, now_s)
            return None

    async def _newest(
        self, link: Link, topics: Sequence[str], through: int, most: int
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

    # ---- everything -----------------------------------------------------------------------------

    async def _scan(
        self, link: Link, selectors: Sequence[str], after: int, through: int, limit_bytes: int
    ) -> Stretch:
        floor, oldest = await link.calls(
            [
                (b"GET", self._keys.floor),
                (b"XRANGE", self._keys.stream, b"-", b"+", b"COUNT", 1),
            ]
        )
        gone_through = _gone_through(place_of(floor or b"0-0"), oldest)
        found: Found = {}
        size_bytes, place = 0, after
        for step in count():
            size = min(2 + 4 * step, SCAN_COUNT)
            rows = await link.call(
                b"XRANGE", self._keys.stream, b"(" + id_at(place), id_at(through), b"COUNT", size
            )
            for stream_id, fields in rows:
                place = place_of(stream_id)
                record = _matching(stream_id, fields, selectors)
                if record is not None:
                    found[place] = record
                    size_bytes += len(record)
            if len(rows) < size:
                return self._stretch(found, through, True, gone_through, limit_bytes)
            if size_bytes >= limit_bytes:
                return self._stretch(found, place, place == through, gone_through, limit_bytes)
        raise AssertionError

    async def _scan_newest(
        self, link: Link, selectors: Sequence[str], through: int, most: int
    ) -> list[int]:
        newest: list[int] = []
        place = id_at(through)
        while len(newest) < most:
            rows = await link.call(
                b"XREVRANGE", self._keys.stream, place, b"-", b"COUNT", SCAN_COUNT
            )
            for stream_id, fields in rows:
                if _matching(stream_id, fields, selectors) is not None:
                    newest.append(place_of(stream_id))
            if len(rows) < SCAN_COUNT:
                break
            place = b"(" + rows[-1][0]
        return newest[:most]


def _all_exact(selectors: Sequence[str]) -> bool:
    return all(compile_selector(text).is_exact for text in selectors)


def _gone_through(floor: int, oldest: Any) -> int:
    """Through where the common stream was trimmed; not at all while its first mark is there."""
    if not oldest:
        return floor
    first = place_of(oldest[0][0])
    return floor if first == floor else max(floor, first - 1)


def _matching(stream_id: bytes, fields: Sequence[bytes], selectors: Sequence[str]) -> bytes | None:
    """The record of an entry that a selector matches; what is bad was counted by the tail."""
    try:
        entry = parse_entry(stream_id, fields)
        if entry.mark:
            return None
        topics = decode_event(entry.record).topics
    except ValueError:
        return None
    for text in selectors:
        selector = compile_selector(text)
        if any(map(selector.matches, topics)):
            return entry.record
    return None


def wanted_position(cursor: Cursor) -> int | None:
    """The position that an id names, when it is one."""
    return parse_id(cursor.text)
