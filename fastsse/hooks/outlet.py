"""Outlets: each keeps the notices for one receiver until they are delivered.

Notices of topics are kept as a state, not as a list of changes: whether the topic has a subscriber
now, and what the receiver was sent last. So a receiver that was away is sent the present state, and
the memory is bounded by the number of topics. Notices of streams wait in a queue that is bounded in
bytes.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from fastsse.hooks.notices import plain_notice, topic_notice
from fastsse.log import get_logger
from fastsse.positions import now_ms
from fastsse.selectors import compile_selector

__all__ = ["Outlet", "Receiver"]

log = get_logger("hooks")
QUEUE_BYTES_MAX: Final = 16 * 1024 * 1024
# Memory that a notice in the queue takes in addition to its bytes.
_NOTICE_COST_BYTES: Final = 64


class Receiver(Protocol):
    """Where the notices of an outlet go.

    Attributes:
        name: its name in logs.
        on: the hooks of which it is notified.
        topics: selectors of the topics of which it is notified.
        linger: `last` is sent when a topic has had no subscriber for this long, s.
        batch: the largest number of notices in one delivery.
        announces: whether it is notified of the start and the stop of the node.
    """

    @property
    def name(self) -> str: ...

    @property
    def on(self) -> Sequence[str]: ...

    @property
    def topics(self) -> Sequence[str]: ...

    @property
    def linger(self) -> float: ...

    @property
    def batch(self) -> int: ...

    @property
    def announces(self) -> bool: ...

    async def deliver(self, notices: Sequence[bytes]) -> bool:
        """Returns True if they were accepted or permanently refused; False if it stopped trying."""

    async def close(self, last: bytes | None) -> None:
        """Ends it. Before that it tries to deliver `last`, once."""


class Outlet:
    """The notices of one receiver. Loop thread only.

    Arguments:
        receiver: where they go.
        is_active: whether a topic has a subscriber.
        counts: shared by all outlets.
    """

    def __init__(
        self, receiver: Receiver, is_active: Callable[[str], bool], counts: "Counter[str]"
    ) -> None:
        self._receiver = receiver
        self._is_active = is_active
        self._counts = counts
        self._selectors = tuple(map(compile_selector, receiver.topics))
        self._on: Final = frozenset(receiver.on)
        self._wants_topics: Final = bool(self._on & {"first", "last"})
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._is_full = False
        # Topics that the receiver takes to have a subscriber; topics whose state may differ from
        # that; topics without a subscriber, with the loop time at which that is reported.
        self._reported: set[str] = set()
        self._dirty: dict[str, None] = {}
        self._idle: dict[str, float] = {}
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._knows_of_start = not receiver.announces

    def on_topic(self, topic: str, *, is_active: bool) -> None:
        """A topic got its first subscriber, or lost its last one."""
        if not (self._wants_topics and self._covers((topic,))):
            return
        if is_active:
            self._idle.pop(topic, None)
            if topic not in self._reported:
                self._dirty[topic] = None
                self._changed.set()
        elif topic in self._reported:
            self._idle[topic] = self._loop.time() + self._receiver.linger
            self._changed.set()
        else:
            self._dirty.pop(topic, None)

    def on_stream(self, hook: str, topics: Sequence[str], notice: Callable[[], bytes]) -> None:
        """A stream opened or ended."""
        if hook not in self._on or not self._covers(topics):
            return
        made = notice()
        cost_bytes = len(made) + _NOTICE_COST_BYTES
        if self._waiting_bytes + cost_bytes > QUEUE_BYTES_MAX:
            self._counts["hook_dropped"] += 1
            if not self._is_full:
                log.warning("Notices of a hook are dropped: too many wait.", hook=self._name)
            self._is_full = True
            return
        self._waiting.append(made)
        self._waiting_bytes += cost_bytes
        self._changed.set()

    @property
    def _name(self) -> str:
        return self._receiver.name

    def _covers(self, topics: Sequence[str]) -> bool:
        return any(one.matches(topic) for one in self._selectors for topic in topics)

    async def run(self) -> None:
        """Delivers until it is cancelled."""
        while not self._knows_of_start:
            self._knows_of_start = await self._receiver.deliver([plain_notice("start", now_ms())])
        while True:
            changes, notices = self._take()
            if not changes and not notices:
                await self._wait()
                continue
            made = [topic_notice(name, is_active=so, time_ms=now_ms()) for name, so in changes]
            wanted = [one for one, (_, so) in zip(made, changes, strict=True) if self._says(so)]
            is_over = not (wanted or notices) or await self._receiver.deliver([*wanted, *notices])
            self._delivered(changes, is_over=is_over)

    def _says(self, is_active: bool) -> bool:
        return ("first" if is_active else "last") in self._on

    def _take(self) -> tuple[list[tuple[str, bool]], list[bytes]]:
        """The topics whose new state is to be reported, and waiting notices: together at most
        `batch`."""
        now_s = self._loop.time()
        while self._idle and next(iter(self._idle.values())) <= now_s:
            topic = next(iter(self._idle))
            del self._idle[topic]
            self._dirty[topic] = None
        changes: list[tuple[str, bool]] = []
        while self._dirty and len(changes) < self._receiver.batch:
            topic = next(iter(self._dirty))
            del self._dirty[topic]
            is_active = self._is_active(topic) or topic in self._idle
            if is_active != (topic in self._reported):
                changes.append((topic, is_active))
        notices: list[bytes] = []
        while self._waiting and len(changes) + len(notices) < self._receiver.batch:
            notices.append(self._waiting.popleft())
            self._waiting_bytes -= len(notices[-1]) + _NOTICE_COST_BYTES
            self._is_full = False
        return changes, notices

    def _delivered(self, changes: Sequence[tuple[str, bool]], *, is_over: bool) -> None:
        for topic, is_active in changes:
            if not is_over:
                self._dirty[topic] = None
            elif not is_active:
                self._reported.discard(topic)
            else:
                self._reported.add(topic)
            # The state changed again while the notice was on its way.
            if is_over and self._is_active(topic) != is_active:
                self.on_topic(topic, is_active=not is_active)

    async def _wait(self) -> None:
        self._changed.clear()
        timeout_s = None
        if self._idle:
            timeout_s = max(0.0, next(iter(self._idle.values())) - self._loop.time())
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def close(self) -> None:
        """Ends it. A receiver that was notified of the start is notified of the stop."""
        announces = self._receiver.announces and self._knows_of_start
        await self._receiver.close(plain_notice("stop", now_ms()) if announces else None)
