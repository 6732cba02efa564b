"""What a subscriber asks for: which topics, and from where on."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from fastsse.errors import InvalidSubscription
from fastsse.events import EARLIEST, as_header_value, check_topic

__all__ = [
    "ANY",
    "EVENTS",
    "HEAD",
    "MERCURE",
    "MERCURE_TELLING",
    "Cursor",
    "Dialect",
    "Subscription",
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


def _check_last(events: bytes | str | int, topics: int) -> None:
    most = LAST_MAX // topics
    if not isinstance(events, int) or events > most:
        detail = f"must be at most {most} for {topics} topics ({LAST_MAX} by their number)"
        raise InvalidSubscription("last", detail)


def _id_bytes(value: bytes | str | int) -> bytes:
    raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
    return as_header_value(raw)


def _kind_after(value: bytes | str | int) -> Literal["head", "after", "earliest"]:
    text = _id_bytes(value)
    if not text:
        return "head"
    return "earliest" if text == EARLIEST else "after"


HEAD: Final = Cursor("head")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a stream speaks beside its events.

    `opens`: it begins with `retry:` and the id of the place where it begins; else with a comment.
    `tells`: gaps, and the end of a token, are events of the stream's own; else only the response
    head tells of a gap, and a stream that loses continuity later ends, so that the next one's does.
    """

    opens: bool
    tells: bool


EVENTS: Final = Dialect(opens=True, tells=True)
# https://mercure.rocks: existing clients know the events of the hub's users, and no others.
MERCURE: Final = Dialect(opens=False, tells=False)
MERCURE_TELLING: Final = Dialect(opens=False, tells=True)


class Subscription:
    """A subscriber's wish, validated; may be shared by all who wish the same.

    Arguments:
        selectors: topics, templates (RFC 6570) and `*`; 1 to `topics_max` different ones. `*`
            makes the others superfluous.
        cursor: where the stream begins; `last` times the selectors is at most 10,000.
        initial_id: whether the opening block names that place in an `id:` line.
        topics_max: the bound on selectors.
        dialect: how the stream speaks.

    Raises InvalidSubscription about `topic` or `last`.
    """

    __slots__ = ("cursor", "dialect", "initial_id", "selectors")

    selectors: Final[tuple[str, ...]]
    cursor: Final[Cursor]
    initial_id: Final[bool]
    dialect: Final[Dialect]

    def __init__(
        self,
        selectors: Iterable[str],
        cursor: Cursor = HEAD,
        initial_id: bool = True,
        topics_max: int = TOPICS_MAX,
        dialect: Dialect = EVENTS,
    ) -> None:
        wanted = {check_topic(selector, InvalidSubscription) for selector in selectors}
        if not 0 < len(wanted) <= topics_max:
            raise InvalidSubscription("topic", f"a stream needs 1 to {topics_max} topics")
        self.selectors = (ANY,) if ANY in wanted else tuple(sorted(wanted))
        if cursor.kind == "last":
            _check_last(cursor.value, len(self.selectors))
        self.cursor = cursor
        self.initial_id = initial_id
        self.dialect = dialect
