"""The handshake: the first frames of both ends, and which processes are accepted."""

import os
import socket
import struct
from typing import Final, NamedTuple

from fastsse.bus.frames import VERSION, Fields, FrameError, FrameKind, frame, pack_position, text

__all__ = ["KEY_BYTES", "Hello", "Welcome", "is_ours"]

KEY_BYTES: Final = 8
_MAGIC: Final = b"fsse"
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED.


class Hello(NamedTuple):
    """The greeting of a worker. `head`: the last position that it has, 0 for none. `begins`: the
    place after which its history is complete."""

    version: int
    worker: int
    key: bytes
    head: int
    begins: int = 0

    def pack(self) -> bytes:
        """The whole frame."""
        version, worker, key, head, begins = self
        numbers = struct.pack("<HI", version, worker)
        places = pack_position(head) + pack_position(begins)
        return frame(FrameKind.HELLO, _MAGIC, numbers, key, places)

    @classmethod
    def unpack(cls, body: bytes) -> "Hello":
        """Parses a greeting. Raises FrameError for an invalid one. Of another version only the
        version is read."""
        fields = Fields(body)
        if fields.raw(len(_MAGIC)) != _MAGIC:
            raise FrameError("no greeting of a worker")
        version, worker = fields.u16(), fields.u32()
        if version != VERSION:
            return cls(version, worker, b"", 0)
        key = fields.raw(KEY_BYTES)
        hello = cls(version, worker, key, fields.position(), fields.position())
        fields.end()
        return hello


class Welcome(NamedTuple):
    """The hub accepts a worker.

    `start`: where the following log begins: at the worker's own head, or at `head` for a worker
    without events. The history of such a worker goes back to `memory_start`; it requests the part
    before `start`. `up_limit_bytes` bounds the frames of the worker, `down_limit_bytes` those of
    the hub. `wants_memory`: the worker must keep what a hub without a store would need to recover.
    """

    head: int
    start: int
    memory_start: int
    up_limit_bytes: int
    down_limit_bytes: int
    wants_memory: bool
    trouble: str

    def pack(self) -> bytes:
        """The whole frame."""
        limits = struct.pack("<II?", *self[3:6])
        places = b"".join(map(pack_position, self[:3]))
        return frame(FrameKind.WELCOME, places, limits, text(self.trouble))

    @classmethod
    def unpack(cls, body: bytes) -> "Welcome":
        """Parses a welcome. Raises FrameError for an invalid one."""
        fields = Fields(body)
        places = fields.position(), fields.position(), fields.position()
        welcome = cls(*places, fields.u32(), fields.u32(), bool(fields.u8()), fields.text())
        fields.end()
        if not welcome.memory_start <= welcome.start <= welcome.head:
            raise FrameError("a log that begins behind its head")
        return welcome


def is_ours(sock: socket.socket) -> bool:
    """Whether the other end of a Unix socket runs as the same user as this process, or as root."""
    size = _CREDENTIALS.size
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return uid in (os.geteuid(), 0)
