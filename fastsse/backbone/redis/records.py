"""Records: how an event lies in the stream, and what an entry of the stream says.

An event is a JSON object, so that `redis-cli XRANGE` shows it. Whatever comes back passes through
`Event` again: the stream is open to all who have its password, and the encoder's rules hold for
them too. Entries that are none of ours, or break a rule, raise ValueError and are skipped.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from fastsse.errors import InvalidEvent
from fastsse.events import Event
from fastsse.positions import N_BITS, N_MASK, parse_position

__all__ = ["StreamEntry", "decode_event", "encode_event", "id_at", "parse_entry", "place_of"]


class StreamEntry(NamedTuple):
    """An entry of the stream.

    - `sequence`: its running number; the next entry's is one more, or something is missing.
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
        """What no other entry has, in whatever copy of the log."""
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
    fields: dict[str, Any] = {"t": event.topics, "d": event.data.decode()}
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
    return orjson.dumps(fields)


def decode_event(record: bytes) -> Event:
    """The event of a record, validated. Raises ValueError."""
    fields = orjson.loads(record)
    if not isinstance(fields, dict):
        raise ValueError("not an object")
    private, uuid = fields.get("p", False), fields.get("u", False)
    if not isinstance(private, bool) or not isinstance(uuid, bool):
        raise ValueError("p and u must be true or false")
    try:
        return Event(
            fields.get("t", ()),
            fields.get("d"),  # type: ignore[arg-type]
            fields.get("e"),
            fields.get("i"),
            fields.get("r"),
            private,
            "uuid" if uuid else "position",
        )
    except InvalidEvent as error:
        raise ValueError(str(error)) from None


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
