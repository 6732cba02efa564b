"""The outbox: the batches of a worker without an answer yet.

Publishes of one turn of the loop travel as one batch, numbered by the worker. A batch stays here
until its entries came down the log, or the hub refused it. The other cases:

- There is no hub, and the batch was never sent. The batch waits and is refused after TIMEOUT_S.
  It was certainly not published.
- The hub dies before it answers. The batch is sent again, with its number, to the next hub, which
  knows the number if the batch is in the log. If no hub comes in TIMEOUT_S the batch is refused
  and not sent again. The dead hub may have committed it; then it comes down the log later, once,
  and is counted as late. A publisher that publishes the refused batch again may publish it twice.
- The hub lives and is stuck. It checks the batch's deadline before it takes the batch, so a
  refused batch is not published.
- The hub lives and has taken the batch. It sends HELD, and from then on only the hub answers, for
  as long as it lives, even if its store is slow.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import Struct
from typing import Final

from fastsse.backbone import Done
from fastsse.backbone.judge import is_plain
from fastsse.bus.batch_ids import BatchId
from fastsse.bus.frames import HEADER, FrameError, FrameKind
from fastsse.bus.transport import QUEUE_BYTES_MAX
from fastsse.entries import pack_events
from fastsse.errors import FastsseError, InvalidEvent, Unavailable
from fastsse.events import Event

__all__ = ["BATCH_HEAD", "TIMEOUT_S", "Outbox", "monotonic_ms"]

TIMEOUT_S: Final = 2.0
# n, the deadline (milliseconds of CLOCK_MONOTONIC, which is the machine's), how many events.
BATCH_HEAD: Final = Struct("<QQI")
# A batch that has come so far is closed.
BATCH_BYTES: Final = 1024 * 1024
# Batches that the hub has not taken up yet; while there are as many, what is published joins the
# next one. So batches grow with the load, and at rest no publish waits.
WINDOW: Final = 1
# What a publish takes in addition to its events: the one that waits for its answer.
PUBLISH_COST_BYTES: Final = 512
# Batches that were sent and refused, of which it is known when they turn out to be in the log.
REFUSED_MAX: Final = 4096
TICK_S: Final = 0.1
# After the deadline, for an answer that is on its way.
GRACE_S: Final = 0.25

Frame = bytes


def monotonic_ms() -> int:
    """Milliseconds on the clock that all processes of the machine share."""
    return time.monotonic_ns() // 1_000_000


class OutboxBatch:
    """Publishes that travel together; all of them are taken or none."""

    __slots__ = (
        "body",
        "bytes",
        "cost_bytes",
        "count",
        "deadline_ms",
        "dones",
        "is_alone",
        "n",
        "positions",
        "since",
    )

    def __init__(self, since: float, *, is_alone: bool = False) -> None:
        self.n = 0  # Given when it is sent first.
        self.is_alone = is_alone
        self.body: list[bytes] = []
        self.bytes = 0
        self.cost_bytes = 0
        self.count = 0
        self.dones: list[tuple[int, Done]] = []
        self.since = since
        self.deadline_ms = 0
        self.positions: list[int] = []

    def add(self, packed: bytes, count: int, done: Done) -> None:
        """One publish more."""
        self.body.append(packed)
        self.bytes += len(packed)
        self.cost_bytes += len(packed) + PUBLISH_COST_BYTES
        self.count += count
        self.dones.append((count, done))

    def frame(self) -> bytes:
        """As it is sent."""
        head = HEADER.pack(BATCH_HEAD.size + self.bytes, FrameKind.BATCH)
        numbers = BATCH_HEAD.pack(self.n, self.deadline_ms, self.count)
        return b"".join((head, numbers, *self.body))

    def acknowledge(self) -> None:
        """Tells each publisher its positions."""
        positions: Sequence[int] = self.positions
        if positions[-1] - positions[0] == self.count - 1:
            positions = range(positions[0], positions[0] + self.count)
        at = 0
        for count, done in self.dones:
            done(positions[at : at + count])
            at += count

    def parts(self) -> "list[OutboxBatch]":
        """Each publish as a batch of its own."""
        parts = []
        for packed, (count, done) in zip(self.body, self.dones, strict=True):
            part = OutboxBatch(self.since, is_alone=True)
            part.add(packed, count, done)
            parts.append(part)
        return parts

    def refuse(self, error: FastsseError) -> None:
        """Tells each publisher that nothing was taken."""
        for _, done in self.dones:
            done(error)


class Outbox:
    """Batches on their way. Loop thread only.

    Arguments:
        send: sends a frame; only called while the hub is up.
        send_pages: sends many, one a turn, while there is room; they end with the hub.
        timeout_s: how long publishers wait for a hub.
        now_s: a monotonic clock, seconds.

    Attributes:
        limit_bytes: the bound on one frame, as the hub said.
        late: events that came down the log after they had been refused.
    """

    def __init__(
        self,
        send: Callable[[Frame], None],
        send_pages: Callable[[Iterable[Frame]], None],
        timeout_s: float = TIMEOUT_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit_bytes = BATCH_BYTES
        self.late = 0
        self.refused = 0
        self._send = send
        self._send_pages = send_pages
        self._timeout_s = timeout_s
        self._now_s = now_s
        self._loop = asyncio.get_running_loop()
        self._is_up = False
        self._is_repeating = False
        self._n = 0
        self._unsent: deque[OutboxBatch] = deque()
        self._under_way: dict[int, OutboxBatch] = {}
        self._not_held: dict[int, OutboxBatch] = {}
        self._bytes = 0
        self._refused_sent: OrderedDict[int, None] = OrderedDict()
        self._flush_is_due = False
        self._ticking: asyncio.TimerHandle | None = None
        self._ticked_s = 0.0

    @property
    def bytes(self) -> int:
        """Bytes held by what has no answer yet, about."""
        return self._bytes

    @property
    def batches(self) -> int:
        """Batches that were sent and have no answer yet."""
        return len(self._under_way)

    def add(self, events: Sequence[Event], done: Done) -> None:
        """Publishes events, with the others of this turn. O(bytes)."""
        packed = pack_events(events)
        if BATCH_HEAD.size + len(packed) > self.limit_bytes:
            done(InvalidEvent("data", f"at most {self.limit_bytes} bytes at once"))
            return
        cost_bytes = len(packed) + PUBLISH_COST_BYTES
        if self._bytes + cost_bytes > QUEUE_BYTES_MAX:
            done(Unavailable("queue", retry_after_s=1))
            return
        self._bytes += cost_bytes
        # What may be refused by itself, or known already, is no part of what others publish.
        self._open(len(packed), is_alone=not is_plain(events)).add(packed, len(events), done)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)
        if self._ticking is None:
            self._tick_on()

    def on_up(self, limit_bytes: int) -> None:
        """A hub is there: everything that has no answer is sent to it, in the order of numbers, a
        batch a turn. New batches follow."""
        self.limit_bytes = limit_bytes
        self._is_up = True
        if self._under_way:
            self._is_repeating = True
            self._send_pages(self._repeats(list(self._under_way.values())))
        else:
            self._flush()

    def on_down(self) -> None:
        """The hub is lost: from now on what it held waits for the next."""
        self._is_up = self._is_repeating = False
        now = self._now_s()
        for batch in self._under_way.values():
            if batch.n not in self._not_held:
                batch.since = now
            batch.positions.clear()
        self._not_held = dict(self._under_way)

    def on_held(self, through: int) -> None:
        """The hub has taken up all batches up to a number, and will answer them."""
        for n in [n for n in self._not_held if n <= through]:
            del self._not_held[n]
        if self._unsent:
            self._flush()

    def on_taken(self, row: BatchId) -> None:
        """A run of a batch of ours is in the log, and was delivered here."""
        batch = self._under_way.get(row.n)
        if batch is None:
            if row.n in self._refused_sent:
                self.late += row.size
            return
        if row.first in batch.positions:
            return
        batch.positions.extend(range(row.first, row.first + row.size))
        if len(batch.positions) < batch.count:
            return
        self._forget(batch)
        batch.acknowledge()
        if self._unsent:
            self._flush()

    def answer(self, n: int, positions: Sequence[int]) -> None:
        """A batch that was sent alone has these positions, some of them since before."""
        batch = self._under_way.get(n)
        if batch is not None:
            self._forget(batch)
            (count, done), *others = batch.dones
            if others or count != len(positions):
                raise FrameError("positions of another batch")
            done(positions)
            if self._unsent:
                self._flush()

    def deny(self, n: int, error: FastsseError) -> None:
        """A batch can't be taken because of one of its publishes: each is tried by itself. It was
        the only one that was refused, so what was sent since may be in the log before them."""
        batch = self._under_way.get(n)
        if batch is None or len(batch.dones) == 1:
            self.refuse(n, error)
            return
        self._forget(batch)
        parts = batch.parts()
        self._bytes += sum(part.cost_bytes for part in parts)
        self._unsent.extendleft(reversed(parts))
        self._flush()

    def refuse(self, n: int, error: FastsseError) -> None:
        """A batch was not taken."""
        batch = self._under_way.get(n)
        if batch is not None:
            self._forget(batch)
            self._refused_sent[n] = None
            if len(self._refused_sent) > REFUSED_MAX:
                self._refused_sent.popitem(last=False)
            self.refused += batch.count
            batch.refuse(error)
            if self._unsent:
                self._flush()

    def close(self) -> None:
        """Refuses everything that has no answer. Nothing may be added later."""
        self._is_up = False
        if self._ticking is not None:
            self._ticking.cancel()
        self._not_held = dict(self._under_way)
        self._refuse_old(float("inf"))

    def _open(self, size_bytes: int, *, is_alone: bool) -> OutboxBatch:
        """The batch that the next publish joins."""
        now = self._now_s()
        if self._unsent and not is_alone and not self._unsent[-1].is_alone:
            batch = self._unsent[-1]
            is_full = batch.bytes + size_bytes > min(BATCH_BYTES, self.limit_bytes)
            if not is_full and now - batch.since < TICK_S:
                return batch
        batch = OutboxBatch(now, is_alone=is_alone)
        self._unsent.append(batch)
        return batch

    @property
    def _may_send(self) -> bool:
        return self._is_up and not self._is_repeating

    def _flush(self) -> None:
        self._flush_is_due = False
        while self._may_send and self._unsent and len(self._not_held) < WINDOW:
            batch = self._unsent.popleft()
            self._n += 1
            batch.n = self._n
            self._under_way[batch.n] = self._not_held[batch.n] = batch
            self._send(self._frame(batch))

    def _repeats(self, batches: Sequence[OutboxBatch]) -> Iterator[Frame]:
        """Those that were sent to the hub before this one, and have no answer still."""
        for batch in batches:
            if batch.n in self._under_way:
                yield self._frame(batch)
        self._is_repeating = False
        self._flush()

    def _frame(self, batch: OutboxBatch) -> Frame:
        batch.deadline_ms = int((batch.since + self._timeout_s) * 1000)
        return batch.frame()

    def _forget(self, batch: OutboxBatch) -> None:
        del self._under_way[batch.n]
        self._bytes -= batch.cost_bytes
        self._not_held.pop(batch.n, None)

    def _tick_on(self) -> None:
        self._ticked_s = self._now_s()
        self._ticking = self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        """Refuses what has waited too long. When this loop itself was late, answers that wait in
        the socket are read first."""
        self._ticking = None
        now = self._now_s()
        if now - self._ticked_s < 3 * TICK_S:
            self._refuse_old(now)
        if self._unsent or self._under_way:
            self._tick_on()

    def _refuse_old(self, now: float) -> None:
        oldest = now - self._timeout_s
        while self._unsent and self._unsent[0].since <= oldest:
            batch = self._unsent.popleft()
            self._bytes -= batch.cost_bytes
            self.refused += batch.count
            batch.refuse(Unavailable("backbone", retry_after_s=1))
        if self._is_up:
            oldest -= GRACE_S
        for batch in list(self._not_held.values()):
            if batch.since <= oldest:
                self.refuse(batch.n, Unavailable("backbone", retry_after_s=1))
