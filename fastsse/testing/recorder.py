"""Records what is published through a mount."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastsse.asgi import Mount
from fastsse.handlers import HandledEvent

__all__ = ["Recorder", "recording"]

NEXT_TIMEOUT_S: Final = 5.0


class Recorder:
    """The events of a mount since it was started. Loop thread only.

    Arguments:
        mount: not started.
    """

    def __init__(self, mount: Mount) -> None:
        self.mount: Final = mount
        self._events: list[HandledEvent] = []
        self._taken: set[int] = set()
        self._changed = asyncio.Event()

    async def publish(self, *args: Any, **fields: Any) -> str:
        """As `Mount.publish`."""
        return await self.mount.publish(*args, **fields)

    def events(self, topic: str | None = None, event: str | None = None) -> list[HandledEvent]:
        """What was published so far, in order.

        Arguments:
            topic: only events of this topic.
            event: only events of this type; `message` is an event without one.
        """
        return [one for one in self._events if _is(one, topic, event)]

    async def next(
        self,
        topic: str | None = None,
        event: str | None = None,
        *,
        timeout_s: float = NEXT_TIMEOUT_S,
    ) -> HandledEvent:
        """The oldest such event that `next` has not returned yet; waits until it is published.

        Arguments:
            topic, event: as of `events`.
            timeout_s: seconds to wait, 5 by default.

        Raises AssertionError after that, with what was published."""
        try:
            async with asyncio.timeout(timeout_s):
                while (at := self._find(topic, event)) is None:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            seen = [(list(one.topics), one.event) for one in self._events]
            wanted = f"topic {topic!r}, event {event!r}"
            raise AssertionError(f"no event ({wanted}) was published; these were: {seen}") from None
        self._taken.add(at)
        return self._events[at]

    def clear(self) -> None:
        """Forgets what was published so far."""
        self._events.clear()
        self._taken.clear()

    def record(self, event: HandledEvent) -> None:
        """Called with each committed event."""
        self._events.append(event)
        self._changed.set()

    def _find(self, topic: str | None, event: str | None) -> int | None:
        for at, one in enumerate(self._events):
            if at not in self._taken and _is(one, topic, event):
                return at
        return None


def _is(one: HandledEvent, topic: str | None, event: str | None) -> bool:
    return (topic is None or topic in one.topics) and (event is None or event == one.event)


@asynccontextmanager
async def recording(mount: Mount) -> AsyncIterator[Recorder]:
    """Runs a mount in the loop of a test, with a history that begins empty, and records what is
    published. Raises RuntimeError for a mount that runs already."""
    if mount.is_running:
        raise RuntimeError("The mount runs already; record before it starts.")
    recorder = Recorder(mount)
    forget = mount.watch(recorder.record)
    try:
        async with mount:
            yield recorder
    finally:
        forget()
