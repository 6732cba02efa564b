"""Directives: what a publisher asks of an event in addition to sending it. Control entries.

Directives travel with the event to the place where order is made, which judges them.
"""

import contextlib
import hashlib
import re
from datetime import datetime
from struct import Struct
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import orjson

from fastsse.errors import InvalidEvent
from fastsse.streamstate import StreamAsk
from fastsse.units import parse_duration_s

__all__ = [
    "BLANK",
    "DIRECTIVE_FIELDS",
    "DROPPED",
    "END",
    "NO_NOTICE",
    "Control",
    "Directives",
    "Producer",
    "RequestKey",
    "as_known",
    "check_key",
    "delivery_ms",
    "directives_of",
    "is_delayed",
    "notice_of",
    "of_copy",
    "of_other_topics",
    "producer_key",
    "read_control",
    "without_seq",
]

#: Those fields of a publish that are directives.
DIRECTIVE_FIELDS: Final = frozenset({"end", "key", "expect", "ttl", "deliver_at", "delay"})
#: How far ahead an event may be published.
DELAY_S_MAX: Final = 365 * 24 * 3600
KEY_BYTES_MAX: Final = 256
_DIGEST_BYTES: Final = 16
_COUNT_BYTES: Final = 4
_TTL_S_MIN: Final = 0.001
_TTL_S_MAX: Final = 3650 * 24 * 3600
#: In front of a key: whose it is.
SCOPE_BYTES: Final = 8
#: The same of a producer, whose scope may be any of very many streams.
PRODUCER_SCOPE_BYTES: Final = 16
_PRODUCER: Final = Struct("<QQ?")
# Printable ASCII: what every client can send in a header, and read in a log.
_KEY: Final = re.compile(r"[\x20-\x7e]{1,256}")


class RequestKey(NamedTuple):
    """The key of a whole request, the digest of what it asked, and how many entries it made."""

    key: bytes
    digest: bytes
    entry_count: int

    def encode(self) -> bytes:
        """As a draft and an entry carry it."""
        return self.digest + self.entry_count.to_bytes(_COUNT_BYTES, "little") + self.key

    @classmethod
    def decode(cls, text: bytes) -> "RequestKey":
        """What `encode` wrote. Raises ValueError."""
        head = _DIGEST_BYTES + _COUNT_BYTES
        if len(text) <= head:
            raise ValueError("a key without its text")
        count = int.from_bytes(text[_DIGEST_BYTES:head], "little")
        return cls(text[head:], text[:_DIGEST_BYTES], count)


#: JavaScript's largest exact integer, and of Redis's scripts.
PRODUCER_NUMBER_MAX: Final = (1 << 53) - 1


class Producer(NamedTuple):
    """Who appended an event, and the number of the append. Events of one batch with the same number
    are one append.

    Attributes:
        key: `producer_key` of the producer.
        epoch: of its start, 0 to 2**53 - 1. A lower one than a known one is refused.
        sequence: of the append in the epoch, 0 to 2**53 - 1. Known ones are not stored again.
        refuses_gaps: an epoch begins with 0, and each number is one above the last.
    """

    key: bytes
    epoch: int
    sequence: int
    refuses_gaps: bool = False

    def encode(self) -> bytes:
        """As a draft and an entry carry it. Raises ValueError for numbers that can't be."""
        if not (
            0 <= self.epoch <= PRODUCER_NUMBER_MAX and 0 <= self.sequence <= PRODUCER_NUMBER_MAX
        ):
            raise ValueError("epoch and sequence are 0 to 2**53 - 1")
        return _PRODUCER.pack(self.epoch, self.sequence, self.refuses_gaps) + self.key

    @classmethod
    def decode(cls, text: bytes) -> "Producer":
        """What `encode` wrote. Raises ValueError."""
        if len(text) <= _PRODUCER.size:
            raise ValueError("a producer without its key")
        epoch, sequence, refuses_gaps = _PRODUCER.unpack_from(text)
        return cls(text[_PRODUCER.size :], epoch, sequence, refuses_gaps)


def producer_key(scope: str | bytes, name: bytes) -> bytes:
    """The key of a producer, whose name of 1 to 256 bytes is its own within the scope."""
    text = scope.encode() if isinstance(scope, str) else scope
    return hashlib.blake2b(text, digest_size=PRODUCER_SCOPE_BYTES).digest() + name


ControlKind: TypeAlias = Literal["end", "delete", "purge"]
KINDS: Final[frozenset[ControlKind]] = frozenset({"end", "delete", "purge"})


class Directives(NamedTuple):
    """What is asked of one event. All None and False is none at all.

    Attributes:
        control: it is no event but a control entry, and this is what it says.
        ends: its topics end behind it.
        key: the publisher's key of this event; one with the same key is not stored again.
        expect: the id that the newest event of its topic must have; `earliest`: none is kept.
        request: the key of the request, on its first event.
        ttl_ms: how long after its publish it is sent; None: for ever.
        producer: who appended it; not together with a key.
        stream: what is asked of the durable stream that is its first topic.
        takes: the key of the control store that is removed with the append; it is stored only while
            there is one.
        deliver_at_ms: publish it then, unix milliseconds.
        delay_ms: publish it so long after the request.
    """

    control: bytes | None = None
    ends: bool = False
    key: bytes | None = None
    expect: bytes | None = None
    request: RequestKey | None = None
    ttl_ms: int | None = None
    producer: Producer | None = None
    stream: StreamAsk | None = None
    takes: bytes | None = None
    deliver_at_ms: int | None = None
    delay_ms: int | None = None


def of_other_topics(asked: Directives | None) -> Directives | None:
    """What is asked of an event that goes to other topics: those do not end, and are not the
    durable stream that was appended to."""
    if asked is None:
        return None
    rest = asked._replace(ends=False, stream=None, control=None)
    return None if rest == Directives() else rest


def as_known(made: Directives | None, asked: Directives | None) -> Directives | None:
    """What is asked of the event that one became: it is known by what that one is known by.

    Arguments:
        made: what is asked of it besides.
        asked: what was asked of the one.
    """
    if asked is None:
        return made
    known = (made or Directives())._replace(
        key=asked.key, request=asked.request, producer=asked.producer
    )
    return None if known == Directives() else known


def of_copy(asked: Directives | None, number: int) -> Directives | None:
    """What is asked of a copy next to an event: to be stored once, as the event is.

    Arguments:
        asked: of the event.
        number: of the copy, from 1.
    """
    if asked is None or (asked.key is None and asked.producer is None):
        return None
    # Keys of publishers have no line feed.
    key = None if asked.key is None else b"%b\n%d" % (asked.key, number)
    return Directives(key=key, producer=asked.producer)


def directives_of(
    *,
    ends: bool = False,
    key: object = None,
    expect: object = None,
    ttl: object = None,
    deliver_at: object = None,
    delay: object = None,
) -> Directives | None:
    """What a publisher's fields ask; None for nothing.

    Raises InvalidEvent for a key that is not 1 to 256 characters of printable ASCII, an expected
    id that no event can have, a time to live that is not 1 ms to 10 years, or a delay over a year.
    """
    if not ends and key is expect is ttl is deliver_at is delay is None:
        return None
    if deliver_at is not None and delay is not None:
        raise InvalidEvent("delay", "can't be combined with deliver_at")
    if expect is not None and (deliver_at is not None or delay is not None):
        raise InvalidEvent("expect", "can't be combined with deliver_at or delay")
    return Directives(
        ends=ends,
        key=None if key is None else check_key(key, "key"),
        expect=None if expect is None else _expected(expect),
        ttl_ms=None if ttl is None else _ttl_ms(ttl),
        deliver_at_ms=None if deliver_at is None else _deliver_at_ms(deliver_at),
        delay_ms=None if delay is None else _delay_ms(delay),
    )


def check_key(key: object, field: str) -> bytes:
    """A publisher's key as bytes. Raises InvalidEvent about `field`."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise InvalidEvent(field, f"must be 1 to {KEY_BYTES_MAX} characters of printable ASCII")
    return key.encode()


def _ttl_ms(value: object) -> int:
    """Seconds, or text with a unit."""
    seconds = _seconds(value)
    if not _TTL_S_MIN <= seconds <= _TTL_S_MAX:
        raise InvalidEvent("ttl", "must be seconds, or a time such as 30s; 1 ms to 3650 days")
    return round(seconds * 1000)


def _seconds(value: object) -> float:
    """Seconds, or text with a unit; -1 for anything else."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return parse_duration_s(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        return value if abs(value) < _TTL_S_MAX * 2 else -1.0
    return -1.0


def _delay_ms(value: object) -> int:
    seconds = _seconds(value)
    if not 0 <= seconds <= DELAY_S_MAX:
        raise InvalidEvent("delay", "must be seconds, or a time such as 10m, up to 365d")
    return round(seconds * 1000)


def _deliver_at_ms(value: object) -> int:
    """Unix milliseconds of a time of RFC 3339, or of a number of them."""
    allowed = "must be a time (2026-01-31T12:00:00Z), or unix milliseconds"
    if isinstance(value, int) and not isinstance(value, bool):
        time_ms = value
    else:
        text = value if isinstance(value, str) else ""
        if text.isascii() and text.isdigit() and len(text) <= 16:
            # Before a date is tried: Python takes 1796012841446 for 28 January 1796, 14:46.
            time_ms = int(text)
        else:
            try:
                moment = datetime.fromisoformat(text.replace(" ", "+"))
            except ValueError:
                raise InvalidEvent("deliver_at", allowed) from None
            if moment.tzinfo is None or "T" not in text:
                raise InvalidEvent("deliver_at", allowed)
            time_ms = round(moment.timestamp() * 1000)
    if not 0 <= time_ms < 1 << 50:
        raise InvalidEvent("deliver_at", allowed)
    return time_ms


def is_delayed(directives: Directives | None) -> bool:
    """Whether an event is to be published later."""
    return directives is not None and not (
        directives.deliver_at_ms is None and directives.delay_ms is None
    )


def delivery_ms(directives: Directives | None, now_ms: int) -> int | None:
    """When an event is to be published, unix milliseconds; None: now. Raises InvalidEvent for a
    time that is more than DELAY_S_MAX ahead."""
    if directives is None or directives.deliver_at_ms is directives.delay_ms is None:
        return None
    if directives.delay_ms is not None:
        return now_ms + directives.delay_ms
    assert directives.deliver_at_ms is not None
    if directives.deliver_at_ms > now_ms + DELAY_S_MAX * 1000:
        raise InvalidEvent("deliver_at", "must be at most 365d ahead")
    return directives.deliver_at_ms


def _expected(value: object) -> bytes:
    text = value.encode("utf-8", "replace") if isinstance(value, str) else b""
    if not 0 < len(text) <= KEY_BYTES_MAX:
        raise InvalidEvent("expect", "must be the id of an event, or earliest")
    return text


_OF_EVENT: Final = b"e"
_OF_REQUEST: Final = b"r"
OF_PRODUCER: Final = b"p"
_OF_SEQ: Final = b"q"


def stored_key(directives: Directives) -> bytes | None:
    """The key as an entry carries it: of the event, of its producer, or on the first event of the
    request; behind the `Stream-Seq` if it has one."""
    key, ask = _own_key(directives), directives.stream
    if ask is None or ask.seq is None:
        return key
    return _OF_SEQ + len(ask.seq).to_bytes(2, "little") + ask.seq + (key or b"")


def without_seq(key: bytes) -> tuple[bytes | None, bytes]:
    """The `Stream-Seq` and the rest of what `stored_key` gave; None and b"" where they are not."""
    if key[:1] != _OF_SEQ:
        return None, key
    end = 3 + int.from_bytes(key[1:3], "little")
    return key[3:end], key[end:]


def _own_key(directives: Directives) -> bytes | None:
    if directives.request is not None:
        return _OF_REQUEST + directives.request.encode()
    if directives.producer is not None:
        return OF_PRODUCER + directives.producer.encode()
    return None if directives.key is None else _OF_EVENT + directives.key


def without_key(asked: Directives | None) -> Directives | None:
    """What is left to do with an event that was judged, where no entry is to have its key."""
    if asked is None or (asked.control, asked.ttl_ms, asked.stream) == (None, None, None):
        return None
    return asked._replace(key=None, request=None, producer=None)


def own_key(key: bytes) -> bytes:
    """The key of a publisher without a token, and of the server's own program."""
    return hashlib.blake2b(b"", digest_size=SCOPE_BYTES).digest() + key


def with_count(event: Any, count: int) -> Any:
    """The event with the number of entries that its request makes, where it has the request's
    key."""
    asked = event.directives
    if asked is not None and asked.request is not None:
        event.direct(asked._replace(request=asked.request._replace(entry_count=count)))
    return event


class Control(NamedTuple):
    """What a control entry says.

    Attributes:
        kind: `end`: its topics have ended. `delete`: the event at a position is blank.
            `purge`: all events of its topics up to a position are blank.
        through: that position; 0 for `end`, and for a purge up to its own position.
        event_id: of `delete`: the id of the event, as streams received it.
    """

    kind: ControlKind
    through: int = 0
    event_id: str = ""

    def encode(self) -> bytes:
        """As an entry carries it."""
        members: dict[str, Any] = {"op": self.kind}
        if self.through:
            members["at"] = _text(self.through)
        if self.event_id:
            members["id"] = self.event_id
        # A copy: what orjson made keeps the room of the buffer that it was written into.
        return bytes(memoryview(orjson.dumps(members)))


END: Final = Control("end").encode()
PURGE: Final = Control("purge").encode()
#: Stands for an append that a rule has dropped: the number of its producer counts.
DROPPED: Final = b'{"op":"dropped"}'
#: What stands in the place of an event that was deleted.
BLANK: Final = b'{"op":"blank"}'
_ERASES: Final = (b'{"op":"delete"', b'{"op":"purge"')
#: What a control entry is on a stream that does not ask for notices: nothing that a client sees.
NO_NOTICE: Final = b":\n\n"


def read_control(text: bytes) -> Control | None:
    """What a control entry says; None for an operation of a later version. Raises ValueError when
    it is not one."""
    members = orjson.loads(text)
    if not isinstance(members, dict) or not isinstance(kind := members.get("op"), str):
        raise ValueError("not a control entry")
    if kind not in KINDS:
        return None
    ms, _, n = str(members.get("at", "0-0")).partition("-")
    event_id = members.get("id", "")
    if not isinstance(event_id, str):
        raise ValueError("an id that is not text")
    return Control(kind, int(ms) << 64 | int(n), event_id)


def notice_of(text: bytes, topics: tuple[str, ...], position: int) -> bytes:
    """What streams that ask for notices (`deleted=true`) are sent of a control entry: a block of an
    event stream; NO_NOTICE for nothing. Raises ValueError for a deletion that can't be.

    A topic is named where there is only one: to see an event is no right to know its other topics.
    """
    control = read_control(text) if text.startswith(_ERASES) else None
    if control is None:
        return NO_NOTICE
    members: dict[str, str] = {"op": control.kind}
    if len(topics) == 1:
        members["topic"] = topics[0]
    if control.kind == "delete":
        members["id"] = control.event_id or _text(control.through)
    else:
        members["through"] = _text(control.through or position)
    return b"event: fastsse.deleted\nid: %b\ndata: %b\n\n" % (
        _text(position).encode(),
        orjson.dumps(members),
    )


def _text(position: int) -> str:
    return f"{position >> 64}-{position & (1 << 64) - 1}"
