"""What a node kept in memory before a worker began, as that worker sees it.

The worker serves at once, from the head on. What lies before is asked of the hub process and taken
apart from the live log, in slices; a reader of it waits until it is there.
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
    """Asks for the older part of a worker's history, and asks again when the hub was lost
    meanwhile. Loop thread only.

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
        """Whether something of it has still to come."""
        return self._through > 0

    @property
    def begins(self) -> int:
        """The place after which this worker has what is kept."""
        return self._history.begins if self._history is not None else self._through

    def begin(self, through: int) -> None:
        """This worker begins here; what lies before is to come."""
        self._through = through

    def share(self, history: History) -> None:
        """Where it goes. It holds only what came after the beginning so far."""
        self._history = history
        if self._through:
            history.expect(self._through)
            self._ask()

    def live(self) -> None:
        """The log is live: now the hub has time."""
        self._is_live = True
        self._ask()

    def on_down(self) -> None:
        """The hub is lost, and with it what it had begun."""
        self._is_live = False
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.give_up()

    def take(self, kind: FrameKind, body: bytes) -> None:
        """A part of it."""
        if self._receiver is None:
            raise FrameError("a history that was not requested")
        if self._receiver.take(kind, body):
            self._receiver = None
            self._through = 0
            assert self._history is not None
            log.info("What was kept before is here.", events=self._history.events)
            self._answer()

    def wait(self, then: Callable[[], None], failed: Callable[[FastsseError], None]) -> None:
        """Calls `then` when all is here, at once when there is no history that it could come
        into; `failed` when that takes too long."""
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
        """They wait equally long, so it is the oldest whose time is over."""
        reader = self._waiting.pop(0)
        reader.timer.cancel()
        reader.failed(Unavailable("backbone", retry_after_s=1))
