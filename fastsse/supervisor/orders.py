"""The orders to a worker's loop, from its supervisor or from a signal."""

import asyncio
import signal
from collections.abc import Callable
from typing import Final

from fastsse.log import get_logger
from fastsse.supervisor.process_link import APPLIED, APPLY, DRAIN, ProcessLink

__all__ = ["Orders"]

log = get_logger("supervisor")


class Orders:
    """Orders from the link as they arrive.

    Loop thread only. If the link closes, the supervisor has died. That means DRAIN, as SIGTERM
    does. No process watches this one then, so SIGALRM ends it if the drain does not.

    Arguments:
        timeout_s: how long the process may run without a supervisor.

    The order APPLY is obeyed at once, by the function that `apply_with` gets.
    """

    def __init__(self, link: ProcessLink, timeout_s: float) -> None:
        self._loop: Final = asyncio.get_running_loop()
        self._link = link
        self._timeout_s = timeout_s
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._apply: Callable[[], None] | None = None
        self._must_apply = False
        self._loop.add_reader(link.fileno(), self._read_packets)
        self._loop.add_signal_handler(signal.SIGTERM, self._queue.put_nowait, DRAIN)

    def apply_with(self, apply: Callable[[], None]) -> None:
        """Calls `apply` with each order to take a configuration over, also with one that came
        before this call."""
        self._apply = apply
        if self._must_apply:
            self._take_over()

    def _take_over(self) -> None:
        self._must_apply = self._apply is None
        if self._apply is not None:
            self._apply()
            self._link.send(APPLIED)

    async def next(self) -> str:
        """Waits for the next order."""
        return await self._queue.get()

    def close(self) -> None:
        """Stops listening. The link stays open for a last message."""
        self._loop.remove_signal_handler(signal.SIGTERM)
        self._loop.remove_reader(self._link.fileno())

    def _read_packets(self) -> None:
        while (packet := self._link.receive()) is not None:
            if packet.word == APPLY:
                self._take_over()
            else:
                self._queue.put_nowait(packet.word)
        if not self._link.is_open:
            self._loop.remove_reader(self._link.fileno())
            log.warning("The supervisor is gone; this process drains and ends.")
            signal.alarm(max(1, round(self._timeout_s)))
            self._queue.put_nowait(DRAIN)
