"""The follower: a node reads the log on a connection of its own, and notices every missing entry.

Each entry has a running number. The next entry must have the number after the last one. So an
entry that was trimmed, flushed, or lost in a failover is noticed, whatever the ids are. When a
connection begins, the log's end is compared with what the node has. If the end lies below, or the
node's last entry is missing although older entries are there, this is another copy of the log.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from fastsse.backbone import Broken, Deliver
from fastsse.backbone.lead import LeadLog
from fastsse.backbone.redis.codec import (
    DamagedRecord,
    SentEvent,
    StreamEntry,
    decode_record,
    id_at,
    parse_entry,
    place_of,
)
from fastsse.backbone.redis.log_scripts import OPEN
from fastsse.backoff import Backoff
from fastsse.entries import encode_entries
from fastsse.events import Event
from fastsse.log import get_logger
from fastsse.positions import N_BITS, N_MASK
from fastsse.redis.connection import RedisAddress, RedisConnection
from fastsse.redis.errors import AnswerLost, AnswerTimeout, RedisRefusal, WrongServer
from fastsse.redis.health import Health, SkipLog
from fastsse.redis.keys import Keys

__all__ = ["LogEnd", "RedisFollower", "find_end"]

log = get_logger("redis")
PART: Final = "following"
# How long Redis holds an XREAD that finds nothing; then the node looks at the log's end, so a
# flush of a silent log is noticed within this time.
BLOCK_MS: Final = 1_000
READ_MAX: Final = 1_000
# About the most bytes of one read. If entries are so large, they are read one by one.
READ_BYTES: Final = 4 * 1024 * 1024


class LogEnd(NamedTuple):
    """The end of the log: its newest entry, where the log began, and what the script did (`made`,
    `raised`)."""

    sequence: int
    position: int
    floor: int
    done: bytes


async def find_end(link: RedisConnection, keys: Keys, known: int, is_other: bool = False) -> LogEnd:
    """Returns the log's end. Creates the log if there is none, and raises its end above `known` if
    it is lower.

    With `is_other` a mark is always added. It reports to all nodes that events were lost.
    """
    names = [keys.stream, keys.newest, keys.floor, keys.lost]
    answer = await link.run(OPEN, names, known >> N_BITS, known & N_MASK, int(is_other))
    sequence, newest, floor, done = answer
    return LogEnd(int(sequence), place_of(newest), place_of(floor), done)


class RedisFollower:
    """Follows the log from a place for as long as the node runs.

    Arguments:
        address, keys: where the log is.
        end: the log's end when the node opened it; what comes after it is delivered.
        health: receives the reader's successes and faults.

    Attributes:
        on_sent: called with each entry after it was delivered. Set it before `follow`.
        sent_event: gives the event that this node has sent as an entry; None if it has not, or it
            is no longer known. Set it before `follow`.
        head: the last position that was delivered or passed over.
    """

    def __init__(self, address: RedisAddress, keys: Keys, end: LogEnd, health: Health) -> None:
        self.head = end.position
        self._address = address
        self._keys = keys
        self._health = health
        self.on_sent: Callable[[StreamEntry], None] = lambda entry: None
        self.sent_event: Callable[[StreamEntry], SentEvent | None] = lambda entry: None
        self._skips = SkipLog()
        self._lead = LeadLog()
        self._read_through = id_at(end.position)
        self._last: StreamEntry | None = None  # What lies there, when it is known.
        self._sequence: int | None = end.sequence
        self._own_mark = 0
        self._held: list[tuple[StreamEntry, Event, int]] = []
        self._complete = 0  # How many of the held entries belong to complete batches.
        self._count = READ_MAX
        self._link: RedisConnection | None = None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    async def follow(self, deliver: Deliver, broken: Broken) -> None:
        """Runs until it is cancelled."""
        self._deliver, self._broken = deliver, broken
        backoff = Backoff()
        while True:
            try:
                await backoff.wait()
                await self._follow_link(backoff)
            except WrongServer:
                backoff.reset()
            except AnswerLost as fault:
                self._health.counts["redis_reconnects"] += 1
                # A connection that is cut and reconnects at once is no trouble.
                if backoff.tries > 1 or isinstance(fault, AnswerTimeout):
                    self._health.fails(PART, str(fault))
            except RedisRefusal as refusal:
                self._health.fails(PART, str(refusal))
            except Exception:
                log.exception("Following the log failed; what was read may be missing.")
                self._report_broken("failed", self.head)

    def reconnect(self) -> None:
        """Makes it reconnect, because this Redis is not the one to follow."""
        if self._link is not None:
            self._link.abort(WrongServer())

    async def reached(self, position: int, wait_s: float) -> bool:
        """Whether the head reaches a position within a time."""
        if position <= self.head:
            return True
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((position, reached))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await reached
        self._waiting = [pair for pair in self._waiting if pair[1] is not reached]
        return position <= self.head

    async def _follow_link(self, backoff: Backoff) -> None:
        self._link = link = await RedisConnection.open(self._address)
        try:
            await self._find_place(link)
            while True:
                found = await self._read(link)
                backoff.reset()
                self._health.works(PART)
                if found:
                    self._take(found)
                else:
                    await self._find_place(link)
        finally:
            self._link = None
            await link.close()

    async def _read(self, link: RedisConnection) -> "Sequence[tuple[bytes, Sequence[bytes]]]":
        answer: Any = await link.call(
            b"XREAD", b"COUNT", self._count, b"BLOCK", BLOCK_MS,
            b"STREAMS", self._keys.stream, self._read_through,
            wait_s=BLOCK_MS / 1000,
        )  # fmt: skip
        return answer[0][1] if answer else ()

    async def _find_place(self, link: RedisConnection) -> None:
        """Compares the log's end with the entries that the node has, and reports lost ones."""
        end = await find_end(link, self._keys, self.head)
        if end.floor > self.head:
            # The log was created again, by this node or another. Its first entry is the mark at the
            # floor.
            is_ours = end.done == b"made"
            self._go_on("flushed", end.floor, end.sequence if is_ours else None)
        elif end.done == b"raised":
            self._go_on("lost", end.position, end.sequence)
        elif not await self._is_our_log(link):
            # Entries that were written since then are not lost, and are read next.
            self._own_mark = (await find_end(link, self._keys, self.head, True)).position
            self._go_on("lost", self.head, None)

    async def _is_our_log(self, link: RedisConnection) -> bool:
        """Whether the last read entry is still there, or older than all stored ones."""
        place = self._read_through
        here, oldest = await link.calls(
            [
                (b"XRANGE", self._keys.stream, place, place),
                (b"XRANGE", self._keys.stream, b"-", b"+", b"COUNT", 1),
            ]
        )
        if here and self._last is not None:
            with contextlib.suppress(ValueError):
                return parse_entry(*here[0]).identity == self._last.identity
            return False
        return bool(here) or not oldest or place_of(oldest[0][0]) > place_of(place)

    def _go_on(self, why: str, place: int, sequence: int | None) -> None:
        """Continues after a place of another copy of the log."""
        self._break(why, place)
        self._read_through = id_at(place)
        self._last = None
        self._sequence = sequence

    def _take(self, found: "Sequence[tuple[bytes, Sequence[bytes]]]") -> None:
        """Delivers held entries in the longest possible runs, and never a part of a batch."""
        size_bytes = 0
        for stream_id, fields in found:
            size_bytes += len(fields[-1])
            try:
                self._take_entry(stream_id, fields)
            except DamagedRecord as error:
                now_s = asyncio.get_running_loop().time()
                self._health.damaged(stream_id, str(error), self._skips, now_s)
                self._break("damaged", place_of(stream_id))
            except ValueError as error:
                now_s = asyncio.get_running_loop().time()
                self._health.skipped(stream_id, str(error), self._skips, now_s)
        self._hand_on()
        if not self._held:
            self._pass_over(self._read_through)
        if size_bytes > READ_BYTES:
            self._count = max(1, self._count // 2)
        elif len(found) == self._count:
            self._count = min(READ_MAX, self._count * 2)

    def _take_entry(self, stream_id: bytes, fields: Sequence[bytes]) -> None:
        self._read_through, self._last = stream_id, None
        self._last = entry = parse_entry(stream_id, fields)
        if self._sequence not in (None, entry.sequence - 1):
            self._note_missing(entry, self._sequence)
        elif entry.mark and entry.position != self._own_mark:
            # Another node had read more entries than this log has.
            self._break("lost", entry.position)
        self._sequence = entry.sequence
        if entry.mark:
            return
        if self._held and not entry.continues(self._held[-1][0]):
            self._complete = len(self._held)
        try:
            sent = self.sent_event(entry)
            self._held.append((entry, *decode_record(entry.position, entry.record, sent)))
        finally:
            if entry.left == 0:
                self._complete = len(self._held)

    def _note_missing(self, entry: StreamEntry, sequence: int | None) -> None:
        """The running number jumped, so entries before this one are missing."""
        if entry.mark == b"made":
            self._break("flushed", entry.position)
        elif sequence is not None and entry.sequence <= sequence:
            self._break("lost", entry.position - 1)
        else:
            self._break("trimmed", entry.position - 1)

    def _break(self, why: str, place: int) -> None:
        self._complete = len(self._held)
        self._hand_on()
        self._report_broken(why, place)

    def _hand_on(self) -> None:
        ready, self._held = self._held[: self._complete], self._held[self._complete :]
        self._complete = 0
        if not ready:
            return
        positions = [entry.position for entry, *_ in ready]
        times = [time_ms for *_, time_ms in ready]
        entries = encode_entries(positions, [event for _, event, _ in ready], times)
        self._lead.note(entries.last.lead_ms)
        self.head = positions[-1]
        self._deliver(entries)
        for entry, *_ in ready:
            self.on_sent(entry)
        self._wake()

    def _report_broken(self, why: str, place: int) -> None:
        log.warning("Events of the log are missing.", why=why, through=id_at(place).decode())
        self._health.counts[f"redis_gaps_{why}"] += 1
        self.head = max(self.head, place)
        self._broken(why, self.head)
        self._wake()

    def _pass_over(self, stream_id: bytes) -> None:
        """Past entries that were not delivered: marks, and what was skipped."""
        with contextlib.suppress(ValueError):
            self.head = max(self.head, place_of(stream_id))
            self._wake()

    def _wake(self) -> None:
        for position, reached in self._waiting:
            if position <= self.head and not reached.done():
                reached.set_result(None)
