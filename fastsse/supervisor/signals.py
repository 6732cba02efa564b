"""Signals as something to wait for, beside descriptors."""

import contextlib
import os
import signal
from types import FrameType
from typing import Final

__all__ = ["SignalPipe"]

_TAKEN: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class SignalPipe:
    """SIGTERM, SIGINT, SIGHUP and SIGCHLD as bytes in a pipe. Main thread only.

    As many as come between two looks are kept: a second SIGTERM is a second byte.
    """

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = {number: signal.signal(number, _ignore) for number in _TAKEN}
        self._wakeup_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)

    def fileno(self) -> int:
        """For a selector."""
        return self._read_fd

    def take(self) -> list[signal.Signals]:
        """Those that came since the last look, in their order."""
        with contextlib.suppress(BlockingIOError):
            return [signal.Signals(number) for number in os.read(self._read_fd, 4096)]
        return []

    def close(self) -> None:
        """Handlers are again what they were."""
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read_fd)
        os.close(self._write_fd)


def _ignore(number: int, frame: FrameType | None) -> None:
    """The byte in the pipe says it all."""
