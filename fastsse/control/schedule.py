"""The schedule: events that are published later.

One control service keeps the delayed events of a node, each under a key of its own in the control
store, and has one timer, for the earliest. An event is removed from the store in the transaction
that appends it (`Directives.takes`). So it is published exactly once, also after a kill, and when
several nodes that share a store try to publish it. The memory store loses the schedule with its
process.

Over 400 lines: the service and its clients share the forms of requests and answers.
"""

import asyncio
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import orjson

from fastsse._records import pack_events, unpack_events
from fastsse.control.service import Answer, Broadcast, ControlClient, ControlStore, Publish
from fastsse.directives import Directives, own_key
from fastsse.errors import AlreadyTaken, FastsseError, KeyReused, NotKept, Unavailable
from fastsse.events import Event
from fastsse.log import get_logger

__all__ = [
    "FIRST",
    "SUBJECT",
    "Schedule",
    "ScheduleBounds",
    "ScheduleCounts",
    "SchedulePage",
    "ScheduleService",
    "ScheduledEvent",
]

log = get_logger("schedule")
SUBJECT: Final = "schedule"
#: Asks for the first page of the list.
FIRST: Final = (0, "")
_ADD, _LIST, _LOOK, _CANCEL = b"a", b"l", b"g", b"c"
_DONE, _FULL, _UNKNOWN, _REUSED, _NOT_NOW = b"+", b"-", b"?", b"k", b"!"
_PENDING, _DEAD = "p/", "d/"
_NUMBER: Final = 8
_ID_BYTES: Final = 16
_HEAD: Final = _NUMBER + _ID_BYTES
# How many events are appended at the same time. The others wait in their order.
APPENDING_MAX: Final = 256
# The longest timer. The clock may be set meanwhile.
TIMER_S_MAX: Final = 60.0
# The pause after the store refused an event.
AGAIN_S: Final = 0.5
# Memory of an event in addition to its text.
_COST_BYTES: Final = 400
DEAD_MAX: Final = 1_000
PAGE: Final = 200
# A message between processes has at most 1 MiB.
EVENT_BYTES_MAX: Final = 900 * 1024
_FULL_RETRY_S: Final = 60


Append = Callable[[Sequence[Event], Callable[[Sequence[int] | FastsseError], None]], None]
"""As `backbone.Backbone.append`."""


class ScheduleBounds(NamedTuple):
    """How many delayed events there may be, and how many bytes of them."""

    events: int
    total_bytes: int


class ScheduleCounts:
    """The counters of the service, for the metrics."""

    def __init__(self) -> None:
        self.values: Final = dict.fromkeys(
            (
                "schedule_events",
                "schedule_bytes",
                "schedule_delivered",
                "schedule_cancelled",
                "schedule_dead",
            ),
            0,
        )

    def read(self) -> dict[str, int]:
        """Under the names of the metrics."""
        return dict(self.values)


class ScheduleService:
    """Keeps the delayed events of a node. Made by `service.Services`. Requests are

    a due(8 bytes, unix ms) bounds(2 x 8) id digest events    + kept; + and due, a repeat of what is
                                                              kept; - full; k another request had
                                                              this id; ! not now
    l JSON [due, id]                                          a page of what comes behind
    g id                                                      + and its topics, ? unknown
    c id                                                      + cancelled, ? unknown, !
    """

    def __init__(
        self,
        broadcast: Broadcast,
        store: ControlStore,
        publish: Publish,
        append: Append,
        counts: ScheduleCounts,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._append = append
        self._now_s = now_s
        self._counts = counts.values
        # Time and size of each event; and their order, without those that are being appended.
        self._known: dict[str, tuple[int, int]] = {}
        self._order: list[tuple[int, str]] = []
        self._appending = 0
        self._timer: asyncio.TimerHandle | None = None
        self._pause_until_s = 0.0
        self._is_closed = False
        for key, value in store.items(_PENDING):
            self._note(key.removeprefix(_PENDING), value)
        self._dead = [key for key, _ in store.items(_DEAD)]
        store.listen(_PENDING, self._learn)
        store.listen(_DEAD, lambda key, letter: self._note_dead(key))
        self._arm()

    # -- requests -------------------------------------------------------------------------------

    def on_request(self, worker: int, message: bytes, answer: Answer) -> None:
        """Stores, lists or cancels delayed events."""
        kind, rest = message[:1], message[1:]
        if kind == _ADD:
            self._add(rest, answer)
        elif kind == _LIST:
            due_ms, entry_id = orjson.loads(rest)
            answer(orjson.dumps(self._page(due_ms, entry_id)))
        elif kind == _LOOK:
            value = self._store.get(_PENDING + rest.hex())
            answer(_UNKNOWN if value is None else _DONE + orjson.dumps(_topics(value)))
        else:
            self._cancel(rest.hex(), answer)

    def on_message(self, worker: int, message: bytes) -> None:
        """Not used."""

    def on_worker_gone(self, worker: int) -> None:
        """Not used: delayed events do not belong to a worker."""

    def close(self) -> None:
        """Ends the timer."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _add(self, rest: bytes, answer: Answer) -> None:
        due, bounds, rest = rest[:_NUMBER], rest[_NUMBER : 3 * _NUMBER], rest[3 * _NUMBER :]
        entry_id, value = rest[:_ID_BYTES].hex(), due + rest[_ID_BYTES:]
        known = self._store.get(_PENDING + entry_id)
        if known is not None:
            is_same = known[_NUMBER:_HEAD] == value[_NUMBER:_HEAD]
            answer(_DONE + known[:_NUMBER] if is_same else _REUSED)
            return
        size = len(value) + _COST_BYTES
        events_max, bytes_max = (int.from_bytes(bounds[at : at + 8]) for at in (0, 8))
        is_full = len(self._known) >= events_max
        if is_full or self._counts["schedule_bytes"] + size > bytes_max:
            answer(_FULL)
            return
        self._store.put(_PENDING + entry_id, value)
        self._note(entry_id, value)

        def stored(is_stored: bool) -> None:
            if not is_stored:
                self._drop(entry_id)
            answer(_DONE if is_stored else _NOT_NOW)
            self._arm()

        self._store.when_stored(stored)

    def _page(self, due_ms: int, entry_id: str) -> dict[str, Any]:
        """A page of the events that are due after a given one. The first page has the newest dead
        letters too."""
        begin = bisect_right(self._order, (due_ms, entry_id))
        found = []
        for due, key in self._order[begin : begin + PAGE]:
            value = self._store.get(_PENDING + key)
            if value is not None:
                found.append({"id": key, "due": due, "topics": _topics(value), "size": len(value)})
        is_more = begin + PAGE < len(self._order)
        last = self._order[begin + PAGE - 1] if is_more else None
        dead = [] if entry_id else [self._store.get(key) for key in reversed(self._dead[-PAGE:])]
        letters = [orjson.loads(letter) for letter in dead if letter is not None]
        return {"events": found, "dead": letters, "next": last}

    def _cancel(self, entry_id: str, answer: Answer) -> None:
        value = self._store.get(_PENDING + entry_id)
        if value is None or not self._is_waiting(entry_id):
            answer(_UNKNOWN)
            return

        def taken(was_there: bool | None) -> None:
            if was_there is None:
                answer(_NOT_NOW)
                return
            self._forget(entry_id)
            self._counts["schedule_cancelled"] += was_there
            self._store.when_stored(
                lambda is_stored: answer(
                    (_DONE if was_there else _UNKNOWN) if is_stored else _NOT_NOW
                )
            )

        self._store.take(_PENDING + entry_id, taken)

    def _is_waiting(self, entry_id: str) -> bool:
        """Whether an event is known, and not being appended now. O(log n)."""
        return entry_id in self._known and self._place(entry_id) is not None

    def _place(self, entry_id: str) -> int | None:
        one = (self._known[entry_id][0], entry_id)
        at = bisect_left(self._order, one)
        return at if at < len(self._order) and self._order[at] == one else None

    # -- delivery -------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Sets the timer for the earliest event."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._order or self._is_closed or self._appending >= APPENDING_MAX:
            return
        at_s = max(self._order[0][0] / 1000, self._pause_until_s)
        delay_s = min(max(0.0, at_s - self._now_s()), TIMER_S_MAX)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._deliver_due)

    def _deliver_due(self) -> None:
        self._timer = None
        now_s = self._now_s()
        while self._order and self._appending < APPENDING_MAX and now_s >= self._pause_until_s:
            due_ms, entry_id = self._order[0]
            if due_ms > now_s * 1000:
                break
            del self._order[0]
            self._deliver(entry_id)
        self._arm()

    def _deliver(self, entry_id: str) -> None:
        value = self._store.get(_PENDING + entry_id)
        if value is None:  # Another node has published or cancelled it.
            self._forget(entry_id)
            return
        events = list(unpack_events(value[_HEAD:]))
        asked = events[0].directives or Directives()
        key = asked.key
        if key is None and asked.request is None:
            # For a Redis that lost the answer to a write: the event is written again after it was
            # taken.
            key = own_key(b"schedule:" + entry_id.encode())
        takes = f"{SUBJECT}/{_PENDING}{entry_id}".encode()
        events[0].direct(asked._replace(key=key, takes=takes))
        self._appending += 1
        self._append(events, lambda outcome: self._delivered(entry_id, value, outcome))

    def _delivered(
        self, entry_id: str, value: bytes, outcome: Sequence[int] | FastsseError
    ) -> None:
        self._appending -= 1
        if isinstance(outcome, Unavailable):
            insort(self._order, (_due(value), entry_id))
            self._pause_until_s = self._now_s() + AGAIN_S
        else:
            self._drop(entry_id)
            if not isinstance(outcome, FastsseError):
                self._counts["schedule_delivered"] += 1
            elif not isinstance(outcome, AlreadyTaken):
                self._bury(entry_id, value, outcome)
        self._arm()

    def _bury(self, entry_id: str, value: bytes, error: FastsseError) -> None:
        """An event can no longer be published, for example because its topic has ended. The key
        of its letter is the same at each node, because several may have tried at the same time."""
        key = f"{_DEAD}{_due(value):015}-{entry_id}"
        if key in self._dead:
            return
        self._counts["schedule_dead"] += 1
        topics = _topics(value)
        log.warning(
            "A delayed event can't be published.", id=entry_id, topics=topics, why=str(error)
        )
        letter = {"id": entry_id, "due": _due(value), "topics": topics, "reason": str(error)}
        self._store.put(key, orjson.dumps(letter))
        self._note_dead(key)

    def _note_dead(self, key: str) -> None:
        """A dead letter of this node or another. Each node removes the oldest ones."""
        if key not in self._dead:
            insort(self._dead, key)
        while len(self._dead) > DEAD_MAX:
            self._store.put(self._dead.pop(0), None)

    # -- what is known --------------------------------------------------------------------------

    def _note(self, entry_id: str, value: bytes) -> None:
        if entry_id in self._known:
            return
        due_ms, size = _due(value), len(value) + _COST_BYTES
        self._known[entry_id] = due_ms, size
        insort(self._order, (due_ms, entry_id))
        self._counts["schedule_events"] += 1
        self._counts["schedule_bytes"] += size

    def _learn(self, key: str, value: bytes) -> None:
        """Another node keeps an event, or has cancelled it."""
        if value:
            self._note(key.removeprefix(_PENDING), value)
        else:
            self._forget(key.removeprefix(_PENDING))
        self._arm()

    def _drop(self, entry_id: str) -> None:
        """Forgets an event, also in the store."""
        self._store.put(_PENDING + entry_id, None)
        self._forget(entry_id)

    def _forget(self, entry_id: str) -> None:
        if entry_id not in self._known:
            return
        place = self._place(entry_id)
        if place is not None:
            del self._order[place]
        self._counts["schedule_events"] -= 1
        self._counts["schedule_bytes"] -= self._known.pop(entry_id)[1]


def _due(value: bytes) -> int:
    return int.from_bytes(value[:_NUMBER])


def _topics(value: bytes) -> list[str]:
    return list(unpack_events(value[_HEAD:])[0].topics)


class ScheduledEvent(NamedTuple):
    """A delayed event, as it is listed. Times are unix milliseconds; `reason` says why it was not
    published, and is empty while it waits."""

    id: str
    deliver_at_ms: int
    topics: tuple[str, ...]
    size_bytes: int
    reason: str = ""


class SchedulePage(NamedTuple):
    """Delayed events in the order in which they are due, the newest that could not be published
    (with the first page), and what to ask for next; None at the end."""

    events: Sequence[ScheduledEvent]
    dead: Sequence[ScheduledEvent]
    next: tuple[int, str] | None


class Schedule:
    """A worker's way to the schedule of its node. Loop thread only.

    Arguments:
        control: the control client of the worker.
        bounds: as the options say.
    """

    def __init__(self, control: ControlClient, bounds: ScheduleBounds) -> None:
        self._control = control
        self._bounds = bounds

    def add(
        self,
        entry_id: str,
        digest: bytes,
        due_ms: int,
        events: Sequence[Event],
        done: Callable[[int | FastsseError], None],
    ) -> None:
        """Keeps events as one batch until they are due; gives `done` the time at which they are
        published, in unix milliseconds, when they survive a kill, where the store does. For a
        repeat it is the time of the first request.

        Arguments:
            entry_id: 32 hexadecimal digits; the same again is a repeat.
            digest: 16 bytes; a repeat with others is KeyReused.
        """
        drafts = pack_events(events)
        if len(drafts) > EVENT_BYTES_MAX:
            done(Unavailable("schedule", _FULL_RETRY_S))
            return

        def answered(answer: bytes | FastsseError) -> None:
            if isinstance(answer, bytes) and answer[:1] == _DONE:
                done(_due(answer[1:]) if len(answer) > 1 else due_ms)
            elif answer == _REUSED:
                done(KeyReused(events[0].topics[0]))
            else:
                done(Unavailable("schedule", _FULL_RETRY_S if answer == _FULL else 1))

        numbers = b"".join(number.to_bytes(_NUMBER) for number in (due_ms, *self._bounds))
        head = _ADD + numbers + bytes.fromhex(entry_id) + digest
        self._control.ask(SUBJECT, head + drafts, answered)

    def list(
        self, after: tuple[int, str], done: Callable[[SchedulePage | FastsseError], None]
    ) -> None:
        """Gives `done` a page of what is due after an event, FIRST for the first."""

        def answered(answer: bytes | FastsseError) -> None:
            if isinstance(answer, FastsseError):
                done(answer)
                return
            page = orjson.loads(answer)
            done(
                SchedulePage(
                    [_listed(one) for one in page["events"]],
                    [_listed(one) for one in page["dead"]],
                    None if page["next"] is None else (page["next"][0], page["next"][1]),
                )
            )

        self._control.ask(SUBJECT, _LIST + orjson.dumps(after), answered)

    def topics_of(
        self, entry_id: str, done: Callable[[Sequence[str] | FastsseError], None]
    ) -> None:
        """Gives `done` the topics of an event that waits, or NotKept."""

        def answered(answer: bytes | FastsseError) -> None:
            if isinstance(answer, FastsseError):
                done(answer)
            elif answer[:1] == _DONE:
                done(orjson.loads(answer[1:]))
            else:
                done(not_scheduled())

        self._control.ask(SUBJECT, _LOOK + bytes.fromhex(entry_id), answered)

    def cancel(self, entry_id: str, done: Callable[[FastsseError | None], None]) -> None:
        """Removes an event that waits; gives `done` NotKept for one that does not wait any more."""

        def answered(answer: bytes | FastsseError) -> None:
            if isinstance(answer, FastsseError) or answer == _NOT_NOW:
                done(Unavailable("schedule", 1))
            else:
                done(None if answer == _DONE else not_scheduled())

        self._control.ask(SUBJECT, _CANCEL + bytes.fromhex(entry_id), answered)


def not_scheduled() -> NotKept:
    """The error about an id."""
    return NotKept("id", "No delayed event has this id; perhaps it was published.")


def _listed(one: dict[str, Any]) -> ScheduledEvent:
    return ScheduledEvent(
        one["id"], one["due"], tuple(one["topics"]), one.get("size", 0), one.get("reason", "")
    )
