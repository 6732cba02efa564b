"""Sends the service's state to systemd (sd_notify(3)): datagrams on the socket that it names."""

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

from fastsse.log import get_logger

__all__ = ["STATUS_EVERY_S", "Notifier"]

log = get_logger("supervisor")
# How often a changed status is sent.
STATUS_EVERY_S: Final = 5.0


class Notifier:
    """Sends states to `NOTIFY_SOCKET`; without that variable every call does nothing.

    A datagram may be lost. A full or missing socket never blocks.

    Attributes:
        watchdog_s: call `alive` at least this often; None: no watchdog.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        path = environment.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self.watchdog_s: Final = _watchdog_s(environment)
        self._socket: socket.socket | None = None
        if path[:1] in ("/", "@"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def ready(self, status: str) -> None:
        """The service answers; also ends a reload."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload began. The time distinguishes it from an earlier reload for systemd."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now_us}", "STATUS=Reloading.")

    def stopping(self) -> None:
        """The service drains."""
        self._send("STOPPING=1", "STATUS=Draining.")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Reports that all watched processes respond."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Closes the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._socket is None:
            return
        text = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError as error:
            log.debug("systemd was not notified.", state=lines[0], reason=error.strerror)


def _watchdog_s(environment: MutableMapping[str, str]) -> float | None:
    """Half of the time that systemd waits, as sd_watchdog_enabled(3) advises."""
    span = environment.pop("WATCHDOG_USEC", "")
    process = environment.pop("WATCHDOG_PID", "") or str(os.getpid())
    if not span.isdecimal() or int(span) == 0 or process != str(os.getpid()):
        return None
    return int(span) / 2_000_000
