"""Messages between nodes in parts, because one message has at most 256 KiB."""

from collections.abc import Iterator
from struct import Struct
from typing import Final

__all__ = ["NAME_BYTES", "Assembly", "parts_of"]

#: Bytes of the name of a message, by which its parts and its answer are known.
NAME_BYTES: Final = 16
_PART_BYTES: Final = 192 * 1024
# What the unfinished messages of all nodes may hold. A request has at most 1 MiB.
_HELD_BYTES_MAX: Final = 64 * 1024 * 1024
_HEAD: Final = Struct(f"<c{NAME_BYTES}sHH")  # kind, name, number of the part, number of parts


def parts_of(kind: bytes, name: bytes, message: bytes) -> Iterator[bytes]:
    """The parts of a message, in order."""
    count = max(1, -(-len(message) // _PART_BYTES))
    for number in range(count):
        part = message[number * _PART_BYTES : (number + 1) * _PART_BYTES]
        yield _HEAD.pack(kind, name, number, count) + part


class Assembly:
    """Puts parts together. A message whose part was lost stays unfinished. Above a bound in bytes
    the oldest unfinished messages are dropped."""

    def __init__(self) -> None:
        self._held: Final[dict[tuple[bytes, bytes], list[bytes]]] = {}
        self._held_bytes = 0

    def add(self, node: bytes, part: bytes) -> tuple[bytes, bytes, bytes] | None:
        """Takes a part; returns kind, name and message if it was the last one, else None. Raises
        ValueError for an invalid part."""
        if len(part) < _HEAD.size:
            raise ValueError("a part is cut")
        kind, name, number, count = _HEAD.unpack_from(part)
        key, body = (node, name), part[_HEAD.size :]
        before = self._held.pop(key, [])
        self._held_bytes -= sum(map(len, before))
        if number != len(before) or number >= count:
            return None
        if number == count - 1:
            return kind, name, b"".join((*before, body))
        self._held[key] = [*before, body]
        self._held_bytes += sum(map(len, before)) + len(body)
        while self._held_bytes > _HELD_BYTES_MAX:
            oldest = self._held.pop(next(iter(self._held)))
            self._held_bytes -= sum(map(len, oldest))
        return None

    def forget(self, node: bytes) -> None:
        """Drops the unfinished messages of a node that is gone."""
        for key in [key for key in self._held if key[0] == node]:
            self._held_bytes -= sum(map(len, self._held.pop(key)))
