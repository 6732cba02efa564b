"""Events: validated once, at the edge, into a type that cannot be wrong.

Whatever the way in (HTTP, the Python interface, a foreign log), an event passes through `Event`.
What it refuses would break streams: field injection (CR, LF, NUL), ids that no client could send
back in a header, names that are reserved for the server.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, Literal

from fastsse.directives import DROPPED, END, PURGE, Control, Directives, Producer, of_other_topics
from fastsse.errors import BadRequest, InvalidEvent
from fastsse.meta import MetaValue, encode_meta
from fastsse.positions import is_position_shaped
from fastsse.reserved import DROPPED_TOPIC

__all__ = [
    "CONTROL",
    "DATA_BYTES",
    "DATA_JSON",
    "DATA_TEXT",
    "EARLIEST",
    "EVENT_TOPICS_MAX",
    "EVENT_TYPE_BYTES_MAX",
    "FIELDS",
    "RESERVED_EVENT_TYPE_PREFIX",
    "RESERVED_TOPIC_PREFIX",
    "Event",
    "IdStyle",
    "as_header_value",
    "check_event_type",
    "check_own_id",
    "check_topic",
]

#: What a publisher may say of an event, by the names of every interface but Mercure's.
FIELDS: Final = (
    "topic",
    "data",
    "event",
    "id",
    "retry",
    "private",
    "meta",
    "end",
    "key",
    "expect",
    "ttl",
    "deliver_at",
    "delay",
)

TOPIC_BYTES_MAX = 1024
EVENT_TOPICS_MAX = 100
EVENT_TYPE_BYTES_MAX = 256
ID_BYTES_MAX = 256
# Publishers use few types, again and again.
_KNOWN_TYPES_MAX: Final = 1024
# A publisher's `retry` holds for the whole stream; unclamped it would undo the jitter of a drain.
RETRY_MS_MIN = 1_000
RETRY_MS_MAX = 60 * 60 * 1_000
EARLIEST = b"earliest"
RESERVED_TOPIC_PREFIX = "$"
RESERVED_EVENT_TYPE_PREFIX = b"fastsse."

#: Control characters of Unicode (C0, DEL, C1).
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ENDS_A_LINE = re.compile(rb"[\r\n\0]")
# Header values may hold no others (RFC 9110 5.5), so such an id could never be resumed from.
_NOT_IN_A_HEADER = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_DIGITS = re.compile(r"[0-9]+")

# What `Event.data_kind` says the publisher sent.
DATA_TEXT: Final = 0
DATA_JSON: Final = 1
DATA_BYTES: Final = 2

IdStyle = Literal["position", "uuid"]


class Event:
    """What a publisher sends. Its attributes are set once and never assigned again.

    Arguments:
        topics: one topic or 1 to 100 of them; each 1 to 1,024 bytes of UTF-8 without control
            characters that does not begin with `$`. Repeated ones count once.
        data: text, or UTF-8 bytes. May hold any line ends.
        event: the event type, at most 256 bytes without CR, LF or NUL, not beginning with
            `fastsse.`; None or empty is the default type.
        id: the publisher's own id, 1 to 256 bytes that fit into a header, neither shaped like a
            position nor `earliest`; None has the server give the position.
        retry: milliseconds (an int, or digits), clamped to 1 s … 1 h; None leaves it out.
        private: only for streams whose grants match.
        id_style: how the server writes the id of an event that has none: as a position, or as
            the same in a UUID, which is what Mercure's clients expect.
        meta: named values next to the data, as in `fastsse.meta.encode_meta`.
        data_kind: DATA_TEXT, DATA_JSON or DATA_BYTES; JSON is text that a reader parses.
        directives: what is asked in addition to sending it; None: nothing.

    Raises InvalidEvent with the field's name. Cost: O(bytes).
    """

    __slots__ = (
        "data",
        "data_kind",
        "directives",
        "event",
        "id",
        "id_style",
        "meta",
        "private",
        "retry_ms",
        "topics",
    )

    topics: Final[tuple[str, ...]]
    data: Final[bytes]
    event: Final[bytes | None]
    id: Final[bytes | None]
    retry_ms: Final[int]
    private: Final[bool]
    id_style: Final[IdStyle]
    meta: Final[bytes | None]
    data_kind: Final[int]
    directives: Final[Directives | None]

    def __init__(
        self,
        topics: str | Sequence[str],
        data: str | bytes = b"",
        event: str | bytes | None = None,
        id: str | bytes | None = None,
        retry: int | str | bytes | None = None,
        private: bool = False,
        id_style: IdStyle = "position",
        meta: Mapping[str, MetaValue] | str | bytes | None = None,
        data_kind: int = DATA_TEXT,
        directives: Directives | None = None,
    ) -> None:
        self.topics = (check_topic(topics),) if isinstance(topics, str) else _topics(topics)
        self.data = data if type(data) is bytes and data.isascii() else _utf8(data, "data")
        self.event = None if event is None else check_event_type(event)
        self.id = None if id is None else check_own_id(id)
        self.retry_ms = 0 if retry is None else _retry_ms(retry)
        self.private = private
        self.id_style = id_style
        self.meta = None if meta is None else encode_meta(meta)
        self.data_kind = data_kind
        self.directives = directives

    def direct(self, directives: Directives | None) -> None:
        """Sets what is asked, before it is published."""
        self.directives = directives  # type: ignore[misc]

    @classmethod
    def end(cls, topics: str | Sequence[str], private: bool = False) -> "Event":
        """The control entry that ends topics. Raises InvalidEvent."""
        return cls(topics, private=private, directives=Directives(control=END))

    @classmethod
    def dropped(cls, producer: Producer) -> "Event":
        """The control entry that stands for an append of which nothing is left."""
        directives = Directives(control=DROPPED, producer=producer)
        return cls(DROPPED_TOPIC, private=True, directives=directives)

    @classmethod
    def purge(cls, topic: str) -> "Event":
        """The control entry that blanks the events of a topic. Raises InvalidEvent."""
        return cls(topic, directives=Directives(control=PURGE))

    @classmethod
    def deletion(
        cls, topics: Sequence[str], position: int, event_id: str, private: bool = False
    ) -> "Event":
        """The control entry that blanks an event, which has these topics."""
        control = Control("delete", position, event_id).encode()
        return cls(topics, private=private, directives=Directives(control=control))

    def replace(
        self,
        *,
        topics: str | Sequence[str] | None = None,
        data: str | bytes | None = None,
        event: str | bytes | None = None,
        id: str | bytes | None = None,
        private: bool | None = None,
        meta: Mapping[str, MetaValue] | str | bytes | None = None,
    ) -> "Event":
        """The same event with other values; None leaves a value as it is, except the own id, which
        a copy does not have unless it is given. Other topics do not end, and are no durable stream
        that is appended to. Raises InvalidEvent. O(bytes)."""
        return Event(
            self.topics if topics is None else topics,
            self.data if data is None else data,
            self.event if event is None else event,
            id,
            self.retry_ms or None,
            self.private if private is None else private,
            self.id_style,
            meta=self.meta if meta is None else meta,
            data_kind=self.data_kind if data is None else DATA_TEXT,
            directives=self.directives if topics is None else of_other_topics(self.directives),
        )

    def as_private(self) -> "Event":
        """The same event, for streams whose grants match."""
        return self._copy("private", True)

    def with_meta(self, meta: bytes | None) -> "Event":
        """The same event with another meta, as `encode_meta` gave it."""
        return self._copy("meta", meta)

    def directed(self, directives: Directives | None) -> "Event":
        """The same event with other directives."""
        return self if self.directives == directives else self._copy("directives", directives)

    def undirected(self) -> "Event":
        """The same event without directives."""
        return self.directed(None)

    def _copy(self, changed: str, value: object) -> "Event":
        copy = object.__new__(Event)
        for name in Event.__slots__:
            object.__setattr__(copy, name, getattr(self, name))
        object.__setattr__(copy, changed, value)
        return copy

    def __repr__(self) -> str:
        return f"Event(topics={self.topics!r}, data=<{len(self.data)} bytes>, id={self.id!r})"


def check_topic(topic: str, error: type[BadRequest] = InvalidEvent) -> str:
    """Returns `topic` when it is a topic's name, else raises `error` about the field `topic`."""
    # What is ASCII, printable and short is right at once; the rest of the rules is for the rest.
    plain = topic.isascii() and topic.isprintable() and 0 < len(topic) <= TOPIC_BYTES_MAX
    if plain and topic[0] != RESERVED_TOPIC_PREFIX:
        return topic
    if not topic:
        raise error("topic", "must not be empty")
    if len(_utf8(topic, "topic", error)) > TOPIC_BYTES_MAX:
        raise error("topic", f"must be at most {TOPIC_BYTES_MAX} bytes of UTF-8")
    if CONTROL.search(topic):
        raise error("topic", "must not hold control characters")
    if topic[0] == RESERVED_TOPIC_PREFIX:
        raise error("topic", "topics that begin with $ are reserved")
    return topic


def _topics(topics: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(topics, Sequence) or isinstance(topics, bytes):
        raise InvalidEvent("topic", "must be text, or a list of texts")
    if not 0 < len(topics) <= EVENT_TOPICS_MAX:
        raise InvalidEvent("topic", f"an event needs 1 to {EVENT_TOPICS_MAX} topics")
    if not all(isinstance(topic, str) for topic in topics):
        raise InvalidEvent("topic", "must be text, or a list of texts")
    return tuple(dict.fromkeys(map(check_topic, topics)))


def _utf8(value: str | bytes, field: str, error: type[BadRequest] = InvalidEvent) -> bytes:
    """The value as bytes that are UTF-8 for certain (no lone surrogates)."""
    try:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, bytes):
            value.decode()
            return value
    except UnicodeError:
        raise error(field, "must be UTF-8") from None
    raise error(field, "must be text")


def check_event_type(value: str | bytes) -> bytes | None:
    """The type that a text stands for; None: the default one. Raises InvalidEvent."""
    if type(value) is str and len(value) <= EVENT_TYPE_BYTES_MAX:
        return _type_of_text(value)
    return _event_type(value)


@lru_cache(_KNOWN_TYPES_MAX)
def _type_of_text(text: str) -> bytes | None:
    return _event_type(text)


def _event_type(value: str | bytes) -> bytes | None:
    event = _utf8(value, "event")
    if len(event) > EVENT_TYPE_BYTES_MAX:
        raise InvalidEvent("event", f"must be at most {EVENT_TYPE_BYTES_MAX} bytes of UTF-8")
    if _ENDS_A_LINE.search(event):
        raise InvalidEvent("event", "must not hold CR, LF or NUL")
    if event.startswith(RESERVED_EVENT_TYPE_PREFIX):
        raise InvalidEvent("event", "event types that begin with fastsse. are reserved")
    return event or None


def check_own_id(value: str | bytes) -> bytes:
    """The bytes of a publisher's own id. Raises InvalidEvent."""
    own_id = _utf8(value, "id")
    if len(own_id) > ID_BYTES_MAX:
        raise InvalidEvent("id", f"must be at most {ID_BYTES_MAX} bytes of UTF-8")
    if _NOT_IN_A_HEADER.search(own_id):
        raise InvalidEvent("id", "must not hold CR, LF, NUL or other control characters")
    came_back = as_header_value(own_id)
    if not came_back:
        raise InvalidEvent("id", "must not be empty")
    if came_back == EARLIEST or is_position_shaped(came_back):
        raise InvalidEvent("id", "must not be `earliest` or shaped like a position (digits-digits)")
    return own_id


def as_header_value(own_id: bytes) -> bytes:
    """The id as it comes back in `Last-Event-ID`: without blanks around it (RFC 9110 5.5)."""
    return own_id.strip(b" \t")


def _retry_ms(value: int | str | bytes) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return min(max(value, RETRY_MS_MIN), RETRY_MS_MAX)
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if not isinstance(text, str) or not _DIGITS.fullmatch(text):
        raise InvalidEvent("retry", "must be digits (milliseconds)")
    # Python reads only so many digits; more than the limit has are more than the limit.
    longest = len(str(RETRY_MS_MAX)) + 1
    return _retry_ms(int(text.lstrip("0")[:longest] or "0"))
