"""The broker:

the part of the hub process that all workers share. Sessions pass batches to it, the backbone orders
them, and the fan-out sends them. The key of a batch shows whether it was sent before.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from fastsse.backbone.judge import JudgedPositions
from fastsse.bus.batch_ids import BatchIds, rows_of
from fastsse.bus.client.outbox import monotonic_ms
from fastsse.bus.frames import BEAT_S, CLOSE_S, FrameKind, frame, text
from fastsse.bus.server.fanout import Fanout
from fastsse.bus.server.losses import Losses
from fastsse.bus.server.memory import HubMemory, Key, KeyedBackbone
from fastsse.control.service import ControlStore, MakeService, MemoryControlStore, Services
from fastsse.entries import Entry
from fastsse.errors import FastsseError, Unavailable
from fastsse.events import Event
from fastsse.hub import SWEEP_ON_S
from fastsse.log import get_logger
from fastsse.paging import Pager

if TYPE_CHECKING:
    from fastsse.bus.server.session import Session

__all__ = ["Broker", "FrameLimits"]

log = get_logger("bus")
# A worker that sends nothing for this long, not even that it is alive, is disconnected.
SILENCE_S: Final = 30.0
GIVEN_UP_MAX: Final = 1024
# How often some durable streams are looked at, whether they have expired.
EXPIRED_S: Final = 1.0


class FrameLimits:
    """Bounds on frames, from the largest body that a publisher may send.

    A draft is about as long as the request body. The worst event consists of line ends, and its
    frame is seven times as long.
    """

    def __init__(self, max_body_bytes: int) -> None:
        slack = 4 * 1024 * 1024
        self.up_bytes: Final = min(2 * max_body_bytes + slack, 0xFFFFFFFF)
        self.down_bytes: Final = min(8 * max_body_bytes + 4 * slack, 1 << 30)


class Broker:
    """Orders the batches of workers and sends the log. Loop thread only.

    Arguments:
        backbone: where order comes from; this is its only user.
        limits: on frames.
        makers: of the control services.
        store: of control services; None keeps their data in memory.

    Attributes:
        sessions: the accepted workers, by key.
        batch_ids: the newest batches of the log.
        kept: the memory store, if it is the backbone.
        is_open: workers are accepted; before that they wait.
        on_waiting: called with each that waits.
        losses: which workers must still be notified of a loss.
        on_live: called with each that gets the live log from now on.
        pager: sends what is too much for one turn to all workers, while each has room.
    """

    def __init__(
        self,
        backbone: KeyedBackbone,
        limits: FrameLimits,
        makers: Mapping[str, MakeService],
        store: ControlStore | None = None,
    ) -> None:
        self.backbone: Final = backbone
        self.limits: Final = limits
        self.kept: Final = backbone if isinstance(backbone, HubMemory) else None
        self.sessions: Final[dict[bytes, Session]] = {}
        self.batch_ids = BatchIds()
        #: Called with committed entries, behind the workers.
        self.on_entries: Callable[[Sequence[Entry]], None] | None = None
        self.fanout = Fanout(backbone.head)
        self.is_open = False
        self.on_waiting: Callable[[Session], None] = lambda session: None
        self.on_live: Callable[[Session], None] = lambda session: None
        self.losses: Final = Losses()
        self._trouble: str | None = None
        self._is_closing = False
        self._held: set[Key] = set()
        self._given_up: dict[bytes, str] = {}
        self._loop = asyncio.get_running_loop()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.pager: Final = Pager(self._has_room)
        self.services: Final = Services(
            makers, self._broadcast, store or MemoryControlStore(), self._publish, self.pager
        )
        backbone.tail(backbone.head, self._deliver, self._on_broken)
        self._beat()
        self._delete_expired()
        if self.kept is not None:
            self._sweep(self.kept)

    def open(self) -> None:
        """Accepts workers from now on. They have the log up to its present end."""
        self.go_on(self.backbone.head, ())

    def go_on(self, after: int, entries: Sequence[Entry]) -> None:
        """Accepts workers from now on. They have the log up to a place, and may be missing later
        entries."""
        self.fanout = Fanout(after)
        self.fanout.recall(entries, self.backbone.head)
        self.is_open = True

    async def close(self) -> None:
        """Closes the backbone. After all stored entries were sent to the workers it closes their
        links. It sends no last frame, because another hub may follow, to which the workers send the
        rest."""
        self._is_closing = True
        self.services.close()
        for timer in self._timers.values():
            timer.cancel()
        await self.backbone.close()
        self.fanout.flush()
        sessions = list(self.sessions.values())
        for session in sessions:
            self.leave(session)
        await asyncio.gather(*(session.close(CLOSE_S) for session in sessions))

    # -- workers --------------------------------------------------------------------------------

    def enter(self, session: "Session") -> str | None:
        """Accepts a worker, or sends the reason why not. A worker that reconnects before the loss
        of its old link was noticed replaces its old session."""
        reason = self._given_up.get(session.key)
        if reason is not None:
            return reason
        before = self.sessions.get(session.key)
        if before is not None:
            before.drop()
        self.sessions[session.key] = session
        return None

    def leave(self, session: "Session") -> None:
        """A worker's link is gone."""
        if self.sessions.get(session.key) is session:
            del self.sessions[session.key]
            self.fanout.leave(session)
            self.services.on_worker_gone(session.worker)
            self.pager.go_on()

    def give_up(self, session: "Session", reason: str) -> None:
        """Rejects a worker. It is notified when it reconnects."""
        log.error("A worker was disconnected.", worker=session.worker, reason=reason)
        self._given_up[session.key] = reason
        if len(self._given_up) > GIVEN_UP_MAX:
            del self._given_up[next(iter(self._given_up))]

    # -- batches --------------------------------------------------------------------------------

    def publish(
        self, session: "Session", n: int, deadline_ms: int, events: Sequence[Event]
    ) -> None:
        """Takes a batch of a worker. It is answered once, perhaps on a later link of that
        worker."""
        key = (session.key, n)
        if self._is_closing:
            return
        if key in self._held:
            session.held(n)
        elif self.batch_ids.is_taken(*key):
            self._answer_again(session, key)
        elif monotonic_ms() > deadline_ms:
            session.refuse(n, Unavailable("backbone", retry_after_s=1))
        else:
            self._held.add(key)
            self.backbone.append(events, partial(self._done, key), key)
            if key in self._held:
                session.held(n)

    def _done(self, key: Key, outcome: Sequence[int] | FastsseError) -> None:
        self._held.discard(key)
        session = self.sessions.get(key[0])
        if isinstance(outcome, FastsseError):
            # Batches that an ending hub did not take are for the next hub.
            if session is not None and not self._is_closing:
                session.refuse(key[1], outcome)
            self._report_trouble()
            return
        if isinstance(outcome, JudgedPositions):
            # Not to be found by its number: sent again, it is known by what made it known now.
            self.fanout.flush()
            if session is not None:
                session.answered(key[1], outcome)
            return
        rows = rows_of(*key, outcome)
        for row in rows:
            self.batch_ids.note(row)
        self.fanout.taken(rows)
        if session is not None and not session.is_live:
            # The worker may get these entries from the store, which does not say whose they were.
            session.taken(rows)

    def _answer_again(self, session: "Session", key: Key) -> None:
        rows = self.batch_ids.find(*key)
        if rows:
            session.taken(rows)
        else:
            session.refuse(key[1], Unavailable("backbone", retry_after_s=1))

    def _deliver(self, entries: Sequence[Entry]) -> None:
        self.fanout.deliver(entries)
        if self.on_entries is not None:
            self.on_entries(entries)

    def _on_broken(self, reason: str, place: int) -> None:
        """The log lost entries. Workers are notified in order with it."""
        self.fanout.flush()
        self.losses.happened(place)
        for session in list(self.sessions.values()):
            session.broken(place)

    # -- all workers ----------------------------------------------------------------------------

    def _publish(self, events: Sequence[Event], done: Callable[[bool], None]) -> None:
        """Publishes for control services. They may continue when the events are in the log and sent
        to workers."""

        def appended(outcome: Sequence[int] | FastsseError) -> None:
            self.pager.add((not isinstance(outcome, FastsseError),), done)

        self.backbone.append(events, appended)

    def _has_room(self) -> bool:
        return not any(session.link.is_full for session in self.sessions.values())

    def _broadcast(self, subject: str, message: bytes) -> None:
        data = frame(FrameKind.BROADCAST, text(subject), message)
        for session in self.sessions.values():
            session.send_if_taken(data)

    def _report_trouble(self) -> None:
        trouble = self.backbone.trouble
        if trouble != self._trouble:
            self._trouble = trouble
            data = frame(FrameKind.TROUBLE, text(trouble or ""))
            for session in self.sessions.values():
                session.send_if_taken(data)

    def _beat(self) -> None:
        self._report_trouble()
        beat = frame(FrameKind.BEAT)
        for session in list(self.sessions.values()):
            session.beat(beat, self._loop.time(), SILENCE_S)
        self._timers["beat"] = self._loop.call_later(BEAT_S, self._beat)

    def _delete_expired(self) -> None:
        if self.is_open and self.backbone.trouble is None:
            for batch in self.backbone.expired_streams():
                # What is refused is tried again in the next turn.
                self.backbone.append(batch, lambda outcome: None)
        self._timers["expired"] = self._loop.call_later(EXPIRED_S, self._delete_expired)

    def _sweep(self, kept: HubMemory) -> None:
        delay_s = SWEEP_ON_S if self.is_open and kept.sweep() else 1.0
        self._timers["sweep"] = self._loop.call_later(delay_s, self._sweep, kept)
