"""Entries: committed events as everybody passes them on, and both kinds of record that carry them.

An event is encoded once, where it gets its position. From there on it is an `Entry`: what
history, the stores and the workers of a node hand to each other, never its fields again. What is
still to be committed travels as a draft. Both records are for our own processes and files: a
record that was cut or damaged is refused, whoever can write them is trusted.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

from fastsse._core import Frame, encode_frame, load_frame
from fastsse.errors import InvalidEvent
from fastsse.events import EVENT_TOPICS_MAX, Event
from fastsse.positions import N_BITS, N_MASK, uuid_of_position

__all__ = [
    "Entry",
    "encode_entries",
    "id_of",
    "pack_entry",
    "pack_events",
    "unpack_entries",
    "unpack_events",
]

# Bytes behind it, milliseconds, n, flags, topics; each topic and text has its length before it.
_ENTRY: Final = struct.Struct("<IQQBB")
# Bytes behind it, flags, topics, retry in milliseconds.
_DRAFT: Final = struct.Struct("<IBBI")
_LENGTH: Final = struct.Struct("<H")
_LONG: Final = struct.Struct("<I")
_PRIVATE: Final = 1
_OWN_ID: Final = 2
_TYPE: Final = 4
_UUID: Final = 8
_MS_MAX: Final = (1 << 63) - 1

_Made = TypeVar("_Made")


class Entry(NamedTuple):
    """One committed event.

    `own_id` is the publisher's own, by which history finds the event too. `frame` is the event
    encoded; its position is the entry's, and it says whether the event is private.
    """

    position: int
    topics: tuple[str, ...]
    own_id: bytes | None
    frame: Frame


def encode_entries(positions: Sequence[int], events: Sequence[Event]) -> list[Entry]:
    """Events that got their positions, encoded. O(bytes)."""
    entries = []
    ms, prefix = -1, b""
    for position, event in zip(positions, events, strict=True):
        own_id = event_id = event.id
        if event_id is None:
            if event.id_style == "uuid":
                event_id = uuid_of_position(position)
            else:
                if position >> N_BITS != ms:
                    ms = position >> N_BITS
                    prefix = b"%d-" % ms
                event_id = prefix + b"%d" % (position & N_MASK)
        frame = encode_frame(
            event.data, event.event, event_id, event.retry_ms, position, event.private
        )
        entries.append(Entry(position, event.topics, own_id, frame))
    return entries


def id_of(position: int, event: Event) -> bytes:
    """What an event's `id:` line says: the publisher's own id, else its position."""
    if event.id is not None:
        return event.id
    if event.id_style == "uuid":
        return uuid_of_position(position)
    return b"%d-%d" % (position >> N_BITS, position & N_MASK)


def pack_entry(entry: Entry) -> bytes:
    """An entry as a record; records may stand one behind the other. O(bytes)."""
    position, topics, own_id, frame = entry
    flags = (_PRIVATE if frame.private else 0) | (0 if own_id is None else _OWN_ID)
    parts = [b"", *_with_lengths(topics)]
    if own_id is not None:
        parts += (_LENGTH.pack(len(own_id)), own_id)
    parts.append(frame.body)
    size_bytes = sum(map(len, parts)) + _ENTRY.size - _LONG.size
    parts[0] = _ENTRY.pack(size_bytes, position >> N_BITS, position & N_MASK, flags, len(topics))
    return b"".join(parts)


def unpack_entries(buffer: bytes | bytearray | memoryview) -> list[Entry]:
    """The entries of whole records. Raises ValueError when one is cut or damaged. O(bytes)."""
    return list(_records(memoryview(buffer), _ENTRY, _entry))


def pack_events(events: Sequence[Event]) -> bytes:
    """Events that have no position yet, as records. O(bytes)."""
    return b"".join(map(_draft_record, events))


def unpack_events(buffer: bytes | bytearray | memoryview) -> list[Event]:
    """The events of whole records, each validated again. Raises ValueError. O(bytes)."""
    try:
        return list(_records(memoryview(buffer), _DRAFT, _draft))
    except InvalidEvent as error:
        raise ValueError(f"an event that can't be: {error}") from None


class _Reader:
    """Takes fields from one record and nothing from behind its end."""

    __slots__ = ("_at", "_record")

    def __init__(self, record: memoryview, at: int) -> None:
        self._record = record
        self._at = at

    def take(self) -> bytes:
        """A text with its length before it."""
        start = self._at + _LENGTH.size
        if start > len(self._record):
            raise ValueError("a record was cut")
        stop = start + int(_LENGTH.unpack_from(self._record, self._at)[0])
        if stop > len(self._record):
            raise ValueError("a record was cut")
        self._at = stop
        return bytes(self._record[start:stop])

    def topics(self, count: int) -> tuple[str, ...]:
        if not 0 < count <= EVENT_TOPICS_MAX:
            raise ValueError(f"a record of {count} topics")
        # A text that is not UTF-8 is a ValueError too.
        return tuple([self.take().decode() for _ in range(count)])

    def rest(self) -> bytes:
        return bytes(self._record[self._at :])


def _records(
    buffer: memoryview, head: struct.Struct, make: Callable[[memoryview], _Made]
) -> Iterator[_Made]:
    at, end = 0, len(buffer)
    while at < end:
        if at + head.size > end:
            raise ValueError("a record was cut")
        stop = at + _LONG.size + _LONG.unpack_from(buffer, at)[0]
        if not at + head.size <= stop <= end:
            raise ValueError("a record was cut")
        yield make(buffer[at:stop])
        at = stop


def _entry(record: memoryview) -> Entry:
    _, ms, n, flags, count = _ENTRY.unpack_from(record)
    reader = _Reader(record, _ENTRY.size)
    topics = reader.topics(count)
    own_id = reader.take() if flags & _OWN_ID else None
    body = reader.rest()
    if ms > _MS_MAX or flags & ~(_PRIVATE | _OWN_ID) or not body.endswith(b"\n\n"):
        raise ValueError("a damaged record")
    position = ms << N_BITS | n
    return Entry(position, topics, own_id, load_frame(body, position, bool(flags & _PRIVATE)))


def _draft_record(event: Event) -> bytes:
    flags = (_PRIVATE if event.private else 0) | (_UUID if event.id_style == "uuid" else 0)
    parts = [b"", *_with_lengths(event.topics)]
    for flag, text in ((_OWN_ID, event.id), (_TYPE, event.event)):
        if text is not None:
            flags |= flag
            parts += (_LENGTH.pack(len(text)), text)
    parts.append(event.data)
    size_bytes = sum(map(len, parts)) + _DRAFT.size - _LONG.size
    parts[0] = _DRAFT.pack(size_bytes, flags, len(event.topics), event.retry_ms)
    return b"".join(parts)


def _draft(record: memoryview) -> Event:
    _, flags, count, retry_ms = _DRAFT.unpack_from(record)
    reader = _Reader(record, _DRAFT.size)
    topics = reader.topics(count)
    own_id = reader.take() if flags & _OWN_ID else None
    event_type = reader.take() if flags & _TYPE else None
    if flags & ~(_PRIVATE | _OWN_ID | _TYPE | _UUID):
        raise ValueError("a damaged record")
    return Event(
        topics,
        reader.rest(),
        event_type,
        own_id,
        retry_ms or None,
        private=bool(flags & _PRIVATE),
        id_style="uuid" if flags & _UUID else "position",
    )


def _with_lengths(topics: tuple[str, ...]) -> list[bytes]:
    parts: list[bytes] = []
    for topic in topics:
        text = topic.encode()
        parts += (_LENGTH.pack(len(text)), text)
    return parts
