"""Handlers: functions of the program around a Server that are called with events of some types.

A handler sees every event that is committed while the server runs, also those of other nodes, once
in this process, in their order. A plain function is called on the loop thread, so it must be
short. A coroutine function runs in a task of its own, one event after the other; what waits for it
is bounded, and an event that no longer fits is dropped for this handler, counted and logged.
"""

import asyncio
import inspect
import json
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from fastsse.config.rules import DEFAULT_EVENT_TYPE, compile_glob
from fastsse.entries import Entry
from fastsse.eventstream import EventStreamParser
from fastsse.log import get_logger
from fastsse.positions import format_position

__all__ = ["HandledEvent", "Handler", "Handlers", "event_of"]

log = get_logger("handlers")
WAITING_EVENTS_MAX: Final = 1_000
WAITING_BYTES_MAX: Final = 16 * 1024 * 1024
OUTCOMES: Final = ("done", "failed", "dropped")

Handler = Callable[["HandledEvent"], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class HandledEvent:
    """A committed event.

    Attributes:
        topics: its topics.
        id: its id, as streams receive it.
        event: its type; `message` if it has none.
        data: its data, as streams receive it: with LF as line ends.
        meta: its metadata.
        private: only streams with a grant receive it.
        time_ms: when it was published, in unix milliseconds.
    """

    topics: tuple[str, ...]
    id: str
    event: str
    data: str
    meta: dict[str, Any]
    private: bool
    time_ms: int

    def json(self) -> Any:
        """The data, parsed as JSON. Raises ValueError."""
        return json.loads(self.data)


class _Registered:
    """One handler, and what waits for it if it is a coroutine function."""

    def __init__(self, types: Iterable[str], handler: Handler) -> None:
        self.handler: Final = handler
        self._globs = tuple(map(compile_glob, types))
        self.is_async: Final = inspect.iscoroutinefunction(handler)
        self.waiting: deque[HandledEvent] = deque()
        self.waiting_bytes = 0
        self.task: asyncio.Task[None] | None = None
        self.is_full = False

    def wants(self, event: str) -> bool:
        return any(glob.match(event) for glob in self._globs)


class Handlers:
    """The handlers of a server. Loop thread only."""

    def __init__(self) -> None:
        self._registered: list[_Registered] = []
        self._counts: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._registered)

    def add(self, types: Iterable[str], handler: Handler) -> None:
        """Calls a handler with the events whose type matches one of the patterns, from now on."""
        self._registered.append(_Registered(types, handler))

    def counters(self) -> dict[str, int]:
        """Calls by outcome, under the names of the metrics."""
        return {f"handled_{outcome}": self._counts[outcome] for outcome in OUTCOMES}

    def on_entries(self, entries: Iterable[Entry]) -> None:
        """Called with committed entries, in order. O(entries x handlers)."""
        for entry in entries:
            if entry.extras is not None and entry.extras.control is not None:
                continue
            event = event_of(entry)
            for one in self._registered:
                if one.wants(event.event):
                    self._give(one, event)

    async def close(self) -> None:
        """Cancels what runs. What waits is dropped."""
        tasks = [one.task for one in self._registered if one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in self._registered:
            self._counts["dropped"] += len(one.waiting)
            one.waiting.clear()
            one.waiting_bytes, one.task = 0, None

    def _give(self, one: _Registered, event: HandledEvent) -> None:
        if not one.is_async:
            try:
                one.handler(event)
            except Exception:
                self._failed(one, event)
            else:
                self._counts["done"] += 1
            return
        full = (
            len(one.waiting) >= WAITING_EVENTS_MAX
            or one.waiting_bytes + len(event.data) > WAITING_BYTES_MAX
        )
        if full:
            self._counts["dropped"] += 1
            if not one.is_full:
                log.warning("A handler is too slow; events are dropped.", handler=_name(one))
            one.is_full = True
            return
        one.is_full = False
        one.waiting.append(event)
        one.waiting_bytes += len(event.data)
        if one.task is None:
            one.task = asyncio.get_running_loop().create_task(self._run(one))

    async def _run(self, one: _Registered) -> None:
        while one.waiting:
            event = one.waiting.popleft()
            one.waiting_bytes -= len(event.data)
            try:
                outcome = one.handler(event)
                assert outcome is not None
                await outcome
            except Exception:
                self._failed(one, event)
            else:
                self._counts["done"] += 1
        one.task = None

    def _failed(self, one: _Registered, event: HandledEvent) -> None:
        self._counts["failed"] += 1
        log.exception("A handler failed.", handler=_name(one), id=event.id)


def _name(one: _Registered) -> str:
    return getattr(one.handler, "__qualname__", repr(one.handler))


def event_of(entry: Entry) -> HandledEvent:
    """A committed event of its entry. O(bytes)."""
    body = entry.frame.body
    (block,) = EventStreamParser(len(body) + 1).feed(body)
    own = block.id if block.id is not None else format_position(entry.position)
    meta = None if entry.extras is None else entry.extras.meta
    return HandledEvent(
        topics=entry.topics,
        id=own.decode(),
        event=block.event.decode() or DEFAULT_EVENT_TYPE,
        data=(block.data or b"").decode(),
        meta={} if meta is None else json.loads(meta),
        private=entry.frame.private,
        time_ms=entry.frame.time_ms,
    )
