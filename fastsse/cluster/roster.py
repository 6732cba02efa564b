"""The roster of all nodes: which streams are open, in Redis.

Each topic has a hash of its subscribers, and each node has a hash of its streams. One task writes
the changes in batches, in order. An opened stream is written before it is announced by an event,
and an ended one is announced before its record is removed. So after a kill nothing is lost: another
node finds the records of the killed node, announces their ends and removes them.
"""

import asyncio
import pathlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Final

import orjson

from fastsse.backbone import Done
from fastsse.backoff import Backoff
from fastsse.cluster.membership import Membership
from fastsse.cluster.roster_queries import RosterQueries
from fastsse.control.cluster import Answer, Change, Subscriber, cost_bytes_of
from fastsse.control.roster import events_of
from fastsse.errors import FastsseError
from fastsse.events import Event
from fastsse.log import get_logger
from fastsse.redis.connection import RedisAddress, RedisConnection, while_connected
from fastsse.redis.errors import AnswerLost, RedisRefusal
from fastsse.redis.keys import Keys
from fastsse.redis.scripts import Script

__all__ = ["RedisRoster"]

log = get_logger("redis")
_HERE: Final = pathlib.Path(__file__).parent
THERE: Final = Script("there", folder=_HERE)
REAP: Final = Script("reap", folder=_HERE)
# Selectors in one batch, roughly. Each takes Redis 3 us.
BATCH: Final = 500
# Changes that may wait to be written. Above it this node writes all its open streams again, which
# the control service holds, so they take no further memory.
QUEUE_BYTES_MAX: Final = 64 * 1024 * 1024
PUBLISH_AGAIN_S: Final = 0.5

Append = Callable[[Sequence[Event], Done], None]
_Word = bytes | str | int


class _Renamed(Exception):
    """This node has another name than the one under which it wrote."""


class RedisRoster:
    """The `Roster` of a node. Loop thread only.

    Arguments:
        address, keys: the Redis that all nodes use.
        membership: knows the name under which this node writes.
        append: publishes to the log.
    """

    def __init__(
        self, address: RedisAddress, keys: Keys, membership: Membership, append: Append
    ) -> None:
        self._address = address
        self._keys = keys
        self._membership = membership
        self._append = append
        self._present: Callable[[], Iterable[bytes]] = tuple
        self._name = b""  # Changes are written under it; empty: this node has no name yet.
        self._here: deque[Change] = deque()  # Streams open when it got its name; written first.
        self._queue: deque[tuple[Change, int]] = deque()  # Later changes, each with its size.
        self._queue_bytes = 0
        self._queued = asyncio.Event()
        self._ended: list[bytes] = []  # Streams whose end was published.
        self._task: asyncio.Queue[bytes] = asyncio.Queue(1)
        self._lists = RosterQueries(address, keys)
        membership.on_task = self._take_task
        membership.on_named = self._queued.set

    def begin(self, present: Callable[[], Iterable[bytes]]) -> None:
        """As `Roster`."""
        self._present = present

    def note(self, changes: Sequence[Change]) -> None:
        """As `Roster`. O(changes)."""
        if not self._name:
            return  # All open streams are written when there is a name.
        for change in changes:
            cost_bytes = cost_bytes_of(change)
            self._queue.append((change, cost_bytes))
            self._queue_bytes += cost_bytes
        if self._queue_bytes > QUEUE_BYTES_MAX:
            log.warning("Too many presence changes wait; this node writes all its streams again.")
            self._membership.rename(self._name)
            self._begin_as(b"")
        self._queued.set()

    @property
    def writes(self) -> bool:
        """Whether changes are written: this node has a name."""
        return bool(self._name)

    def find(self, topic: str | None, name: str | None, most: int, answer: Answer) -> None:
        """As `Roster`; an error while Redis can't be reached."""
        self._lists.find(topic, name, most, answer)

    async def run(self) -> None:
        """Writes, and removes dead nodes, until it is cancelled."""
        writing = while_connected(self._address, "writing presence", self._write)
        await asyncio.gather(writing, self._reap_all())

    async def close(self) -> None:
        """Closes its connections. Open queries are answered with an error."""
        await self._lists.close()

    # -- changes at this node -------------------------------------------------------------------

    async def _write(self, link: RedisConnection, backoff: Backoff) -> None:
        while True:
            name = await self._membership.wait_for_name()
            if name != self._name:
                self._begin_as(name)
            try:
                while True:
                    await self._queued.wait()
                    self._queued.clear()
                    while self._here or self._queue or self._ended:
                        await self._write_some(name, link)
                        backoff.reset()
                    self._check(name)
            except _Renamed:
                self._membership.rename(name)
            finally:
                self._queued.set()

    def _begin_as(self, name: bytes) -> None:
        """Starts to write all streams of this node under a name."""
        self._name = name
        self._ended.clear()
        self._here.clear()
        self._queue.clear()
        self._queue_bytes = 0
        if name:
            self._here.extend((one, True) for one in self._present())

    async def _write_some(self, name: bytes, link: RedisConnection) -> None:
        """Writes a batch and publishes its events. The batch stays in the queue until then, so both
        may happen twice."""
        keys, forgotten, batch = self._keys, list(self._ended), self._batch()
        words: list[_Word] = []
        for one in map(Subscriber.unpack, forgotten):
            words += (b"x", one.name, len(one.selectors))
        for one, came in batch:
            words += _words(one, came)
        names = [keys.nodes, keys.held(name), keys.counts]
        news = await link.run(THERE, names, keys.prefix, name, *words)
        if news is None:
            raise _Renamed
        self._check(name)
        del self._ended[: len(forgotten)]
        await self._publish(_events_of_batch(batch, news), name)
        for _ in batch:
            if self._here:
                self._here.popleft()
            else:
                self._queue_bytes -= self._queue.popleft()[1]
        self._ended += [one.pack() for one, came in batch if not came]

    def _batch(self) -> list[tuple[Subscriber, bool]]:
        batch: list[tuple[Subscriber, bool]] = []
        size = 0
        for packed, came in chain(self._here, (change for change, _ in self._queue)):
            one = Subscriber.unpack(packed)
            size += len(one.selectors)
            if batch and size > BATCH:
                break
            batch.append((one, came))
        return batch

    def _check(self, name: bytes) -> None:
        if name != self._membership.name or name != self._name:
            raise _Renamed

    async def _publish(self, events: Sequence[Event], name: bytes | None = None) -> None:
        """Publishes; retries until it succeeds, or until this node has another name."""
        for start in range(0, len(events), BATCH):
            some = events[start : start + BATCH]
            while not await self._is_published(some):
                if name is not None:
                    self._check(name)
                await asyncio.sleep(PUBLISH_AGAIN_S)
        if name is not None:
            self._check(name)

    async def _is_published(self, events: Sequence[Event]) -> bool:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def done(outcome: Sequence[int] | FastsseError) -> None:
            if not answer.done():
                answer.set_result(not isinstance(outcome, FastsseError))

        self._append(events, done)
        return await answer

    # -- streams of a dead node -----------------------------------------------------------------

    def _take_task(self, name: bytes) -> None:
        self._membership.on_task = None
        self._task.put_nowait(name)

    async def _reap_all(self) -> None:
        """Removes dead nodes, one after the other. If that fails, any node retries it later."""
        while True:
            name = await self._task.get()
            try:
                link = await RedisConnection.open(self._address)
                try:
                    await self._reap(name, link)
                finally:
                    await link.close()
            except (AnswerLost, RedisRefusal) as fault:
                log.warning(
                    "Removing a dead node did not succeed yet.", node=name.decode(), why=str(fault)
                )
            except Exception:
                log.exception("Removing a dead node failed; a node retries it.", node=name.decode())
            finally:
                self._membership.on_task = self._take_task

    async def _reap(self, name: bytes, link: RedisConnection) -> None:
        """Publishes the ends of some streams, then removes their records, until none is left. If
        this node is killed in between, the next one publishes those ends again."""
        keys, task_ms, count = self._keys, self._membership.task_ms, 0
        names = [keys.dead, keys.held(name), keys.counts]
        cursor: bytes = b"0"
        ended: list[bytes] = []
        while True:
            cursor, found = await link.run(
                REAP, names, keys.prefix, name, task_ms, cursor, BATCH, *ended
            )
            if not cursor:
                break
            ended = found[::2]
            count += len(ended)
            gone = map(_subscriber, ended, found[1::2])
            await self._publish([event for one in gone for event in events_of(one, False)])
        log.info("A dead node was removed.", node=name.decode(), subscribers=count)


def _words(one: Subscriber, came: bool) -> list[_Word]:
    """A change as the script reads it."""
    payload = b"" if one.payload is None else orjson.dumps(one.payload)
    kept = b"%b\n%b" % (orjson.dumps(one.selectors), payload)
    if came:
        return [b"+", one.name, kept, payload, len(one.selectors), *one.selectors]
    return [b"-", one.name, kept, len(one.selectors), *one.selectors]


def _events_of_batch(batch: Sequence[tuple[Subscriber, bool]], news: bytes) -> list[Event]:
    """The events to publish for a batch: of all ended streams, and of the opened ones that are
    new."""
    is_new = iter(news)
    return [
        event
        for one, came in batch
        if not came or next(is_new) == ord("1")
        for event in events_of(one, came)
    ]


def _subscriber(name: bytes, kept: bytes) -> Subscriber:
    """The subscriber in a stored record; an empty one if the record can't be read, because no node
    wrote it."""
    selectors, _, payload = kept[1:].partition(b"\n")
    try:
        who = name.decode(), tuple(orjson.loads(selectors))
        return Subscriber(*who, orjson.loads(payload) if payload else None)
    except ValueError:
        return Subscriber("", (), None)
