"""The part of a node's history that is older than a worker.

The worker serves at once, from the head on. It requests the older part from the hub process and
receives it in slices, apart from the live log. Readers of the older part wait until it is complete.
"""

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from fastsse.bus.client.connection import HubConnection
from fastsse.bus.frames import FrameError, FrameKind, frame, pack_position
from fastsse.bus.history_transfer import HistoryReceiver
from fastsse.errors import FastsseError, Unavailable
from fastsse.hub.history import History
from fastsse.log import get_logger

__all__ = ["WAIT_S", "Backfill"]

log = get_logger("bus")
# A reader that waits longer gets an error.
WAIT_S: Final = 30.0


class _Reader(NamedTuple):
    then: Callable[[], None]
    failed: Callable[[FastsseError], None]
    timer: asyncio.TimerHandle


class Backfill:
    """Requests the older part of a worker's history, again if the hub was lost meanwhile. Loop
    thread only.

    Arguments:
        connection: to the hub.
        wait_s: how long readers wait.
    """

    def __init__(self, connection: HubConnection, wait_s: float = WAIT_S) -> None:
        self._connection = connection
        self._wait_s = wait_s
        self._loop = asyncio.get_running_loop()
        self._through = 0
        self._history: History | None = None
        self._is_live = False
        self._receiver: HistoryReceiver | None = None
        self._waiting: list[_Reader] = []

    @property
    def is_awaited(self) -> bool:
        """Whether a part is still missing."""
        return self._through > 0

    @property
    def begins(self) -> int:
        """The place after which this worker's history is complete."""
        return self._history.begins if self._history is not None else self._through

    def begin(self, through: int) -> None:
        """The worker's history begins here; the older part will follow."""
        self._through = through

    def share(self, history: History) -> None:
        """The history to fill. So far it contains only events from after the beginning."""
        self._history = history
        if self._through:
            history.expect(self._through)
            self._ask()

    def live(self) -> None:
        """The log is live, so the hub has time for a transfer now."""
        self._is_live = True
        self._ask()

    def on_down(self) -> None:
        """The hub is lost, and with it the running transfer."""
        self._is_live = False
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.give_up()

    def take(self, kind: FrameKind, body: bytes) -> None:
        """Takes a part of the history."""
        if self._receiver is None:
            raise FrameError("a history that was not requested")
        if self._receiver.take(kind, body):
            self._receiver = None
            self._through = 0
            assert self._history is not None
            log.info("The older history has arrived.", events=self._history.events)
            self._answer()

    def wait(self, then: Callable[[], None], failed: Callable[[FastsseError], None]) -> None:
        """Calls `then` when the history is complete, at once if there is no history to fill;
        `failed` if that takes too long."""
        if not self._through or self._history is None:
            then()
            return

        timer = self._loop.call_later(self._wait_s, self._give_up_oldest)
        self._waiting.append(_Reader(then, failed, timer))

    def close(self) -> None:
        """Drops everything; each waiting reader gets an error."""
        self.on_down()
        while self._waiting:
            self._give_up_oldest()
        self._history = None

    def _ask(self) -> None:
        if self._through and self._history is not None and self._is_live and not self._receiver:
            self._receiver = HistoryReceiver(self._history)
            self._connection.send(frame(FrameKind.DUMP, pack_position(self._through)))

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        for reader in waiting:
            reader.timer.cancel()
            reader.then()

    def _give_up_oldest(self) -> None:
        """All wait for the same time, so the oldest one's time is over."""
        reader = self._waiting.pop(0)
        reader.timer.cancel()
        reader.failed(Unavailable("backbone", retry_after_s=1))
