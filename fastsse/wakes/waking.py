"""Wakes: when subscriptions have new content, who is notified, and how long leases last."""

import asyncio
import secrets
import time
from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any, Final

import orjson

from fastsse.control.service import Publish
from fastsse.events import DATA_JSON, Event
from fastsse.log import get_logger
from fastsse.streamstate import StreamRow
from fastsse.wakes.delivery import WakeCalls
from fastsse.wakes.index import StreamIndex, StreamRowsHere
from fastsse.wakes.keys import WakeKeys, WakeStore
from fastsse.wakes.shown import callback_body, wake_message
from fastsse.wakes.subscription import LINKS_MAX, Link, Subscription, Wake

__all__ = ["Waker"]

log = get_logger("streams")
# Streams in one wake; more are in the next.
_WAKE_STREAMS_MAX: Final = 1_000
_TICK_S: Final = 0.1
_WAIT_S_MAX: Final = 60.0
_JITTER: Final = 0.2


class Waker:
    """Wakes the subscriptions of the store. Loop thread only.

    Arguments:
        rows: the streams.
        store: keeps subscriptions and the key.
        publish: writes to streams of wakes.
        calls: calls webhooks.

    Attributes:
        index: the subscriptions.
    """

    def __init__(
        self, rows: StreamRowsHere, store: WakeStore, publish: Publish, calls: WakeCalls
    ) -> None:
        self.index: Final = StreamIndex()
        self._rows: Final = rows
        self._store: Final = store
        self._publish: Final = publish
        self._calls: Final = calls
        self._loop: Final = asyncio.get_running_loop()
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._dirty: Final[dict[str, None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        for key, text in store.items("s/"):
            try:
                self.index.add(Subscription.decode(key[2:], text))
            except ValueError:
                log.error("A subscription to streams can't be read.", subscription=key[2:])
        rows.on_changed = self._on_changed
        self._waking: Final = iter(self.index.all())
        self._loop.call_soon(self._wake_next)

    @cached_property
    def keys(self) -> WakeKeys:
        """The keys, made when they are first needed."""
        return WakeKeys(self._store)

    async def end(self) -> None:
        """Ends calls and the timer."""
        self._is_closed, self._rows.on_changed = True, None
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _wake_next(self) -> None:
        """Takes up one subscription after a start: one a turn, because each costs O(streams)."""
        one = next(self._waking, None)
        if one is None or self._is_closed:
            return
        self._loop.call_soon(self._wake_next)
        if self.index.get(one.id) is not one:
            return
        for path, row in self.matching(one):
            # It was created when no process looked.
            if len(one.links) < LINKS_MAX:
                one.links.setdefault(path, Link(row.generation, is_glob=True))
        self.check_soon(one)
        if one.wake is not None or one.next_ms:
            self._tick_soon()

    def matching(self, one: Subscription) -> Iterator[tuple[str, StreamRow]]:
        """The streams that its pattern matches. O(streams)."""
        if one.glob is not None:
            for path, row in self._rows.rows.items():
                if (
                    path != one.config["wake_stream"]
                    and not row.is_hidden
                    and one.glob.fullmatch(path)
                ):
                    yield path, row

    def _on_changed(self, topic: str, row: StreamRow | None) -> None:
        """A stream has changed. O(its subscriptions)."""
        for one in self.index.of(topic):
            if row is None or row.is_hidden:
                self._unlink_deleted(one, topic)
                continue
            link = one.links.get(topic)
            if link is None and len(one.links) < LINKS_MAX:
                link = one.links[topic] = Link(row.generation, is_glob=True)
            if link is not None and row.tail > link.acked:
                self.check_soon(one)

    def _unlink_deleted(self, one: Subscription, topic: str) -> None:
        link = one.links.get(topic)
        if link is not None and not link.is_explicit:
            del one.links[topic]
        self.check_soon(one)

    def check_soon(self, one: Subscription) -> None:
        """Calls `wake_if_pending` in a later turn, because this may run within a commit."""
        if not self._is_closed and one.wake is None:
            if not self._dirty:
                self._loop.call_soon(self._check_changed)
            self._dirty[one.id] = None

    def _check_changed(self) -> None:
        names = list(self._dirty)
        self._dirty.clear()
        for name in names:
            one = self.index.get(name)
            if one is not None and not self._is_closed:
                self.wake_if_pending(one)

    def wake_if_pending(self, one: Subscription) -> None:
        """Makes a wake if the subscription is idle and a stream has new content. O(its streams)."""
        if one.wake is not None:
            return
        if one.next_ms > time.time() * 1000:
            self._tick_soon()
            return
        tails = self.pending(one)
        if not tails:
            return
        one.generation += 1
        one.wake = Wake("w_" + secrets.token_urlsafe(12), tails)
        self.keep(one)
        self._store.when_stored(partial(self._send, one, one.wake))

    def _send(self, one: Subscription, wake: Wake, is_stored: bool) -> None:
        """Sends a wake, after its generation is stored: no other wake will ever have it."""
        if self._is_closed or one.wake is not wake or self.index.get(one.id) is not one:
            return
        if not is_stored:
            one.wake = None
            self._postpone(one)
        elif one.webhook is None:
            self._write_wake(one, wake)
        else:
            self.lease(one, wake)
            self._spawn(self._call(one, wake, one.webhook))

    def _write_wake(self, one: Subscription, wake: Wake) -> None:
        data = orjson.dumps(wake_message(one, next(iter(wake.tails))))
        event = Event(one.config["wake_stream"], data, data_kind=DATA_JSON)

        def written(is_written: bool) -> None:
            is_unclaimed = one.wake is wake and wake.holder is None
            if not is_written and is_unclaimed and self.index.get(one.id) is one:
                one.wake = None
                self._postpone(one)

        self._publish((event,), written)

    async def _call(self, one: Subscription, wake: Wake, url: str) -> None:
        token = self.keys.token(one.id, one.generation, wake.id)
        body = orjson.dumps(callback_body(one, wake, token))
        is_done = await self._calls.call(url, body, self.keys)
        if one.wake is not wake or self.index.get(one.id) is not one:
            return
        if is_done is None:
            one.wake = None
            self._postpone(one)
        elif is_done:
            for path, place in wake.tails.items():
                if path in one.links:
                    one.links[path].acked = max(one.links[path].acked, place)
            one.wake, one.tries, one.next_ms = None, 0, 0
            self.keep(one)
            self.check_soon(one)
        else:
            one.tries, wake.holder = 0, url
            self.keep(one)

    def _postpone(self, one: Subscription) -> None:
        """The next try comes later: 1 s and more, up to a minute."""
        one.tries += 1
        wait_s = min(_WAIT_S_MAX, 2.0 ** min(one.tries - 1, 10))
        wait_s *= 1 + _JITTER * (secrets.randbelow(2001) / 1000 - 1)
        one.next_ms = int((time.time() + wait_s) * 1000)
        self.keep(one)
        self._tick_soon()

    def lease(self, one: Subscription, wake: Wake) -> None:
        """Begins the lease of a wake, or begins it again."""
        wake.until_ms = int(time.time() * 1000) + one.lease_ms
        self._tick_soon()

    def _tick_soon(self) -> None:
        if self._timer is None and not self._is_closed:
            self._timer = self._loop.call_later(_TICK_S, self._tick)

    def _tick(self) -> None:
        """Ends leases, and tries again what is due. One timer for all, while there are any."""
        self._timer = None
        now_ms = time.time() * 1000
        for one in self.index.all():
            wake = one.wake
            if wake is not None and wake.until_ms is not None:
                if wake.until_ms > now_ms:
                    self._tick_soon()
                else:
                    one.wake = None
                    self.check_soon(one)
            elif wake is None and one.next_ms:
                if one.next_ms > now_ms:
                    self._tick_soon()
                else:
                    one.next_ms = 0
                    self.check_soon(one)

    def tail(self, path: str) -> int:
        """Where a stream ends; 0 for none."""
        row = self._rows.rows.get(path)
        return 0 if row is None else row.tail

    def pending(self, one: Subscription) -> dict[str, int]:
        """Streams with new content, and their ends. O(its streams)."""
        found: dict[str, int] = {}
        for path, link in one.links.items():
            tail = self.tail(path)
            if tail > link.acked:
                found[path] = tail
                if len(found) >= _WAKE_STREAMS_MAX:
                    break
        return found

    def keep(self, one: Subscription) -> None:
        """Stores a subscription as it is now."""
        if not self._is_closed:
            self._store.put(f"s/{one.id}", one.encode())

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
