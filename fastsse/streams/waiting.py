"""Long-polls that wait: a row each, one timer for all."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["Waiters"]


class _Waiter:
    __slots__ = ("called", "deadline_s", "topic")

    def __init__(self, topic: str, called: Callable[[bool], None], deadline_s: float) -> None:
        self.topic = topic
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

    def __contains__(self, topic: str) -> bool:
        return topic in self._by_topic

    def add(self, topic: str, called: Callable[[bool], None]) -> Callable[[], None]:
        """Calls `called` once: with True when the topic has new content, with False after the
        timeout. Returns what ends the waiting without a call, for a client that is gone. O(1)."""
        waiter = _Waiter(topic, called, self._loop.time() + self._timeout_s)
        self._by_topic.setdefault(topic, {})[waiter] = None
        self._in_order.append(waiter)
        self.count += 1
        if self._timer is None:
            self._timer = self._loop.call_at(waiter.deadline_s, self._expire)
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
            waiter = queue.popleft()
            if waiter.called is not None:
                self._leave(waiter)
                self._call(waiter, False)
        self._timer = self._loop.call_at(queue[0].deadline_s, self._expire) if queue else None
