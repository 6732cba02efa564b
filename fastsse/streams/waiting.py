"""Long-polls that wait: a row each, one timer for all."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from fastsse.auth.rights import Rights
from fastsse.hub.ended_rights import EndedRights, HaveEnded

__all__ = ["Waiters"]

# Timers may be some milliseconds early.
_AFTER_END_S: Final = 0.02


class _Waiter:
    __slots__ = ("called", "deadline_s", "rights", "topic")

    def __init__(
        self,
        topic: str,
        rights: Rights | None,
        called: Callable[[bool], None],
        deadline_s: float,
    ) -> None:
        self.topic = topic
        self.rights = rights
        self.called: Callable[[bool], None] | None = called
        self.deadline_s = deadline_s


class Waiters:
    """Long-polls, by the topic whose content they wait for. Loop thread only.

    Arguments:
        timeout_s: how long each waits.
    """

    def __init__(self, timeout_s: float) -> None:
        self.count = 0
        self._timeout_s: Final = timeout_s
        self._loop: Final = asyncio.get_running_loop()
        self._by_topic: Final[dict[str, dict[_Waiter, None]]] = {}
        self._in_order: Final[deque[_Waiter]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._ended_rights = EndedRights(lambda: self._in_order, self._end)

    def __contains__(self, topic: str) -> bool:
        return topic in self._by_topic

    def add(
        self, topic: str, rights: Rights | None, called: Callable[[bool], None]
    ) -> Callable[[], None]:
        """Calls `called` once: with True when the topic has new content, with False after the
        timeout or when the client's rights end. Returns what ends the waiting without a call, for a
        client that is gone. O(1)."""
        waiter = _Waiter(topic, rights, called, self._loop.time() + self._timeout_s)
        self._by_topic.setdefault(topic, {})[waiter] = None
        self._in_order.append(waiter)
        self.count += 1
        if self._timer is None:
            self._timer = self._loop.call_at(waiter.deadline_s, self._expire)
        if rights is not None and rights.expires_s is not None:
            left_s = rights.expires_s - time.time()
            if left_s < self._timeout_s:
                self._loop.call_later(max(0.0, left_s) + _AFTER_END_S, self._end, waiter)
        return lambda: self._give_up(waiter)

    def _give_up(self, waiter: _Waiter) -> None:
        if waiter.called is not None:
            waiter.called = None
            self.count -= 1
            self._leave(waiter)

    def _leave(self, waiter: _Waiter) -> None:
        waiting = self._by_topic[waiter.topic]
        del waiting[waiter]
        if not waiting:
            del self._by_topic[waiter.topic]

    def wake(self, topic: str) -> None:
        """Answers the long-polls of a topic that has new content. O(its waiters)."""
        for waiter in self._by_topic.pop(topic, ()):
            self._call(waiter, True)

    def end_revoked(self, have_ended: HaveEnded) -> None:
        """Answers, soon, the long-polls whose rights have ended, as after the timeout."""
        self._ended_rights.look(have_ended)

    def _end(self, waiter: _Waiter) -> None:
        if waiter.called is not None:
            self._leave(waiter)
            self._call(waiter, False)

    def close(self) -> None:
        """Answers all as after the timeout."""
        if self._timer is not None:
            self._timer.cancel()
        self._by_topic.clear()
        while self._in_order:
            self._call(self._in_order.popleft(), False)

    def _call(self, waiter: _Waiter, is_new: bool) -> None:
        called, waiter.called = waiter.called, None
        if called is not None:
            self.count -= 1
            called(is_new)

    def _expire(self) -> None:
        now_s, queue = self._loop.time(), self._in_order
        while queue and (queue[0].called is None or queue[0].deadline_s <= now_s):
            self._end(queue.popleft())
        self._timer = self._loop.call_at(queue[0].deadline_s, self._expire) if queue else None
