"""What a subscriber asks for: which topics, and from where on."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal, Self

from fastsse.errors import InvalidSubscription
from fastsse.events import EARLIEST, as_header_value, check_topic

__all__ = [
    "ANY",
    "EVENTS",
    "HEAD",
    "HEARTBEAT_S_MAX",
    "MERCURE",
    "MERCURE_CONTROL_EVENTS",
    "PAD_BYTES_MAX",
    "PAD_BYTES_MIN",
    "Cursor",
    "Dialect",
    "InitialId",
    "Subscription",
    "View",
]

# The selector that every topic matches.
ANY: Final = "*"
TOPICS_MAX = 100
# `last=N` is answered by counting backwards in each topic, so N times the topics is bounded.
LAST_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a stream begins.

    - `Cursor("head")`: at what is published next.
    - `Cursor("after", id)`: after that event (`Last-Event-ID`): a position, a publisher's own id,
      or `earliest`. Text or raw bytes as they came in; anything is allowed, nothing is head.
    - `Cursor("earliest")`: at the oldest event kept.
    - `Cursor("last", n)`: at the n-th newest event kept, 0 <= n <= 10,000.
    - `Cursor("since", unix_ms)`: at the first event of that millisecond or later.

    Raises InvalidSubscription when a number is out of bounds.
    """

    kind: Literal["head", "after", "earliest", "last", "since"]
    value: bytes | str | int = 0

    def __post_init__(self) -> None:
        if self.kind == "last" and not (
            isinstance(self.value, int) and 0 <= self.value <= LAST_MAX
        ):
            raise InvalidSubscription("last", f"must be a number from 0 to {LAST_MAX}")
        if self.kind == "since" and not (isinstance(self.value, int) and 0 <= self.value < 1 << 63):
            raise InvalidSubscription("since", "must be a time after 1970")
        if self.kind == "after":
            object.__setattr__(self, "kind", _kind_after(self.value))

    @property
    def text(self) -> bytes:
        """The id that a client asks for, as it was published."""
        return _id_bytes(self.value)


def _check_last(field: str, events: bytes | str | int, topics: int) -> None:
    most = LAST_MAX // topics
    if not isinstance(events, int) or not 0 <= events <= most:
        detail = f"must be at most {most} for {topics} topics ({LAST_MAX} by their number)"
        raise InvalidSubscription(field, detail)


def _id_bytes(value: bytes | str | int) -> bytes:
    raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
    return as_header_value(raw)


def _kind_after(value: bytes | str | int) -> Literal["head", "after", "earliest"]:
    text = _id_bytes(value)
    if not text:
        return "head"
    return "earliest" if text == EARLIEST else "after"


HEAD: Final = Cursor("head")


InitialId = Literal["true", "line", "data", "false"]
"""How the opening names the place where a stream begins:

- `true`: an `id:` line and a blank line, which a standard EventSource takes before any event.
- `line`: an `id:` line that the first event's block follows, for libraries that would make an empty
  event of a block without data.
- `data`: an event with this id and empty data, for libraries that take an id from events only.
- `false`: not at all.
"""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The form of a stream apart from its events.

    Arguments:
        opens: it begins with `retry:` and the id of the place where it begins; else with a comment.
        has_control_events: gaps and the end of a token are sent as events (`fastsse.…`). Without
            it, only the response head reports a gap (Mercure), and a stream that loses continuity
            later ends without its last chunk.
        initial_id: the form of that id.
        heartbeat_s: seconds of silence before a heartbeat, 1 to HEARTBEAT_S_MAX; 0: the server's.
        pad_bytes: length of the comments that open the stream and are its heartbeats, a power of
            two from PAD_BYTES_MIN to PAD_BYTES_MAX; 0: short ones.
        pings: it receives visible pings, which the client must answer.
        refuses: a refused subscriber gets an error status; else 200 and a `retry:`.
        notes: complete comment lines for the opening, about the request.
        wait_s: the request is a poll: one page is the answer, or an empty page after this many
            seconds; None: it is a stream.
    """

    opens: bool
    has_control_events: bool
    initial_id: InitialId = "true"
    heartbeat_s: int = 0
    pad_bytes: int = 0
    pings: bool = False
    refuses: bool = False
    notes: bytes = b""
    wait_s: float | None = None


# The core keeps both in one byte of a connection: five bits of seconds, three bits of length.
HEARTBEAT_S_MAX: Final = 30
PAD_BYTES_MIN: Final = 1024
PAD_BYTES_MAX: Final = 16 * 1024

EVENTS: Final = Dialect(opens=True, has_control_events=True)
# https://mercure.rocks: existing clients know the events of the hub's users, and no others.
MERCURE: Final = Dialect(opens=False, has_control_events=False, initial_id="false")
MERCURE_CONTROL_EVENTS: Final = Dialect(opens=False, has_control_events=True, initial_id="false")


@dataclass(frozen=True, slots=True)
class View:
    """Which events of its topics a stream is sent, and in which form. Equal views share their work.

    Arguments:
        types: only events of these types; none: of every type. `message` is an event without one.
        envelope: the data of each event is a JSON object that also names its topic, id, type, meta
            and time.
        until: types; behind an event of one of them the stream is over.
        until_data: behind an event with this data it is over, too.
        filter: only events that match this expression (`fastsse.expressions`), which is valid.
        interval_ms: of each topic and type only the newest event in each span of so much time; 0:
            every event.
        notices: it receives `fastsse.deleted` events, too.
    """

    types: tuple[bytes, ...] = ()
    envelope: bool = False
    until: tuple[bytes, ...] = ()
    until_data: bytes | None = None
    filter: str | None = None
    interval_ms: int = 0
    notices: bool = False

    @property
    def is_partial(self) -> bool:
        """Whether events may be left out."""
        return bool(self.types) or self.filter is not None or self.interval_ms > 0

    @property
    def may_end(self) -> bool:
        """Whether an event can end the stream."""
        return bool(self.until) or self.until_data is not None


class Subscription:
    """A subscriber's request, validated; may be shared by all equal requests.

    Arguments:
        selectors: topics, templates (RFC 6570) and `*`; 1 to `topics_max` different ones. `*`
            makes the others superfluous.
        cursor: where the stream begins; `last` times the selectors is at most 10,000.
        topics_max: the bound on selectors.
        dialect: how the stream speaks.
        last_each: a stream that begins at the head, or whose cursor can't be continued, begins
            with so many of the newest events of each topic; 0: with none. At most LAST_MAX.
        view: which events it is sent, and in which form; None: all, as they are.

    Raises InvalidSubscription about `topic`, `last` or `last_each`.
    """

    __slots__ = ("cursor", "dialect", "last_each", "selectors", "view")

    selectors: Final[tuple[str, ...]]
    cursor: Final[Cursor]
    dialect: Final[Dialect]
    last_each: Final[int]
    view: Final[View | None]

    def __init__(
        self,
        selectors: Iterable[str],
        cursor: Cursor = HEAD,
        topics_max: int = TOPICS_MAX,
        dialect: Dialect = EVENTS,
        last_each: int = 0,
        view: View | None = None,
    ) -> None:
        wanted = {check_topic(selector, InvalidSubscription) for selector in selectors}
        if not 0 < len(wanted) <= topics_max:
            raise InvalidSubscription(
                "topic",
                f"a stream needs 1 to {topics_max} topics (max_topics); a feed has up to 10000",
            )
        self.selectors = (ANY,) if ANY in wanted else tuple(sorted(wanted))
        if cursor.kind == "last":
            _check_last("last", cursor.value, len(self.selectors))
        _check_last("last_each", last_each, len(self.selectors))
        self.last_each = last_each
        self.cursor = cursor
        self.dialect = dialect
        self.view = view

    @classmethod
    def of_feed(
        cls,
        topics: tuple[str, ...],
        cursor: Cursor,
        dialect: Dialect,
        last_each: int,
        view: View | None,
    ) -> Self:
        """As the constructor, of selectors that are valid, different and in order. O(1). Raises
        InvalidSubscription about `last` or `last_each`."""
        if cursor.kind == "last":
            _check_last("last", cursor.value, len(topics))
        _check_last("last_each", last_each, len(topics))
        return cls._made(topics, cursor, dialect, last_each, view)

    @classmethod
    def _made(
        cls,
        selectors: tuple[str, ...],
        cursor: Cursor,
        dialect: Dialect,
        last_each: int,
        view: View | None,
    ) -> Self:
        made = object.__new__(cls)
        for name, value in zip(
            ("selectors", "cursor", "dialect", "last_each", "view"),
            (selectors, cursor, dialect, last_each, view),
            strict=True,
        ):
            object.__setattr__(made, name, value)
        return made

    def at(self, cursor: Cursor) -> Self:
        """The same from another place, which is not `last`. O(1)."""
        return self._made(self.selectors, cursor, self.dialect, self.last_each, self.view)

    def with_dialect(self, dialect: Dialect) -> Self:
        """The same, spoken in another way. O(1)."""
        return self._made(self.selectors, self.cursor, dialect, self.last_each, self.view)

    def refusing(self) -> Self:
        """The same, of a subscriber that gets an error status when it cannot be taken."""
        if self.dialect.refuses:
            return self
        return self.with_dialect(replace(self.dialect, refuses=True))
