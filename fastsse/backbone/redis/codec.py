"""Records: how events are encoded in the stream, and how entries of the stream are decoded.

An event is a JSON object, so that `redis-cli XRANGE` shows it. A decoded record is validated by
`Event` again, because any program with the password of Redis can write into the stream. Entries of
other programs and invalid entries raise ValueError and are skipped.

Format 2 is the same object with two members in front, which the append script writes: `c`, the
CRC-32C of the object without them and the first 32 bits of the SHA-1 of id, CRC and time; and `w`,
when it was written by Redis's clock, in unix milliseconds. So a record is only accepted unchanged
and at its own place. Nodes that read only format 1 ignore both members.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import orjson

from fastsse._records import crc32c
from fastsse.backbone.judge import is_plain
from fastsse.directives import Directives, read_control
from fastsse.errors import InvalidEvent
from fastsse.events import DATA_BYTES, DATA_JSON, DATA_TEXT, Event
from fastsse.positions import N_BITS, N_MASK, parse_id, parse_position
from fastsse.streamstate import StreamAsk, StreamRow, read_stream_control

__all__ = [
    "BLANK_RECORD",
    "DamagedRecord",
    "SentEvent",
    "StreamEntry",
    "decode_event",
    "decode_record",
    "encode_asked",
    "encode_event",
    "id_at",
    "is_control_record",
    "parse_entry",
    "place_of",
]

_SEAL: Final = re.compile(rb'\{"c":"([0-9a-f]{8})([0-9a-f]{8})","w":([0-9]{1,15}),')
_CONTROL: Final = re.compile(rb'\{("c":"[0-9a-f]{16}","w":[0-9]{1,15},)?"o":')
# What format 1 has. Anything else in a record without a seal is damage, or nothing of ours.
_MEMBERS: Final = frozenset("tdeirpumox")
#: What stands in a topic's list in the place of a deleted event; `append.lua` writes it.
BLANK_RECORD: Final = b'{"o":"blank"}'
_DATA_KINDS: Final = (DATA_TEXT, DATA_JSON, DATA_BYTES)


def is_control_record(record: bytes) -> bool:
    """Whether a record is a control entry, or a deleted event."""
    return _CONTROL.match(record) is not None


class DamagedRecord(ValueError):
    """A record that was written by a node, but is damaged or at another place."""


class StreamEntry(NamedTuple):
    """An entry of the stream.

    - `sequence`: its running number. The number of the next entry is one higher, or entries are
      missing.
    - `node`, `group`, `nth`, `left`: which event of which group this was in the node that sent
      it, and how many of its batch follow. Both empty for a mark.
    - `mark`: why there is an entry without an event: `made` or `raised`; else empty.
    """

    position: int
    sequence: int
    node: bytes
    group: int
    nth: int
    left: int
    mark: bytes
    record: bytes

    @property
    def identity(self) -> tuple[int, bytes, int, int]:
        """A value that no other entry has, in any copy of the log."""
        return self.sequence, self.node, self.group, self.nth

    def continues(self, earlier: "StreamEntry") -> bool:
        """Whether it is the next event of the same batch."""
        return (self.node, self.group, self.nth, self.left) == (
            earlier.node,
            earlier.group,
            earlier.nth + 1,
            earlier.left - 1,
        )


def encode_event(event: Event) -> bytes:
    """An event as JSON; what it doesn't have is left out. O(bytes)."""
    fields: dict[str, Any] = {}
    if event.directives is not None and event.directives.control is not None:
        fields["o"] = event.directives.control.decode()  # First: scripts look for it there.
    if event.directives is not None and event.directives.ttl_ms is not None:
        fields["x"] = event.directives.ttl_ms
    fields |= {"t": event.topics, "d": event.data.decode()}
    if event.event is not None:
        fields["e"] = event.event.decode()
    if event.id is not None:
        fields["i"] = event.id.decode()
    if event.retry_ms:
        fields["r"] = event.retry_ms
    if event.private:
        fields["p"] = True
    if event.id_style == "uuid":
        fields["u"] = True
    if event.meta is not None:
        fields["m"] = orjson.Fragment(event.meta)
    if event.data_kind:
        fields["k"] = event.data_kind  # Last: see append.lua.
    return orjson.dumps(fields)


def decode_event(record: bytes) -> Event:
    """The event of a record, validated. Members that it does not know are ignored. Raises
    ValueError."""
    fields = orjson.loads(record)
    if not isinstance(fields, dict):
        raise ValueError("not an object")
    return _event_of(fields)


class SentEvent(NamedTuple):
    """An event that this node has sent, and its record, without a seal."""

    event: Event
    record: bytes


def decode_record(position: int, record: bytes, sent: SentEvent | None = None) -> tuple[Event, int]:
    """The event of a record of any format that was found at a position, and when it was published,
    in unix milliseconds. O(bytes). If the record is the one that was `sent`, under a seal, the
    event is that one too, which saves half of the cost.

    Raises DamagedRecord for one whose checksum fails, ValueError for what is no event.
    """
    seal = _SEAL.match(record)
    if seal is None:
        fields = orjson.loads(record)
        if not isinstance(fields, dict) or not _MEMBERS.issuperset(fields):
            raise ValueError("not an event of ours")
        return _event_of(fields), position >> N_BITS
    crc, check, written = seal.groups()
    plain = b"{" + record[seal.end() :]
    key = b"%b %b %b" % (id_at(position), crc, written)
    if crc32c(plain) != int(crc, 16) or _sha1(key)[:8] != check.decode():
        raise DamagedRecord("its checksum fails")
    if sent is not None and sent.record == plain:
        return sent.event, int(written)
    return decode_event(plain), int(written)


def _sha1(data: bytes) -> str:
    # Not for secrecy: it is what scripts in Redis can compute.
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _event_of(fields: dict[str, Any]) -> Event:
    private, uuid, meta = fields.get("p", False), fields.get("u", False), fields.get("m")
    is_flag = isinstance(private, bool) and isinstance(uuid, bool)
    if not is_flag or not isinstance(meta, dict | None):
        raise ValueError("p and u must be true or false, m an object")
    kind = fields.get("k", DATA_TEXT)
    try:
        return Event(
            fields.get("t", ()),
            fields.get("d"),  # type: ignore[arg-type]
            fields.get("e"),
            fields.get("i"),
            fields.get("r"),
            private,
            "uuid" if uuid else "position",
            meta,
            kind if kind in _DATA_KINDS else DATA_TEXT,
            directives=_directives_of(fields),
        )
    except InvalidEvent as error:
        raise ValueError(str(error)) from None


def _directives_of(fields: dict[str, Any]) -> Directives | None:
    control, ttl_ms = fields.get("o"), fields.get("x")
    if control is None and ttl_ms is None:
        return None
    if ttl_ms is not None and (type(ttl_ms) is not int or not 0 < ttl_ms < 1 << 40):
        raise ValueError("x must be milliseconds")
    if control is None:
        return Directives(ttl_ms=ttl_ms)
    if not isinstance(control, str):
        raise ValueError("o must be text")
    read_control(control.encode())
    return Directives(control=control.encode())


def encode_asked(events: Sequence[Event]) -> bytes:
    """What the append script is to judge of a batch; nothing where it is only to be stored."""
    if is_plain(events):
        return b""
    asked: list[dict[str, Any]] = []
    for event in events:
        wants: dict[str, Any] = {}
        directives = event.directives or Directives()
        if directives.control is not None:
            control = read_control(directives.control)
            wants = {"control": True, "needs2": True}
            if control is not None and control.kind == "end":
                wants["end"] = True
            elif control is not None and control.kind == "delete":
                wants["erase"] = id_text(control.through)
            elif control is not None:
                wants["purge"] = True
        if directives.key is not None:
            wants["key"] = directives.key.decode("latin-1")
        if directives.request is not None:
            wants["request"] = directives.request.key.decode("latin-1")
            wants["digest"] = directives.request.digest.hex()
        if directives.producer is not None:
            one = directives.producer
            wants["producer"] = one.key.decode("latin-1")
            wants["epoch"], wants["sequence"] = one.epoch, one.sequence
            wants["strict"] = one.refuses_gaps
        if directives.stream is not None:
            wants["stream"] = _asked_of_stream(directives.stream, directives.control)
        if directives.takes is not None:
            wants["take"] = directives.takes.decode()
        if directives.expect is not None:
            position = parse_id(directives.expect)
            wants["expect"] = directives.expect.decode() if position is None else id_text(position)
            wants["own"] = position is None
        asked.append(wants)
    return orjson.dumps(asked)


def _asked_of_stream(ask: StreamAsk, control: bytes | None) -> dict[str, Any]:
    """What is asked of a durable stream; of one that is created its row, without what Redis
    gives it."""
    wants: dict[str, Any] = {"op": ask.op, "g": id_text(ask.generation)}
    if ask.seq is not None:
        wants["s"] = ask.seq.decode("latin-1")
    of_stream = read_stream_control(control or b"")
    if of_stream is not None and of_stream.config is not None:
        config = of_stream.config
        row = orjson.loads(StreamRow(0, config, config.fork_place).encode())
        wants["row"] = row if config.source is not None else row | {"t": ""}
    return wants


def id_text(position: int) -> str:
    """The stream id of a position, as text."""
    return id_at(position).decode()


def place_of(stream_id: bytes) -> int:
    """The position that a stream id is. Raises ValueError beyond what positions can be."""
    position = parse_position(stream_id)
    if position is None:
        raise ValueError("an id that is no position")
    return position


def id_at(position: int) -> bytes:
    """The stream id of a position."""
    return b"%d-%d" % (position >> N_BITS, position & N_MASK)


def parse_entry(stream_id: bytes, fields: Sequence[bytes]) -> StreamEntry:
    """What an entry says. Raises ValueError for one that is not ours."""
    position = place_of(stream_id)
    match fields:
        case [b"s", sequence, b"k", identity, b"e", record]:
            node, group, nth, left = identity.split(b" ")
            return StreamEntry(
                position, int(sequence), node, int(group), int(nth), int(left), b"", record
            )
        case [b"s", sequence, b"m", mark]:
            return StreamEntry(position, int(sequence), b"", 0, 0, 0, mark, b"")
    raise ValueError("not an entry of ours")
