"""Appending: batches go to the log in groups, one group at a time, each stored once.

A group is what waited while the one before it was on its way, so the busier a node is, the fewer
commands it sends. A group has a number, and Redis keeps the number of the last one stored by this
node in the same step as the events. So a group whose answer was lost is sent again as it was: if
it was stored, the number says so. One node's groups never overtake each other, and a number that
was passed is never stored late, by whatever connection it comes.

A batch that comes from a worker has a key of its own besides, which outlives this process: a hub
that is started again and given the batch again stores it only once.

A batch is acknowledged when the tail has delivered its last event: then Redis has it, and this
node's subscribers do. With replicas to wait for, also not before these have it.
"""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from fastsse._records import crc32c
from fastsse.backbone import Done
from fastsse.backbone.redis.faults import AnswerLost, Refusal, Silence
from fastsse.backbone.redis.groups import Batch, Group, Key
from fastsse.backbone.redis.health import Health
from fastsse.backbone.redis.keys import Keys
from fastsse.backbone.redis.link import Address, Backoff, Link
from fastsse.backbone.redis.records import StreamEntry, encode_event, place_of
from fastsse.backbone.redis.retention import Retention
from fastsse.backbone.redis.scripts import APPEND
from fastsse.events import Event, as_header_value
from fastsse.log import get_logger

__all__ = ["Appender", "Key"]

log = get_logger("redis")
PART: Final = "publishing"
# A group holds Redis for so many entries, about 7 us each; a larger batch goes alone.
GROUP_ENTRIES: Final = 1024
GROUP_BYTES: Final = 1024 * 1024
# What may wait to be sent, or for its delivery. What was sent is held twice for a moment: as events
# and as the words of a command.
QUEUE_BYTES: Final = 64 * 1024 * 1024
# Redis keeps a node's number for this long after its last group; no answer is waited for longer.
SENDER_LIFE_MS: Final = 60 * 60 * 1000
PROBE_S: Final = 0.5


class Appender:
    """Sends what this node publishes.

    Arguments:
        address, keys: where the log is.
        retention: what is to be kept of each topic.
        replicas: how many must have a group before it is acknowledged; 0 waits for none.
        health: is told how it goes.
        reopen: makes the log when there is none; given a link.
        elsewhere: called when this Redis is not the one that can be written to.
        reached: waits until this node has delivered a position, for so many seconds at most.
    """

    def __init__(
        self,
        address: Address,
        keys: Keys,
        retention: Retention,
        replicas: int,
        health: Health,
        reopen: "Callable[[Link], Any]",
        elsewhere: Callable[[], None],
        reached: Callable[[int, float], Awaitable[bool]],
    ) -> None:
        self._address = address
        self._keys = keys
        self._retention = retention
        self._replicas = replicas
        self._health = health
        self._reopen = reopen
        self._elsewhere = elsewhere
        self._reached = reached
        # Of this run alone: a node that starts again begins its numbers anew.
        self._node: Final = os.urandom(12).hex().encode()
        self._number = 0
        self._queue: deque[Batch] = deque()
        self._held_bytes = 0
        self._queued = asyncio.Event()
        self._sent: dict[int, Group] = {}
        self._link: Link | None = None
        self._backoff = Backoff()

    def append(self, events: Sequence[Event], done: Done, key: Key | None = None) -> None:
        """Takes a batch to be sent; refuses it at once while the log takes none."""
        batch = Batch(events, done, key)
        if self._health.trouble is not None or self._held_bytes > QUEUE_BYTES:
            batch.refuse()
            return
        self._queue.append(batch)
        self._held_bytes += batch.size_bytes
        self._queued.set()

    def delivered(self, entry: StreamEntry) -> None:
        """The tail has delivered an entry, perhaps one of ours."""
        if entry.node == self._node:
            group = self._sent.get(entry.group)
            if group is not None:
                group.note(entry)
                self._forget_if_done(group)

    async def run(self) -> None:
        """Sends until it is cancelled; then refuses what is left."""
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

    def _next_group(self) -> Group | None:
        batches: list[Batch] = []
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

    def _group(self, batches: Sequence[Batch]) -> Group:
        self._number += 1
        group = Group(self._number, batches, self._replicas > 0)
        group.arguments = self._arguments(group)
        if batches:
            self._sent[group.number] = group
            loop = asyncio.get_running_loop()
            group.deadline = loop.call_later(self._address.timeout_s, self._expire, group)
        return group

    def _arguments(self, group: Group) -> list[bytes | int]:
        retention = self._retention
        arguments: list[bytes | int] = [
            self._keys.prefix, group.number, SENDER_LIFE_MS, retention.stream_events,
            retention.longest_ms, len(group.batches),
        ]  # fmt: skip
        index = 0
        for batch in group.batches:
            left = len(batch.events)
            arguments += (batch.key, left)
            for event in batch.events:
                left -= 1
                record = encode_event(event)
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

    def _expire(self, group: Group) -> None:
        """Nobody waits for ever: publishers are told 503 while the group's fate is open."""
        group.refuse()
        self._forget(group)

    def _forget_if_done(self, group: Group) -> None:
        if group.is_done:
            self._forget(group)

    def _forget(self, group: Group) -> None:
        if self._sent.pop(group.number, None) is not None:
            self._held_bytes -= sum(batch.size_bytes for batch in group.batches)
        if group.deadline is not None:
            group.deadline.cancel()

    # ---- sending --------------------------------------------------------------------------------

    async def _store(self, group: Group) -> None:
        """Sends a group until it is stored, refused, or nobody waits for it any more."""
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
            except Refusal as refusal:
                await self._refused(group, refusal)
            else:
                group.arguments = []
                self._well()
                return
        await self._until_it_works()

    async def _send(self, link: Link, group: Group) -> bool:
        """Whether Redis has it now; if not, there was no log, and now there is one."""
        names = [self._keys.stream, self._keys.newest, self._keys.sender(self._node)]
        answer, failures, repeated = await link.run(APPEND, names, *group.arguments)
        if answer == b"no log":
            await self._reopen(link)
            return False
        if failures:
            self._health.counts["redis_index_failures"] += failures
            log.warning("History of topics could not be written.", failures=failures)
        for number, ids in repeated:
            await self._note_repeated(group, group.batches[number - 1], ids)
        if self._replicas:
            await self._wait_for_replicas(link, group)
        return True

    async def _note_repeated(self, group: Group, batch: Batch, ids: bytes) -> None:
        """A batch was stored before, under the positions that its answer gets."""
        self._health.counts["redis_repeats"] += 1
        positions = list(map(place_of, ids.split(b" ")))
        await self._reached(positions[-1], self._address.timeout_s)
        group.repeated(batch, positions)
        self._forget_if_done(group)

    async def _wait_for_replicas(self, link: Link, group: Group) -> None:
        wait_s = self._address.timeout_s / 2
        count = await link.call(b"WAIT", self._replicas, round(wait_s * 1000), wait_s=wait_s)
        if count < self._replicas:
            why = f"{count} of {self._replicas} replicas have what was published"
            raise Refusal("NOREPLICAS", why)
        group.replicated()
        self._forget_if_done(group)

    async def _open_link(self) -> Link:
        if self._link is None:
            await self._backoff.wait()
            self._link = await Link.open(self._address)
        return self._link

    async def _lose_link(self, fault: AnswerLost) -> None:
        await self._drop_link()
        # A connection that is cut and comes back at once is no trouble.
        if self._backoff.tries > 1 or isinstance(fault, Silence):
            self._health.fails(PART, str(fault))
            self._refuse_queue()

    async def _refused(self, group: Group, refusal: Refusal) -> None:
        """Redis took nothing of it, and says why. `_store` probes next, and sends nothing before a
        probe was taken."""
        group.refuse()
        self._forget(group)
        self._health.counts["redis_refused"] += 1
        await self._name(refusal)
        self._refuse_queue()

    async def _until_it_works(self) -> None:
        """Tries with a group of no events, which needs the same rights, memory and replicas.

        Its number is above all that were given up, so none of these is stored after it.
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
        except Refusal as refusal:
            await self._name(refusal)
            await asyncio.sleep(PROBE_S)
        else:
            self._well()
            return True
        return False

    async def _name(self, refusal: Refusal) -> None:
        self._health.fails(PART, str(refusal))
        if refusal.code == "READONLY":
            # Another may be the master by now, under the same name.
            await self._drop_link()
            self._elsewhere()

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
