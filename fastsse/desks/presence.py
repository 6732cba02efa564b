"""Who is there: every stream's selectors, in one place of the node, and an event for each change.

Workers tell the desk what opened and what ended, one message a turn of their loop. The desk
publishes a private event for each selector of each stream, under a topic of its own, so that
whoever has a grant for those topics sees them come and go (Mercure, "Active Subscriptions"), and
answers who is there now. What a killed worker held is taken out and announced as ended.

Cost, in memory of the desk's process: about 1 KiB for a stream with one selector. Nothing is
kept or told while the option `subscriptions` is off.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import islice
from typing import Any, Final, NamedTuple
from urllib.parse import quote_plus

import orjson

from fastsse.desks.control import Broadcast, Control, Publish, Store
from fastsse.errors import FastsseError, InvalidEvent
from fastsse.events import Event
from fastsse.reserved import HUB_PATH

__all__ = [
    "LISTED_MOST",
    "SUBJECT",
    "Found",
    "Presence",
    "PresenceDesk",
    "Subscribed",
    "path_of",
    "subscription_document",
]

SUBJECT: Final = "presence"
CONTEXT: Final = "https://mercure.rocks/"
#: Subscriptions that one answer may list.
LISTED_MOST: Final = 50_000
# Bytes of changes in one message, and of what one answer lists, about.
_MESSAGE_BYTES: Final = 64 * 1024
_ANSWER_BYTES: Final = 8 * 1024 * 1024
# Events that are published in one batch.
_BATCH: Final = 500
_OPENED, _ENDED = 1, 0
_ESCAPED_KEPT: Final = 4_096


class Subscribed(NamedTuple):
    """One selector of one stream."""

    topic: str
    subscriber: str
    payload: Any


class Found(NamedTuple):
    """How many subscriptions there are, and as many of them as were asked for."""

    total: int
    subscriptions: list[Subscribed]


_ALL: Final = f"{HUB_PATH}/subscriptions"
_escape = lru_cache(_ESCAPED_KEPT)(quote_plus)


def path_of(topic: str | None = None, subscriber: str | None = None) -> str:
    """The path of a collection or of one subscription, which is its topic too; escaped as the
    reference hub does, so a space is a plus."""
    if topic is None:
        return _ALL
    if subscriber is None:
        return f"{_ALL}/{_escape(topic)}"
    # A UUID's name needs no more.
    return f"{_ALL}/{_escape(topic)}/{subscriber.replace(':', '%3A')}"


def subscription_document(one: Subscribed, *, active: bool) -> dict[str, object]:
    """A subscription as JSON-LD, without its context."""
    members: dict[str, object] = {
        "id": path_of(one.topic, one.subscriber),
        "type": "Subscription",
        "topic": one.topic,
        "subscriber": one.subscriber,
        "active": active,
    }
    if one.payload is not None:
        members["payload"] = one.payload
    return members


class _Subscriber(NamedTuple):
    """A stream that is open."""

    worker: int
    name: str
    selectors: tuple[str, ...]
    payload: Any


class PresenceDesk:
    """Knows all streams of a node. Made by `control.Desks`; its process's loop thread."""

    def __init__(self, broadcast: Broadcast, store: Store, publish: Publish) -> None:
        self._publish = publish
        self._subscribers: dict[str, _Subscriber] = {}
        self._by_selector: dict[str, dict[str, _Subscriber]] = {}
        self._count = 0
        self._unannounced: deque[tuple[_Subscriber, bool]] = deque()
        self._goes_on = False

    def told(self, worker: int, message: bytes) -> None:
        """Streams opened and ended. O(selectors)."""
        changes: list[tuple[_Subscriber, bool]] = []
        for what, name, *rest in orjson.loads(message):
            if what == _OPENED:
                selectors, payload = rest
                self._open(_Subscriber(worker, name, tuple(selectors), payload), changes)
            else:
                self._end(name, changes)
        self._announce(changes)

    def asked(self, worker: int, message: bytes, answer: Callable[[bytes], None]) -> None:
        """Who is there: for a topic or all, one subscriber or all. O(what is listed)."""
        topic, name, most = orjson.loads(message)
        count, found = self._find(topic, name)
        listed: list[bytes] = []
        size = 0
        for one in islice(found, most):
            text = orjson.dumps(tuple(one))
            size += len(text)
            if size > _ANSWER_BYTES:
                break
            listed.append(text)
        answer(b"[%d,[%b]]" % (count, b",".join(listed)))

    def left(self, worker: int) -> None:
        """A worker's streams ended with it. O(streams of the node); it is announced in turns."""
        gone = [one.name for one in self._subscribers.values() if one.worker == worker]
        changes: list[tuple[_Subscriber, bool]] = []
        for name in gone:
            self._end(name, changes)
        self._announce(changes)

    def _open(self, one: _Subscriber, changes: list[tuple[_Subscriber, bool]]) -> None:
        if one.name in self._subscribers:
            return  # Told again.
        self._subscribers[one.name] = one
        for selector in one.selectors:
            self._by_selector.setdefault(selector, {})[one.name] = one
        self._count += len(one.selectors)
        changes.append((one, True))

    def _end(self, name: str, changes: list[tuple[_Subscriber, bool]]) -> None:
        one = self._subscribers.pop(name, None)
        if one is None:
            return
        for selector in one.selectors:
            there = self._by_selector[selector]
            del there[name]
            if not there:
                del self._by_selector[selector]
        self._count -= len(one.selectors)
        changes.append((one, False))

    def _find(self, topic: str | None, name: str | None) -> tuple[int, Iterator[Subscribed]]:
        if topic is None:
            every = self._subscribers.values()
            return self._count, (
                Subscribed(selector, one.name, one.payload)
                for one in every
                for selector in one.selectors
            )
        there = self._by_selector.get(topic, {})
        if name is not None:
            one = there.get(name)
            there = {} if one is None else {name: one}
        return len(there), (Subscribed(topic, one.name, one.payload) for one in there.values())

    def _announce(self, changes: Iterable[tuple[_Subscriber, bool]]) -> None:
        self._unannounced.extend(changes)
        if not self._goes_on:
            self._announce_some()

    def _announce_some(self) -> None:
        """Publishes a bounded number, in order; a worker that died may have had very many."""
        events: list[Event] = []
        while self._unannounced and len(events) < _BATCH:
            events += _events_of(*self._unannounced.popleft())
        if events:
            self._publish(events)
        self._goes_on = bool(self._unannounced)
        if self._goes_on:
            asyncio.get_running_loop().call_later(0, self._announce_some)


def _events_of(one: _Subscriber, active: bool) -> Iterator[Event]:
    """What is published of a stream that opened or ended."""
    for selector in one.selectors:
        subscribed = Subscribed(selector, one.name, one.payload)
        document = {"@context": CONTEXT, **subscription_document(subscribed, active=active)}
        try:
            yield Event(
                path_of(selector, one.name),
                orjson.dumps(document),
                private=True,
                id_style="uuid",
            )
        except InvalidEvent:
            continue  # A selector so long that its escaped form is no topic; it is listed still.


class Presence:
    """A worker's side: tells the desk of its streams, asks it who is there. Loop thread only.

    Arguments:
        control: the way to the desk.
        call_soon: the loop's; what happens in one turn is told at once.
    """

    def __init__(self, control: Control, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._control = control
        self._call_soon = call_soon
        self._names: dict[int, tuple[str, tuple[str, ...], Any]] = {}
        self._untold: list[tuple[Any, ...]] = []
        control.on_back.append(self._tell_all)

    def opened(self, stream: int, selectors: tuple[str, ...], payload: Any) -> None:
        """A stream is open."""
        name = _new_name()
        self._names[stream] = name, selectors, payload
        self._note((_OPENED, name, selectors, payload))

    def closed(self, stream: int) -> None:
        """A stream has ended."""
        known = self._names.pop(stream, None)
        if known is not None:
            self._note((_ENDED, known[0]))

    def find(
        self,
        topic: str | None,
        subscriber: str | None,
        most: int,
        done: Callable[[Found | FastsseError], None],
    ) -> None:
        """Gives `done` the subscriptions of the whole service to a topic (None: to any) by a
        subscriber (None: by any), at most so many."""
        question = orjson.dumps((topic, subscriber, most))
        self._control.ask(SUBJECT, question, partial(_found, done))

    def _note(self, change: tuple[Any, ...]) -> None:
        if not self._untold:
            self._call_soon(self._tell)
        self._untold.append(change)

    def _tell(self) -> None:
        changes, self._untold = self._untold, []
        self._send(changes)

    def _tell_all(self) -> None:
        """The desk is a new one."""
        self._send([(_OPENED, *known) for known in self._names.values()])

    def _send(self, changes: Sequence[tuple[Any, ...]]) -> None:
        """Tells changes in order, in messages of bounded size."""
        some: list[bytes] = []
        size = 0
        for change in changes:
            text = orjson.dumps(change)
            if some and size + len(text) > _MESSAGE_BYTES:
                self._control.tell(SUBJECT, b"[%b]" % b",".join(some))
                some, size = [], 0
            some.append(text)
            size += len(text)
        if some:
            self._control.tell(SUBJECT, b"[%b]" % b",".join(some))


def _found(done: Callable[[Found | FastsseError], None], answer: bytes | FastsseError) -> None:
    if isinstance(answer, FastsseError):
        done(answer)
        return
    count, listed = orjson.loads(answer)
    done(Found(count, [Subscribed(*one) for one in listed]))


def _new_name() -> str:
    """A UUID of version 4 (RFC 9562 §5.4); `uuid.uuid4` takes twice as long."""
    digits = bytearray(os.urandom(16))
    digits[6] = digits[6] & 0x0F | 0x40
    digits[8] = digits[8] & 0x3F | 0x80
    text = digits.hex()
    return f"urn:uuid:{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
