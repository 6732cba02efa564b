"""The writer: batches of publishers, and the groups in which they are appended to the log.

Over 400 lines: a batch, its group and their answers are one state machine.
"""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Sequence
from typing import Final

from fastsse._records import crc32c
from fastsse.backbone import Done
from fastsse.backbone.judge import KEYS_FULL_RETRY_S, JudgedPositions, is_plain
from fastsse.backbone.redis.codec import (
    SentEvent,
    StreamEntry,
    encode_asked,
    encode_event,
    place_of,
)
from fastsse.backbone.redis.follower import RedisFollower, find_end
from fastsse.backbone.redis.log_scripts import APPEND
from fastsse.backbone.redis.retention import RedisRetention
from fastsse.backoff import Backoff
from fastsse.errors import (
    AlreadyTaken,
    FastsseError,
    KeyReused,
    PreconditionFailed,
    ProducerFenced,
    SequenceGap,
    SequenceRegressed,
    StreamChanged,
    StreamImmutable,
    StreamsFull,
    StreamTypeMismatch,
    TopicEnded,
    Unavailable,
)
from fastsse.events import Event, as_header_value
from fastsse.log import get_logger
from fastsse.redis.connection import RedisAddress, RedisConnection
from fastsse.redis.errors import AnswerLost, AnswerTimeout, RedisRefusal
from fastsse.redis.health import Health
from fastsse.redis.keys import Keys

__all__ = ["Key", "RedisWriter", "WriteBatch", "WriteGroup"]

RETRY_AFTER_S: Final = 2
# About the counted overhead of a batch, an event and each of its topics.
BATCH_COST_BYTES: Final = 512
EVENT_COST_BYTES: Final = 512
TOPIC_COST_BYTES: Final = 64

Key = tuple[bytes, int]
"""The sender of a batch to this node, and the number of the batch."""


class WriteBatch:
    """Events of one publish, and the call that waits for them.

    Attributes:
        entries: how many entries Redis will write: one in the log and one in each topic for every
            event.
        size_bytes: about its size in memory.
    """

    __slots__ = ("_done", "entries", "events", "key", "positions", "size_bytes")

    def __init__(self, events: Sequence[Event], done: Done, key: Key | None = None) -> None:
        # A batch in columns makes an event of each whenever it is asked for it.
        self.events: Final = list(events)
        self.key: Final = b"" if key is None else b"%b:%d" % (key[0].hex().encode(), key[1])
        self.size_bytes: Final = BATCH_COST_BYTES + sum(map(_size_of, self.events))
        self.entries: Final = sum([1 + len(event.topics) for event in self.events])
        self.positions: list[int] = []
        self._done: Done | None = done

    @property
    def is_delivered(self) -> bool:
        """Whether its last event was delivered."""
        return len(self.positions) == len(self.events)

    def acknowledge(self) -> None:
        """Answers once: stored."""
        done, self._done = self._done, None
        if done is not None:
            done(self.positions)

    def refuse(self) -> None:
        """Answers once: not stored, as far as is known."""
        self.deny(Unavailable("backbone", retry_after_s=RETRY_AFTER_S))

    def deny(self, error: FastsseError) -> None:
        """Answers once: not stored, for this reason."""
        done, self._done = self._done, None
        if done is not None:
            done(error)


def _size_of(event: Event) -> int:
    """About the size of an event. The event type is not counted apart: it is usually a short,
    shared word."""
    text_bytes = len(event.data) + len(event.event or "") + len(event.id or "")
    topics = event.topics
    return EVENT_COST_BYTES + text_bytes + sum(map(len, topics)) + TOPIC_COST_BYTES * len(topics)


class WriteGroup:
    """Batches that are sent together.

    `sent` are their events, with their records, in order.
    """

    __slots__ = (
        "_batch_of",
        "_undelivered",
        "arguments",
        "batches",
        "deadline",
        "number",
        "sent",
        "waits_for_replicas",
    )

    def __init__(
        self, number: int, batches: Sequence[WriteBatch], waits_for_replicas: bool
    ) -> None:
        self.number: Final = number
        self.batches: Final = batches
        self.waits_for_replicas = waits_for_replicas
        self.arguments: list[bytes | int] = []
        self.sent: list[SentEvent] = []
        self.deadline: asyncio.TimerHandle | None = None
        self._batch_of: Final = [batch for batch in batches for _ in batch.events]
        self._undelivered = len(batches)

    @property
    def is_done(self) -> bool:
        """Whether every batch of it was delivered and enough replicas have it."""
        return self._undelivered == 0 and not self.waits_for_replicas

    def note(self, entry: StreamEntry) -> None:
        """One of its events was delivered."""
        if entry.nth < len(self._batch_of):
            batch = self._batch_of[entry.nth]
            batch.positions.append(entry.position)
            if len(batch.positions) == len(batch.events):
                self._delivered(batch)

    def denied(self, batch: WriteBatch, error: FastsseError) -> None:
        """One of its batches may not be stored."""
        batch.deny(error)
        self._undelivered -= 1

    def repeated(self, batch: WriteBatch, positions: list[int]) -> None:
        """One of its batches was stored before, and is delivered."""
        batch.positions = positions
        self._delivered(batch)

    def _delivered(self, batch: WriteBatch) -> None:
        self._undelivered -= 1
        if not self.waits_for_replicas:
            batch.acknowledge()

    def replicated(self) -> None:
        """Enough replicas have the group."""
        self.waits_for_replicas = False
        for batch in self.batches:
            if batch.is_delivered:
                batch.acknowledge()

    def refuse(self) -> None:
        """Refuses what was not acknowledged."""
        for batch in self.batches:
            batch.refuse()


def _conflict(why: bytes, topic: bytes, current: bytes) -> FastsseError:
    """The error that a script's word stands for."""
    if why == b"expect":
        return PreconditionFailed(topic.decode(), current.decode())
    if why == b"key_reused":
        return KeyReused(topic.decode())
    if why == b"taken":
        return AlreadyTaken(topic.decode())
    if why == b"keys":
        return Unavailable("keys", KEYS_FULL_RETRY_S)
    if why == b"producers":
        return Unavailable("producers", KEYS_FULL_RETRY_S)
    if why == b"fenced":
        return ProducerFenced(topic.decode(), current.decode())
    if why == b"gap":
        return SequenceGap(topic.decode(), *current.decode().split(" "))
    if why == b"stream_changed":
        return StreamChanged(topic.decode())
    if why == b"stream_seq":
        return SequenceRegressed(topic.decode())
    if why == b"stream_type":
        return StreamTypeMismatch(topic.decode(), current.decode())
    if why == b"stream_immutable":
        return StreamImmutable(topic.decode())
    if why == b"streams_full":
        return StreamsFull(topic.decode())
    if why == b"ended":
        return TopicEnded(topic.decode())
    # A node that reads format 1 would skip the entry.
    return Unavailable("nodes", retry_after_s=RETRY_AFTER_S)


log = get_logger("redis")
PART: Final = "publishing"
# Most entries of a group. Redis is busy for about 7 us with each. A larger batch is sent alone.
GROUP_ENTRIES: Final = 1024
GROUP_BYTES: Final = 1024 * 1024
# Bytes that may wait to be sent or delivered. A sent group is held twice for a moment: as events
# and as words of a command.
QUEUE_BYTES_MAX: Final = 64 * 1024 * 1024
# How long Redis keeps the counter of a node after its last group. The wait for an answer is never
# longer.
SENDER_LIFE_MS: Final = 60 * 60 * 1000
PROBE_S: Final = 0.5


class RedisWriter:
    """Sends what this node publishes.

    Arguments:
        address, keys: where the log is.
        retention: what is to be kept of each topic.
        replicas: how many must have a group before it is acknowledged; 0: none.
        health: receives the writer's successes and faults.
        follower: of the same log. It reconnects when this Redis is not the one to write to.
    """

    def __init__(
        self,
        address: RedisAddress,
        keys: Keys,
        retention: RedisRetention,
        replicas: int,
        health: Health,
        follower: RedisFollower,
    ) -> None:
        self._address = address
        self._keys = keys
        self._retention = retention
        self._replicas = replicas
        self._health = health
        self._follower = follower
        follower.on_sent = self._on_delivered
        follower.sent_event = self._sent_event
        # New for each start, because a node that restarts counts from the beginning.
        self._node: Final = os.urandom(12).hex().encode()
        self._number = 0
        self._queue: deque[WriteBatch] = deque()
        self._held_bytes = 0
        self._queued = asyncio.Event()
        self._sent: dict[int, WriteGroup] = {}
        self._link: RedisConnection | None = None
        self._backoff = Backoff()

    def append(self, events: Sequence[Event], done: Done, key: Key | None = None) -> None:
        """Queues a batch, or refuses it at once while the log can't be written."""
        batch = WriteBatch(events, done, key)
        if self._health.trouble is not None or self._held_bytes > QUEUE_BYTES_MAX:
            batch.refuse()
            return
        self._queue.append(batch)
        self._held_bytes += batch.size_bytes
        self._queued.set()

    def _on_delivered(self, entry: StreamEntry) -> None:
        """The follower has delivered an entry, perhaps of this node."""
        if entry.node == self._node:
            group = self._sent.get(entry.group)
            if group is not None:
                group.note(entry)
                self._forget_if_done(group)

    def _sent_event(self, entry: StreamEntry) -> SentEvent | None:
        """The event of an entry of this node, if it is the same for all who read the record."""
        group = self._sent.get(entry.group) if entry.node == self._node else None
        if group is None or entry.nth >= len(group.sent):
            return None
        sent = group.sent[entry.nth]
        # What is asked of an event is not in its record, and metadata may be written otherwise.
        return sent if sent.event.directives is None and sent.event.meta is None else None

    async def run(self) -> None:
        """Sends until it is cancelled; then refuses the rest."""
        try:
            while True:
                await self._queued.wait()
                if (group := self._next_group()) is not None:
                    await self._store(group)
        except Exception:
            log.exception("Publishing to Redis failed.")
            self._health.fails(PART, "publishing failed inside")
            raise
        finally:
            await self._close()

    # ---- groups ---------------------------------------------------------------------------------

    def _next_group(self) -> WriteGroup | None:
        batches: list[WriteBatch] = []
        entries = size_bytes = 0
        while self._queue:
            batch = self._queue[0]
            entries += batch.entries
            size_bytes += batch.size_bytes
            if batches and (entries > GROUP_ENTRIES or size_bytes > GROUP_BYTES):
                break
            batches.append(self._queue.popleft())
        if not self._queue:
            self._queued.clear()
        return self._group(batches) if batches else None

    def _group(self, batches: Sequence[WriteBatch]) -> WriteGroup:
        self._number += 1
        group = WriteGroup(self._number, batches, self._replicas > 0)
        group.arguments = self._arguments(group)
        if batches:
            self._sent[group.number] = group
            loop = asyncio.get_running_loop()
            group.deadline = loop.call_later(self._address.timeout_s, self._expire, group)
        return group

    def _arguments(self, group: WriteGroup) -> list[bytes | int]:
        retention = self._retention
        arguments: list[bytes | int] = [
            self._keys.prefix, group.number, SENDER_LIFE_MS, retention.stream_events,
            retention.longest_ms, len(group.batches),
            retention.producer_window_ms, retention.producers_bytes, retention.streams_bytes,
        ]  # fmt: skip
        index = 0
        for batch in group.batches:
            left = len(batch.events)
            arguments += (
                batch.key, left, encode_asked(batch.events),
                retention.key_window_ms, retention.keys_bytes,
            )  # fmt: skip
            for event in batch.events:
                left -= 1
                record = encode_event(event)
                group.sent.append(SentEvent(event, record))
                arguments += (
                    b"%b %d %d %d" % (self._node, group.number, index, left),
                    record,
                    b"%08x" % crc32c(record),
                    b"" if event.id is None else as_header_value(event.id),
                    retention.own_id_ms(event.topics),
                    len(event.topics),
                )
                for topic in event.topics:
                    arguments += retention.arguments(topic)
                index += 1
        return arguments

    def _expire(self, group: WriteGroup) -> None:
        """Bounds the wait: publishers get 503 while the group's result is unknown."""
        group.refuse()
        self._forget(group)

    def _forget_if_done(self, group: WriteGroup) -> None:
        if group.is_done:
            self._forget(group)

    def _forget(self, group: WriteGroup) -> None:
        if self._sent.pop(group.number, None) is not None:
            self._held_bytes -= sum(batch.size_bytes for batch in group.batches)
        if group.deadline is not None:
            group.deadline.cancel()

    # ---- sending --------------------------------------------------------------------------------

    async def _store(self, group: WriteGroup) -> None:
        """Sends a group until it is stored, refused, or no publisher waits for it."""
        tries = 0
        while group.number in self._sent:
            try:
                link = await self._open_link()
                tries += 1
                self._health.counts["redis_resent"] += tries > 1
                if not await self._send(link, group):
                    continue
            except AnswerLost as fault:
                await self._lose_link(fault)
            except RedisRefusal as refusal:
                await self._refused(group, refusal)
            else:
                group.arguments = []
                self._well()
                return
        await self._until_it_works()

    async def _send(self, link: RedisConnection, group: WriteGroup) -> bool:
        """Sends a group and returns whether Redis stored it. If not, there was no log, and one was
        created."""
        names = [self._keys.stream, self._keys.newest, self._keys.sender(self._node)]
        answer, failures, repeated, refused = await link.run(APPEND, names, *group.arguments)
        if answer == b"no log":
            with contextlib.suppress(RedisRefusal):
                await find_end(link, self._keys, self._follower.head)
            return False
        if failures:
            self._health.counts["redis_index_failures"] += failures
            log.warning("History of topics could not be written.", failures=failures)
        for number, ids, duplicates, sequence in repeated:
            judged = JudgedPositions(map(place_of, ids.split(b" ")))
            judged.duplicates, judged.sequence = duplicates, sequence
            await self._note_repeated(group, group.batches[number - 1], judged)
        for number, why, topic, current in refused:
            group.denied(group.batches[number - 1], _conflict(why, topic, current))
            self._forget_if_done(group)
        if self._replicas:
            await self._wait_for_replicas(link, group)
        return True

    async def _note_repeated(
        self, group: WriteGroup, batch: WriteBatch, judged: JudgedPositions
    ) -> None:
        """A batch was stored before, under the positions that its answer gets."""
        self._health.counts["redis_repeats"] += 1
        await self._follower.reached(max(judged), self._address.timeout_s)
        group.repeated(batch, list(judged) if is_plain(batch.events) else judged)
        self._forget_if_done(group)

    async def _wait_for_replicas(self, link: RedisConnection, group: WriteGroup) -> None:
        wait_s = self._address.timeout_s / 2
        count = await link.call(b"WAIT", self._replicas, round(wait_s * 1000), wait_s=wait_s)
        if count < self._replicas:
            why = f"{count} of {self._replicas} replicas have what was published"
            raise RedisRefusal("NOREPLICAS", why)
        group.replicated()
        self._forget_if_done(group)

    async def _open_link(self) -> RedisConnection:
        if self._link is None:
            await self._backoff.wait()
            self._link = await RedisConnection.open(self._address)
        return self._link

    async def _lose_link(self, fault: AnswerLost) -> None:
        await self._drop_link()
        # A connection that is cut and reconnects at once is no trouble.
        if self._backoff.tries > 1 or isinstance(fault, AnswerTimeout):
            self._health.fails(PART, str(fault))
            self._refuse_queue()

    async def _refused(self, group: WriteGroup, refusal: RedisRefusal) -> None:
        """Redis stored nothing of the group, and says why. `_store` sends a probe next, and nothing
        else until a probe succeeds."""
        group.refuse()
        self._forget(group)
        self._health.counts["redis_refused"] += 1
        await self._name(refusal)
        self._refuse_queue()

    async def _until_it_works(self) -> None:
        """Tries a group without events, which needs the same rights, memory and replicas.

        Its number is higher than those of all abandoned groups, so none of them can be stored after
        it.
        """
        while not await self._probe():
            pass

    async def _probe(self) -> bool:
        try:
            link = await self._open_link()
            if not await self._send(link, self._group(())):
                return False
        except AnswerLost as fault:
            await self._lose_link(fault)
        except RedisRefusal as refusal:
            await self._name(refusal)
            await asyncio.sleep(PROBE_S)
        else:
            self._well()
            return True
        return False

    async def _name(self, refusal: RedisRefusal) -> None:
        self._health.fails(PART, str(refusal))
        if refusal.code == "READONLY":
            # Another Redis may be the master by now, under the same name.
            await self._drop_link()
            self._follower.reconnect()

    def _well(self) -> None:
        self._backoff.reset()
        self._health.works(PART)

    def _refuse_queue(self) -> None:
        while self._queue:
            batch = self._queue.popleft()
            self._held_bytes -= batch.size_bytes
            batch.refuse()
        self._queued.clear()

    async def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _close(self) -> None:
        self._refuse_queue()
        for group in list(self._sent.values()):
            group.refuse()
            self._forget(group)
        with contextlib.suppress(AnswerLost):
            await self._drop_link()
