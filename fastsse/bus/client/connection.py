"""A worker's connection to the hub process, which is opened again when the hub was lost."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable
from typing import Final

from fastsse.bus.frames import BEAT_S, CLOSE_S, VERSION, Fields, FrameError, FrameKind, frame
from fastsse.bus.handshake import Hello, Welcome, is_ours
from fastsse.bus.transport import FrameTransport
from fastsse.errors import FastsseError
from fastsse.log import get_logger

__all__ = ["BusError", "HubConnection"]

log = get_logger("bus")
# The first pause before a retry; it doubles up to the second number.
RETRY_S: Final = 0.02
RETRY_S_MAX: Final = 0.25
# Bytes of a frame that a hub may send before it accepts a worker.
BEFORE_WELCOME: Final = frozenset(
    (FrameKind.WELCOME, FrameKind.BYE, FrameKind.BEAT, FrameKind.LAST)
)
# The largest frame that a hub may announce.
DOWN_BYTES_MAX: Final = 1 << 30

Handler = Callable[[bytes], None]


class BusError(FastsseError):
    """The hub process can't be reached, or did not accept this worker."""


class HubConnection:
    """Connects, sends the greeting, passes frames to the handlers of their kinds, and reconnects.

    Arguments:
        address: what the hub's socket is bound to.
        worker: this worker's number.
        key: this process's own, never used before.

    Attributes:
        handlers: by kind of frame; called with the body.
        on_up: called, in order, each time a hub has accepted this worker.
        on_down: called, in order, when the hub was lost.
        on_close: called, in order, when this end begins to close.
        welcome: the last welcome of a hub.
        is_up: frames can be sent.
        reach: returns the worker's head and the begin of its history, for the greeting.
        ended: why the hub rejected this worker.
    """

    def __init__(self, address: str | bytes, worker: int, key: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.handlers: Final[dict[int, Handler]] = {
            FrameKind.WELCOME: self._on_welcome,
            FrameKind.BYE: self._on_bye,
            FrameKind.BEAT: lambda body: None,
        }
        self.on_up: Final[list[Callable[[Welcome], None]]] = []
        self.on_down: Final[list[Callable[[], None]]] = []
        self.on_close: Final[list[Callable[[], None]]] = []
        self.reach: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self.welcome: Welcome | None = None
        self.is_up = False
        self.lost_count = 0
        self.ended: Final[asyncio.Future[str]] = loop.create_future()
        self._address = address
        self._worker = worker
        self._key = key
        self._loop = loop
        self._link: FrameTransport | None = None
        self._is_closed = False
        self._lost = asyncio.Event()
        self._dialling = loop.create_task(self._dial_for_ever())
        self._beating = loop.call_later(BEAT_S, self._beat)

    @property
    def link(self) -> FrameTransport | None:
        """The link, while there is one."""
        return self._link

    def send(self, data: bytes) -> None:
        """Sends a whole frame, in the order of calls. Only while `is_up`."""
        assert self._link is not None
        self._link.send(data)

    def send_now(self, data: bytes) -> None:
        """As `send`, for a caller with nothing more to send in this turn."""
        assert self._link is not None
        self._link.send_now(data)

    def send_pages(self, frames: Iterable[bytes]) -> None:
        """Sends whole frames, one a turn, while the link has room. The rest is dropped when the
        link is lost; start again in `on_up`. Only while `is_up`."""
        assert self._link is not None
        self._link.pager.add(frames, self._link.send_now)

    async def close(self) -> None:
        """Closes it after sending what is queued. After this only `on_close` is called, once."""
        # Otherwise a handler could pass a frame to a part that has stopped, such as the sender.
        self._is_closed = True
        self.is_up = False
        closing = self.on_close[:]
        self.on_close.clear()
        for called in closing:
            called()
        self._beating.cancel()
        self._dialling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._dialling
        link, self._link = self._link, None
        if link is not None:
            await link.close(CLOSE_S)
        self.ended.cancel()

    async def _dial_for_ever(self) -> None:
        delay_s = RETRY_S
        while not self.ended.done():
            try:
                await self._dial()
            except OSError as error:
                log.debug("The hub process can't be reached yet.", error=str(error))
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_S_MAX)
                continue
            was_up = self.welcome
            await self._lost.wait()
            if self.welcome is not was_up:
                delay_s = RETRY_S
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_S_MAX)

    async def _dial(self) -> None:
        """Connects and sends the greeting. Raises OSError, also for a full accept queue."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(self._address)
            if not is_ours(sock):
                raise PermissionError("the bus belongs to another user")
            self._lost.clear()
            link = FrameTransport(self._on_frame, self._on_lost)
            await self._loop.create_unix_connection(lambda: link, sock=sock)
        except BaseException:
            sock.close()
            raise
        self._link = link
        link.send(Hello(VERSION, self._worker, self._key, *self.reach()).pack())

    def _on_frame(self, kind: int, body: bytes) -> None:
        if self._is_closed:
            return
        handler = self.handlers.get(kind)
        if handler is None or not (self.is_up or kind in BEFORE_WELCOME):
            raise FrameError(f"a frame of kind {kind} where none may be")
        handler(body)

    def _on_welcome(self, body: bytes) -> None:
        if self.is_up:
            raise FrameError("welcomed twice")
        welcome = Welcome.unpack(body)
        if welcome.down_limit_bytes > DOWN_BYTES_MAX:
            raise FrameError(f"frames of up to {welcome.down_limit_bytes} bytes")
        head, _ = self.reach()
        if head and welcome.start != head:
            raise FrameError("a log that does not go on where this worker is")
        assert self._link is not None
        self._link.incoming.limit_bytes = welcome.down_limit_bytes
        self.welcome = welcome
        self.is_up = True
        for called in self.on_up:
            called(welcome)

    def _on_bye(self, body: bytes) -> None:
        reason = Fields(body).text()
        log.error("The hub process disconnected this worker.", reason=reason)
        if not self.ended.done():
            self.ended.set_result(reason)

    def _on_lost(self, why: str) -> None:
        was_up, self.is_up = self.is_up, False
        self._link = None
        self._lost.set()
        if was_up:
            self.lost_count += 1
            log.warning("The connection to the hub process was lost.", reason=why)
            for called in self.on_down:
                called()

    def _beat(self) -> None:
        if self.is_up:
            self.send(frame(FrameKind.BEAT))
        self._beating = self._loop.call_later(BEAT_S, self._beat)
