"""One end of a connection between the hub and a worker.

Frames of one turn of the loop leave in one write. The bytes that wait for the other end are
bounded: a connection whose other end can't keep up is closed.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, cast

from fastsse.bus.frames import FrameError, Incoming
from fastsse.paging import Pager

__all__ = ["BEHIND", "GONE", "QUEUE_BYTES_MAX", "FrameTransport"]

# Bytes that may wait for one peer before it is disconnected.
QUEUE_BYTES_MAX: Final = 64 * 1024 * 1024
# Pages of a catch-up wait while more bytes than this wait.
HIGH_WATER_BYTES: Final = 1024 * 1024

BEHIND: Final = "it could not keep up"
STRANGER: Final = "it belongs to another user"
GONE: Final = "it closed the connection"


class FrameTransport(asyncio.BufferedProtocol):
    """Sends and receives frames. Loop thread only.

    Arguments:
        on_frame: called with each frame's kind and body. If it raises FrameError the link is
            closed, as for an invalid frame.
        admits: called with the socket when the link opens; False closes it at once.
        on_lost: called once with the reason when the link was lost; not after `abort`.

    Attributes:
        incoming: its `limit_bytes` is raised once both ends know each other.
        pager: sends what is too much for one turn, while the link is not full.
        on_drained: called when what waited has fallen below a quarter of HIGH_WATER_BYTES.
        is_full: more than HIGH_WATER_BYTES wait.
        has_received: whether bytes arrived since it was last set to False.
    """

    def __init__(
        self,
        on_frame: Callable[[int, bytes], None],
        on_lost: Callable[[str], None],
        admits: Callable[[socket.socket], bool] = lambda sock: True,
    ) -> None:
        self.incoming: Final = Incoming()
        self.pager: Final = Pager(self._has_room)
        self.on_drained: Callable[[], None] = lambda: None
        self.is_full = False
        self.has_received = True
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._admits = admits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._is_due = False
        self._closed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        return self._transport is not None

    def send(self, frame: bytes) -> None:
        """Sends a whole frame with the others of this turn. Does nothing if the link is lost."""
        self._out.append(frame)
        self._out_bytes += len(frame)
        if self._out_bytes > HIGH_WATER_BYTES:
            self.flush()
        elif not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._flush_if_due)

    def send_now(self, frame: bytes) -> None:
        """The same, for a caller with nothing more to send in this turn."""
        self._out.append(frame)
        self.flush()

    def flush(self) -> None:
        """Writes what was sent so far."""
        out, self._out, self._out_bytes = self._out, [], 0
        transport = self._transport
        if transport is None or not out:
            return
        transport.write(out[0] if len(out) == 1 else b"".join(out))
        if transport.get_write_buffer_size() > QUEUE_BYTES_MAX:
            self._lose(BEHIND)

    def abort(self) -> None:
        """Closes the link at once, without calling `on_lost`."""
        transport, self._transport = self._transport, None
        self._out.clear()
        self.pager.clear()
        if transport is not None:
            transport.abort()

    def end(self) -> None:
        """Ends the link when what was sent has left, without a word to `on_lost`."""
        self.pager.clear()
        self.flush()
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    async def close(self, timeout_s: float) -> None:
        """Closes the link after everything was sent, without calling `on_lost`. What the other end
        does not read in time is lost. Returns when the descriptor is closed."""
        self.pager.clear()
        self.flush()
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._closed.wait()
            except TimeoutError:
                transport.abort()
        await self._closed.wait()

    # -- asyncio.BufferedProtocol ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The link is open."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(HIGH_WATER_BYTES)
        if not self._admits(transport.get_extra_info("socket")):
            self._lose(STRANGER)

    def get_buffer(self, sizehint: int) -> memoryview:
        """The buffer for the next bytes."""
        return self.incoming.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Passes on every complete frame."""
        self.has_received = True
        incoming = self.incoming
        incoming.filled(nbytes)
        try:
            while self._transport is not None and (found := incoming.take()) is not None:
                self._on_frame(*found)
        except FrameError as error:
            self._lose(str(error))

    def eof_received(self) -> bool:
        """The other end closed; so do we."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The descriptor is about to be closed."""
        self._closed.set()
        self._lose(GONE)

    def pause_writing(self) -> None:
        """The transport holds much."""
        self.is_full = True

    def resume_writing(self) -> None:
        """The transport holds little again."""
        self.is_full = False
        # Not inside this call, because asyncio would report the loss of the link twice.
        self._loop.call_soon(self._notify_drained)

    def _notify_drained(self) -> None:
        if self._has_room():
            self.on_drained()
            self.pager.go_on()

    def _has_room(self) -> bool:
        return self.is_open and not self.is_full

    def _flush_if_due(self) -> None:
        self._is_due = False
        if self._out:
            self.flush()

    def _lose(self, why: str) -> None:
        if self._transport is not None:
            self.abort()
            self._on_lost(why)
