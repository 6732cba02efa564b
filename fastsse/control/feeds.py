"""Feeds: selections of very many topics, stored under a short id that stands in a URL.

The id is a hash of the selection, so equal selections are one feed, and an id says nothing about
who may read. The control service of a node stores feeds in its own store, or in the store that
nodes share. A feed ends when it was not used for its lifetime.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson

from fastsse.control.service import Answer, Broadcast, ControlClient, ControlStore, Publish
from fastsse.errors import FastsseError, Unavailable
from fastsse.log import get_logger

__all__ = ["SUBJECT", "FeedBounds", "FeedService", "FeedTopics", "Feeds", "may_be_feed", "reported"]

log = get_logger("hub")
SUBJECT: Final = "feeds"
_ID_BYTES: Final = 16
_ID: Final = re.compile(r"[0-9a-f]{32}")
_STORE, _FIND, _USE = b"s", b"f", b"u"
_DONE, _FULL, _UNKNOWN, _NOT_NOW = b"+", b"-", b"?", b"!"
# The prefix of its keys in the store that nodes share.
_SHARED_PREFIX: Final = b"feed:"
_VALUE, _END = "v/", "e/"
# Memory of a feed in addition to its text.
_COST_BYTES: Final = 500
# A feed that was used within this time is not evicted for a new one.
IN_USE_S: Final = 3600.0
#: Bytes of feeds that a worker caches.
CACHE_BYTES_MAX: Final = 16 * 1024 * 1024
_TOPIC_COST_BYTES: Final = 70
_READING_COST_BYTES: Final = 2_000
#: Topics of a feed with which presence and hooks report a stream: they keep memory for each.
REPORTED_MAX: Final = 1_000
#: The least pause between two reports of the use of a feed by one worker.
USE_EVERY_S: Final = 60.0
_FULL_RETRY_S: Final = 60


class FeedBounds(NamedTuple):
    """The most feeds that a node keeps, their bytes, and the lifetime of an unused one."""

    feeds: int
    total_bytes: int
    life_ms: int


def reported(selectors: tuple[str, ...]) -> tuple[str, ...]:
    """The selectors of a stream for presence and hooks: of a feed the first REPORTED_MAX."""
    return tuple(selectors[:REPORTED_MAX]) if isinstance(selectors, FeedTopics) else selectors


class FeedTopics(tuple[str, ...]):
    """The topics of a feed, in the order of their names, and its id.

    Attributes:
        reading: what was read of the newest query with this feed, and the query; the caller's.
    """

    feed: str
    reading: tuple[bytes, Any] | None = None

    @classmethod
    def of(cls, topics: Iterable[str]) -> "FeedTopics":
        """The feed of these topics, each once. O(n log n)."""
        made = cls(sorted(set(topics)))
        made.feed = blake2b(made.pack(), digest_size=_ID_BYTES).hexdigest()
        return made

    @classmethod
    def unpack(cls, feed: str, packed: bytes) -> "FeedTopics":
        """The feed from the bytes of `pack`."""
        made = cls(orjson.loads(packed))
        made.feed = feed
        return made

    def pack(self) -> bytes:
        """Its canonical JSON."""
        return orjson.dumps(list(self))


def may_be_feed(text: str) -> bool:
    """Whether a text has the form of an id."""
    return _ID.fullmatch(text) is not None


class FeedService:
    """Stores the feeds of a node. Made by `service.Services`. Requests are

        s bounds(3 x 8 bytes) id topics     + stored, - there is no room, ! not now
        u bounds id                         + in use now, ? unknown, !
        f id                                + and its topics, ? unknown, !

    Bounded by number and bytes of the feeds that were stored or used at this node. A new one evicts
    feeds that were not used for IN_USE_S, and is refused where there is none.
    """

    def __init__(
        self,
        broadcast: Broadcast,
        store: ControlStore,
        publish: Publish,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._shared = store.one_time_store
        self._now_s = now_s
        # End in ms and size of each, the least recently used first.
        self._feeds: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._bytes = 0
        self._was_full = False
        if self._shared is None:
            self._load()

    def on_request(self, worker: int, message: bytes, answer: Answer) -> None:
        """Stores a feed, finds one, or records its use."""
        kind, rest = message[:1], message[1:]
        if kind == _FIND:
            self._find(rest.hex(), answer)
            return
        bounds = FeedBounds(*(int.from_bytes(rest[at : at + 8]) for at in (0, 8, 16)))
        feed, packed = rest[24 : 24 + _ID_BYTES].hex(), rest[24 + _ID_BYTES :]
        self._forget_ended()
        if kind == _STORE:
            self._keep(feed, packed, bounds, answer)
        else:
            self._use(feed, bounds, answer)

    def on_message(self, worker: int, message: bytes) -> None:
        """Not used."""

    def on_worker_gone(self, worker: int) -> None:
        """Not used: feeds do not belong to a worker."""

    def _load(self) -> None:
        ends = {key.removeprefix(_END): value for key, value in self._store.items(_END)}
        kept = [
            (int.from_bytes(ends.pop(feed, b"")), feed, len(value))
            for feed, value in (
                (key.removeprefix(_VALUE), value) for key, value in self._store.items(_VALUE)
            )
        ]
        for end_ms, feed, size in sorted(kept):
            self._feeds[feed] = end_ms, size
            self._bytes += size + _COST_BYTES
        for feed in ends:
            self._store.put(_END + feed, None)

    def _find(self, feed: str, answer: Answer) -> None:
        def found(value: bytes | FastsseError | None) -> None:
            if isinstance(value, FastsseError):
                answer(_NOT_NOW)
            else:
                answer(_UNKNOWN if value is None else _DONE + value)

        if self._shared is not None:
            self._shared.get(_shared_key(feed), found)
            return
        self._forget_ended()
        found(self._store.get(_VALUE + feed) if feed in self._feeds else None)

    def _keep(self, feed: str, packed: bytes, bounds: FeedBounds, answer: Answer) -> None:
        if feed not in self._feeds and not self._make_room(len(packed), bounds):
            if not self._was_full:
                log.warning("No other feed can be stored.", feeds=len(self._feeds))
            self._was_full = True
            answer(_FULL)
            return
        self._was_full = False
        if self._shared is None:
            if feed not in self._feeds:
                self._store.put(_VALUE + feed, packed)
            self._note(feed, len(packed), bounds)
            self._store.when_stored(lambda is_stored: answer(_DONE if is_stored else _NOT_NOW))
            return
        shared = self._shared

        def renewed(known: bool | None) -> None:
            if known:
                self._note(feed, len(packed), bounds)
            answer(_DONE if known else _NOT_NOW)

        def put(is_new: bool) -> None:
            if is_new:
                renewed(True)
            else:
                shared.renew(_shared_key(feed), bounds.life_ms, renewed)

        shared.put(_shared_key(feed), packed, bounds.life_ms, put)

    def _use(self, feed: str, bounds: FeedBounds, answer: Answer) -> None:
        if self._shared is None:
            is_known = feed in self._feeds
            if is_known:
                self._note(feed, self._feeds[feed][1], bounds)
            answer(_DONE if is_known else _UNKNOWN)
            return

        def renewed(known: bool | None) -> None:
            if known and feed in self._feeds:
                self._note(feed, self._feeds[feed][1], bounds)
            answer(_NOT_NOW if known is None else _DONE if known else _UNKNOWN)

        self._shared.renew(_shared_key(feed), bounds.life_ms, renewed)

    def _note(self, feed: str, size: int, bounds: FeedBounds) -> None:
        """Records that a feed is in use now."""
        if feed not in self._feeds:
            self._bytes += size + _COST_BYTES
        end_ms = round(self._now_s() * 1000) + bounds.life_ms
        self._feeds[feed] = end_ms, size
        self._feeds.move_to_end(feed)
        if self._shared is None:
            self._store.put(_END + feed, end_ms.to_bytes(8))

    def _make_room(self, size: int, bounds: FeedBounds) -> bool:
        """Evicts unused feeds to make room for another. Returns False if there is no room."""
        unused_ms = self._now_s() * 1000 + bounds.life_ms - IN_USE_S * 1000
        while self._feeds and not self._fits(size, bounds):
            feed, (end_ms, _) = next(iter(self._feeds.items()))
            if end_ms > unused_ms:
                return False
            self._drop(feed)
        return self._fits(size, bounds)

    def _fits(self, size: int, bounds: FeedBounds) -> bool:
        more = size + _COST_BYTES
        return len(self._feeds) < bounds.feeds and self._bytes + more <= bounds.total_bytes

    def _forget_ended(self) -> None:
        now_ms = self._now_s() * 1000
        while self._feeds:
            feed, (end_ms, _) = next(iter(self._feeds.items()))
            if end_ms > now_ms:
                return
            self._drop(feed)

    def _drop(self, feed: str) -> None:
        """In a shared store a feed ends by its lifetime, because another node may still use it."""
        self._bytes -= self._feeds.pop(feed)[1] + _COST_BYTES
        if self._shared is None:
            self._store.put(_VALUE + feed, None)
            self._store.put(_END + feed, None)


def _shared_key(feed: str) -> bytes:
    return _SHARED_PREFIX + bytes.fromhex(feed)


class Feeds:
    """The feeds that a worker has read, and its way to the others. Loop thread only.

    Arguments:
        control: the control client of the worker.
        bounds: as the options say.
        now_s: a clock that only goes forward.

    Attributes:
        stored, unknown: how many were stored for clients; how many ids were unknown.
    """

    def __init__(
        self,
        control: ControlClient,
        bounds: FeedBounds,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._control = control
        self._bounds = bounds
        self._now_s = now_s
        #: How often the use of a feed is to be reported, s.
        self.use_every_s: Final = min(USE_EVERY_S, bounds.life_ms / 4000)
        # The topics, and when the use was reported; the least recently used first.
        self._cached: OrderedDict[str, tuple[FeedTopics, float]] = OrderedDict()
        self._cached_bytes = 0
        self.stored = 0
        self.unknown = 0

    @property
    def life_s(self) -> float:
        """How long an unused feed is kept, s."""
        return self._bounds.life_ms / 1000

    def store(self, topics: FeedTopics, done: Callable[[FastsseError | None], None]) -> None:
        """Stores a feed, or renews it; gives `done` None, or Unavailable."""

        def answered(answer: bytes | FastsseError) -> None:
            if answer == _DONE:
                self.stored += 1
                self._cache(topics)
                done(None)
            else:
                done(Unavailable("feeds", _FULL_RETRY_S if answer == _FULL else 1))

        message = b"".join((self._head(_STORE, topics.feed), topics.pack()))
        self._control.ask(SUBJECT, message, answered)

    def find(self, feed: str) -> FeedTopics | None:
        """A feed that this worker has cached, and marks it as used; None for others. O(1)."""
        cached = self._cached.get(feed)
        if cached is None:
            return None
        self._cached.move_to_end(feed)
        self._use(*cached)
        return cached[0]

    def ask(self, feed: str, done: Callable[[FeedTopics | FastsseError | None], None]) -> None:
        """Gives `done` a feed; None for an unknown id; Unavailable if the store can't be asked."""

        def answered(answer: bytes | FastsseError) -> None:
            if isinstance(answer, FastsseError) or answer == _NOT_NOW:
                done(Unavailable("feeds", 1))
            elif answer[:1] != _DONE:
                self.unknown += 1
                done(None)
            else:
                self._cache(FeedTopics.unpack(feed, answer[1:]), used_s=-self.use_every_s)
                done(self.find(feed))

        self._control.ask(SUBJECT, _FIND + bytes.fromhex(feed), answered)

    def use(self, topics: FeedTopics) -> None:
        """Records that a stream uses this feed now."""
        _, used_s = self._cached.get(topics.feed, (topics, -self.use_every_s))
        self._use(topics, used_s)

    def _use(self, topics: FeedTopics, used_s: float) -> None:
        """Reports the use, but not too often. If the service has lost the feed, it is stored
        again."""
        now_s = self._now_s()
        if now_s - used_s < self.use_every_s:
            return
        if topics.feed in self._cached:
            self._cached[topics.feed] = topics, now_s

        def answered(answer: bytes | FastsseError) -> None:
            if answer == _UNKNOWN:
                message = b"".join((self._head(_STORE, topics.feed), topics.pack()))
                self._control.ask(SUBJECT, message, lambda answer: None)

        self._control.ask(SUBJECT, self._head(_USE, topics.feed), answered)

    def _head(self, kind: bytes, feed: str) -> bytes:
        numbers = b"".join(number.to_bytes(8) for number in self._bounds)
        return b"".join((kind, numbers, bytes.fromhex(feed)))

    def _cache(self, topics: FeedTopics, used_s: float | None = None) -> None:
        if topics.feed in self._cached:
            return
        self._cached[topics.feed] = topics, self._now_s() if used_s is None else used_s
        self._cached_bytes += _size(topics)
        while self._cached_bytes > CACHE_BYTES_MAX and len(self._cached) > 1:
            _, (evicted, _) = self._cached.popitem(last=False)
            self._cached_bytes -= _size(evicted)


def _size(topics: FeedTopics) -> int:
    text_bytes = sum(map(len, topics))
    return text_bytes + _TOPIC_COST_BYTES * len(topics) + _READING_COST_BYTES
