"""Handlers: functions of the program around a Server that are called with notices of streams."""

import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from fastsse.config.hooks import HOOK_KINDS
from fastsse.hooks.notices import StreamHook
from fastsse.log import get_logger

__all__ = ["StreamHandler", "StreamHandlers"]

log = get_logger("hooks")
StreamHandler = Callable[[StreamHook], Awaitable[None] | None]


class StreamHandlers:
    """The handlers of a server."""

    def __init__(self) -> None:
        self._made: list[tuple[StreamHandler, Sequence[str], Sequence[str], float]] = []

    def __bool__(self) -> bool:
        return bool(self._made)

    @property
    def wants_streams(self) -> bool:
        """Whether a handler is notified of single streams."""
        return any({"connect", "disconnect"} & set(on) for _, on, _, _ in self._made)

    def add(
        self, handler: StreamHandler, on: Sequence[str], topics: Sequence[str], linger_s: float
    ) -> None:
        """Calls a handler from the next start on. Raises ValueError for an unknown hook."""
        unknown = set(on) - set(HOOK_KINDS)
        if unknown:
            raise ValueError(f"{min(unknown)} is no hook; there are {', '.join(HOOK_KINDS)}")
        self._made.append((handler, on or HOOK_KINDS, topics, linger_s))

    def receivers(self, counts: "Counter[str]") -> Iterator["HandlerReceiver"]:
        """A receiver for each handler."""
        for one in self._made:
            yield HandlerReceiver(*one, counts)


class HandlerReceiver:
    """The receiver (`outlet.Receiver`) of one handler. It is called with one notice after the
    other. Loop thread only."""

    announces: Final = False
    batch: Final = 1

    def __init__(
        self,
        handler: StreamHandler,
        on: Sequence[str],
        topics: Sequence[str],
        linger_s: float,
        counts: "Counter[str]",
    ) -> None:
        self.name: Final = getattr(handler, "__qualname__", repr(handler))
        self.on: Final = on
        self.topics: Final = topics
        self.linger: Final = linger_s
        self._handler = handler
        self._counts = counts

    async def deliver(self, notices: Sequence[bytes]) -> bool:
        """As Receiver."""
        for notice in notices:
            try:
                outcome = self._handler(StreamHook.of(notice))
                if inspect.isawaitable(outcome):
                    await outcome
            except Exception:
                self._counts["hook_failures"] += 1
                log.exception("A handler of streams failed.", handler=self.name)
            else:
                self._counts["hook_notices"] += 1
        return True

    async def close(self, last: bytes | None) -> None:
        """As Receiver."""
