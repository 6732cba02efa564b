"""Subscription events of Mercure ("Active Subscriptions"), and the roster of a single node.

The start and the end of a stream are a private event for each of its selectors. Each has a topic
of its own, so a subscriber with a grant for those topics receives it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import islice, starmap
from sys import intern
from typing import Any, Final, NamedTuple
from urllib.parse import quote_plus

import orjson

from fastsse.control.cluster import Answer, Change, Subscriber, cost_bytes_of, packed_of
from fastsse.control.service import Publish
from fastsse.errors import InvalidEvent
from fastsse.events import DATA_JSON, Event
from fastsse.log import get_logger
from fastsse.reserved import HUB_PATH

__all__ = [
    "ANSWER_BYTES",
    "CONTEXT",
    "LISTED_MAX",
    "LocalRoster",
    "Subscribed",
    "events_of",
    "path_of",
    "subscription_document",
]

CONTEXT: Final = "https://mercure.rocks/"
#: Subscriptions that one answer may list, and its bytes, about.
LISTED_MAX: Final = 50_000
ANSWER_BYTES: Final = 8 * 1024 * 1024
# Events that are published in one batch, and their bytes, about.
_BATCH: Final = 500
_BATCH_BYTES: Final = 256 * 1024
# Bytes of changes that may wait to be published. Above it the oldest changes are listed but not
# announced.
UNANNOUNCED_BYTES_MAX: Final = 64 * 1024 * 1024
# Counted size of an opened stream. The control service holds the stream itself until it ends.
_WAITING_COST_BYTES: Final = 160
_AGAIN_S: Final = 0.5
log = get_logger("presence")
# Number and length of topics whose escaped form is cached.
_ESCAPED_KEPT: Final = 4_096
_ESCAPED_MAX: Final = 256
_ALL: Final = f"{HUB_PATH}/subscriptions"
_escape_short = lru_cache(_ESCAPED_KEPT)(quote_plus)


def _escape(topic: str) -> str:
    return _escape_short(topic) if len(topic) <= _ESCAPED_MAX else quote_plus(topic)


class Subscribed(NamedTuple):
    """One selector of one stream."""

    topic: str
    subscriber: str
    payload: Any


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


def events_of(one: Subscriber, active: bool) -> Iterator[Event]:
    """The events for a stream that opened or ended."""
    for selector in one.selectors:
        subscribed = Subscribed(selector, one.name, one.payload)
        document = {"@context": CONTEXT, **subscription_document(subscribed, active=active)}
        try:
            yield Event(
                path_of(selector, one.name),
                orjson.dumps(document),
                private=True,
                id_style="uuid",
                data_kind=DATA_JSON,
            )
        except InvalidEvent:
            continue  # Its escaped form is too long for a topic: listed only.


class LocalRoster:
    """The `Roster` of a node without other nodes: in memory. A stream with one selector costs about
    300 bytes, including those in the control service, if others have the same payload or none.

    Arguments:
        publish: takes the events.
    """

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        # What each subscriber has behind its name, by name.
        self._by_selector: dict[str, dict[str, bytes]] = {}
        self._count = 0
        self._unannounced: deque[tuple[Change, int]] = deque()
        self._unannounced_bytes = 0
        self._dropped = 0
        self._goes_on = False

    def begin(self, present: Callable[[], Iterable[bytes]]) -> None:
        """As Roster."""
        self._present = present

    def note(self, changes: Sequence[Change]) -> None:
        """As Roster. O(selectors). Many changes are announced in batches, each after the previous
        was published."""
        for packed, came in changes:
            if came:
                self._add(packed)
            else:
                self._drop(packed)
        self._wait_to_announce(changes)
        if not self._goes_on:
            self._announce_some()

    def find(self, topic: str | None, name: str | None, most: int, answer: Answer) -> None:
        """As Roster, within the call. O(what is listed)."""
        count, found = self._find(topic, name)
        listed: list[bytes] = []
        size = 0
        for one in islice(found, most):
            text = orjson.dumps(tuple(one))
            size += len(text)
            if size > ANSWER_BYTES:
                break
            listed.append(text)
        answer(b"[%d,[%b]]" % (count, b",".join(listed)))

    def _add(self, packed: bytes) -> None:
        one = Subscriber.unpack(packed)
        rest = one.rest()
        for selector in one.selectors:
            self._by_selector.setdefault(selector, {})[intern(one.name)] = rest
        self._count += len(one.selectors)

    def _drop(self, packed: bytes) -> None:
        one = Subscriber.unpack(packed)
        for selector in one.selectors:
            there = self._by_selector[selector]
            del there[one.name]
            if not there:
                del self._by_selector[selector]
        self._count -= len(one.selectors)

    def _find(self, topic: str | None, name: str | None) -> tuple[int, Iterator[Subscribed]]:
        if topic is None:
            return self._count, (
                Subscribed(selector, one.name, one.payload)
                for one in map(Subscriber.unpack, self._present())
                for selector in one.selectors
            )
        there = self._by_selector.get(topic, {})
        if name is not None:
            rest = there.get(name)
            there = {} if rest is None else {name: rest}
        found = map(Subscriber.unpack, starmap(packed_of, there.items()))
        return len(there), (Subscribed(topic, one.name, one.payload) for one in found)

    def _wait_to_announce(self, changes: Sequence[Change]) -> None:
        for change in changes:
            cost_bytes = _WAITING_COST_BYTES if change[1] else cost_bytes_of(change)
            self._unannounced.append((change, cost_bytes))
            self._unannounced_bytes += cost_bytes
        while self._unannounced_bytes > UNANNOUNCED_BYTES_MAX:
            self._unannounced_bytes -= self._unannounced.popleft()[1]
            if not self._dropped:
                log.warning("Changes of subscriptions are not announced: too many wait.")
            self._dropped += 1

    def _announce_some(self) -> None:
        """Publishes a bounded number, in order, because an ended worker may have had very many."""
        events: list[Event] = []
        taken: list[tuple[Change, int]] = []
        size_bytes = 0
        while self._unannounced and len(events) < _BATCH and size_bytes < _BATCH_BYTES:
            taken.append(self._unannounced.popleft())
            size_bytes += taken[-1][1]
            packed, came = taken[-1][0]
            events += events_of(Subscriber.unpack(packed), came)
        self._unannounced_bytes -= size_bytes
        self._goes_on = bool(events)
        if self._dropped and not self._unannounced:
            log.warning("Changes of subscriptions were not announced.", count=self._dropped)
            self._dropped = 0
        if events:
            self._publish(events, partial(self._announced, taken))

    def _announced(self, taken: Sequence[tuple[Change, int]], is_published: bool) -> None:
        """Continues with the next ones. Refused ones are published again."""
        if not is_published:
            self._unannounced.extendleft(reversed(taken))
            self._unannounced_bytes += sum(cost_bytes for _, cost_bytes in taken)
        delay_s = 0 if is_published else _AGAIN_S
        asyncio.get_running_loop().call_later(delay_s, self._announce_some)
