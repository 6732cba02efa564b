"""Batches in columns: events that have no position yet, and entries. Loop thread only."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, overload

from fastsse._core import Frame
from fastsse.directives import Directives
from fastsse.entries import Entry, Extras
from fastsse.events import Event

_Entry = TypeVar("_Entry", bound=tuple[Any, ...])

class SharedFields:
    """Event type, meta, retry time, privacy and style of id: what many events have in common.

    Arguments:
        event: an event that has them; its topics, data and own id are ignored.

    Raises ValueError for an event with directives.
    """

    def __init__(self, event: Event) -> None: ...

class EventBatch(Sequence[Event]):
    """Events on their way to the hub, without an `Event` object for each.

    `Hub.publish` takes one wherever it takes a list of events. `add` takes events without
    directives, and appends to durable streams. Any other is an `Event` and goes in by `append`.
    Reading an item makes an `Event` of it. A batch must not be changed after it was published.

    Arguments:
        topics: the topics of each event: names as `check_topic` allows them, none twice in one
            tuple. Events may share a tuple.
        data: the data of each event, valid UTF-8. Both lists belong to the batch from here on.

    Raises ValueError when one list is longer than the other.
    """

    topics: list[tuple[str, ...]]
    data: list[bytes]

    def __init__(
        self, topics: list[tuple[str, ...]] | None = None, data: list[bytes] | None = None
    ) -> None: ...
    def add(
        self,
        topics: tuple[str, ...],
        data: bytes,
        kind: int = 0,
        shared: SharedFields | None = None,
        own_id: bytes | None = None,
        asked: Directives | None = None,
    ) -> None:
        """Adds an event of topics and data that were checked as above, the kind of the data, and
        the fields that it has besides. An own id was checked as `Event` does. `asked` is an append
        to a stream, perhaps of a producer, and nothing else. O(1)."""

    def append(self, event: Event) -> None:
        """Adds any event. O(1), amortized."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __iter__(self) -> Iterator[Event]: ...

class KeyedBatch(Sequence[Event]):
    """Events of separate requests, some with an `Idempotency-Key`, without directives for each.

    A sequence of events with their directives, which are made when the first is asked for.

    Arguments:
        events: without the keys.
        keys: of the request of each event, with its scope; None: it has none.
        digests: of each such request; the others' are ignored.

    Raises ValueError when one is longer than the others.
    """

    events: EventBatch
    keys: list[bytes | None]
    digests: list[bytes]

    def __init__(
        self, events: EventBatch, keys: list[bytes | None], digests: list[bytes]
    ) -> None: ...
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __iter__(self) -> Iterator[Event]: ...

class Entries(Sequence[Entry]):
    """Committed events, without an `Entry` for each; they are made when they are asked for."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __iter__(self) -> Iterator[Entry]: ...
    @property
    def last(self) -> Frame:
        """The newest frame."""

    @property
    def frame_bytes(self) -> int:
        """The bytes of all frames, without what HTTP adds. O(entries)."""

def joined_entries(parts: Sequence[Sequence[Entry]]) -> Sequence[Entry]:
    """The entries of several batches, one behind the other; in columns where all are.
    O(entries)."""

def kinds_of(events: Sequence[Event]) -> list[tuple[tuple[str, ...], bytes | None]]:
    """The distinct pairs of topics and event type, in the order of their first event: all that
    rights and topic rules need to look at. O(events)."""

def sizes(events: Sequence[Event]) -> tuple[int, int]:
    """The bytes of data of the largest event, and of all. O(events)."""

def is_plain(events: Sequence[Event]) -> bool:
    """Whether nothing is asked of events but to be sent. O(events), O(1) for a batch of columns."""

def has_ends(events: Sequence[Event]) -> bool:
    """Whether an event ends its topics, or is to be a control entry. O(events)."""

def has_repeated_numbers(events: Sequence[Event]) -> bool:
    """Whether a batch in columns has an append of a producer twice. O(events)."""

def producer_runs(events: Sequence[Event]) -> dict[bytes, list[int]] | None:
    """The producers of a batch of which nothing else is asked, by their keys: the epoch, the first
    and the last number, and the place of the event that has the last. None for any other batch, and
    where a number does not rise, an epoch changes, or gaps are refused. O(events)."""

def undirect(events: Sequence[Event]) -> None:
    """Removes the directives of `Event` objects; all that they ask was done. O(events)."""

def has_control(entries: Sequence[Entry]) -> bool:
    """Whether a control entry is among entries. O(entries), mostly O(1) for columns."""

def set_entry_types(entry_type: type[Entry], extras_type: type[Extras]) -> None:
    """What `encode_entries` makes. `fastsse.entries` calls it once."""

def encode_entries(
    positions: Sequence[int], events: Sequence[Event], times: int | list[int] | None = None
) -> Entries:
    """Events that got their positions, each encoded once. O(bytes).

    `times` is when they were published, in unix milliseconds: of all, or of each. None: at their
    positions' milliseconds.

    Raises:
        ValueError: there are not as many of all.
    """
