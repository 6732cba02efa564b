"""The messages between the supervisor and a child: short packets over a socket pair.

A packet is one word, or a word, a space and a text. When one side ends, the other reads
end-of-file, so a child notices the end of its supervisor.
"""

import contextlib
import socket
from typing import Final, NamedTuple

__all__ = [
    "ALIVE",
    "ALIVE_EVERY_S",
    "APPLIED",
    "APPLY",
    "DRAIN",
    "END",
    "FAILED",
    "READY",
    "REPLACED",
    "Packet",
    "ProcessLink",
]

# From a child.
READY: Final = "ready"
ALIVE: Final = "alive"  # It runs; with the number of its streams. Every ALIVE_EVERY_S.
APPLIED: Final = "applied"  # It has taken the configuration over.
FAILED: Final = "failed"  # It could not start; with an exit status and the reason.
ALIVE_EVERY_S: Final = 1.0
# To a child.
DRAIN: Final = "drain"  # The service stops: end all streams spread over the window.
REPLACED: Final = "replaced"  # Another worker has the listeners: end the streams only.
APPLY: Final = "apply"  # Take over the configuration that the supervisor has posted.
END: Final = "end"  # End at once.

_PACKET_MAX: Final = 4096


class Packet(NamedTuple):
    """One message."""

    word: str
    text: str


class ProcessLink:
    """One end. Sending never blocks: messages to a full or dead peer are lost."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._is_open = True

    @classmethod
    def pair(cls) -> "tuple[ProcessLink, ProcessLink]":
        """Two ends."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    def fileno(self) -> int:
        """The descriptor, for a selector."""
        return self._socket.fileno()

    def send(self, word: str, text: str = "") -> None:
        """Sends one packet; long texts are cut."""
        with contextlib.suppress(OSError):
            self._socket.send(f"{word} {text}".encode()[:_PACKET_MAX], socket.MSG_NOSIGNAL)

    def receive(self) -> Packet | None:
        """The next packet. None if there is none now, or if the link is closed: see `is_open`."""
        try:
            data = self._socket.recv(_PACKET_MAX)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            self._is_open = False
            return None
        word, _, text = data.decode(errors="replace").partition(" ")
        return Packet(word, text)

    @property
    def is_open(self) -> bool:
        """Whether the other side is open, as far as `receive` has read."""
        return self._is_open

    def close(self) -> None:
        """Closes it."""
        self._is_open = False
        self._socket.close()
