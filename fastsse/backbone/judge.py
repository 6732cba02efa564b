"""The judge: whether the state of their topics lets events be published, and which are known.

It is asked where order is made, with everything before already in place, so two publishers can't
both be right. The stores in memory and the file use this module; the file within its transaction.
Redis does the same in the script that appends.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Final, Protocol

from fastsse._batch import is_plain
from fastsse.backbone.keys import Keys, KnownKey, key_cost
from fastsse.backbone.producers import (
    NewRow,
    ProducerRow,
    Producers,
    judge_producer,
    producer_cost,
)
from fastsse.directives import END, Directives, Producer
from fastsse.errors import (
    Conflict,
    FastsseError,
    KeyReused,
    PreconditionFailed,
    TopicEnded,
    Unavailable,
)
from fastsse.events import EARLIEST, Event
from fastsse.positions import format_position

__all__ = [
    "JudgedPositions",
    "Known",
    "TopicStates",
    "is_control",
    "is_plain",
    "judge",
    "merged",
    "new_keys",
    "new_rows",
    "newest_sequence",
    "repeats_of",
]

KEYS_FULL_RETRY_S: Final = 30

Known = list[int | None]
"""Of each event of a batch the position that it has already, None for one that is to be stored.
Below 0: that of the event at -1 - this index of the same batch."""


class TopicStates(Protocol):
    """What is known of topics where order is made."""

    @property
    def ended_count(self) -> int:
        """Topics that have ended."""

    def ended_at(self, topic: str) -> int:
        """The position of a topic's end; 0 while it is open."""

    def last_of(self, topic: str) -> int:
        """The position of a topic's newest event; 0 when none is kept."""

    def place_of_id(self, text: bytes) -> int | None:
        """The position of the event with an id; None when none is kept."""

    def shared_events(self, topic: str) -> Iterable[tuple[int, Sequence[str]]]:
        """Position and topics of each event that a topic keeps and that has other topics, too."""


class JudgedPositions(list[int]):
    """Positions of a batch's events, some of which were stored before. `duplicates` are those that
    are known by their keys or producers; `sequence` is the newest of the producer of such events,
    -1: they have none. `repeats` are the places of all that were stored before."""

    duplicates = 0
    sequence = -1
    repeats: Collection[int] = ()


def is_control(event: Event) -> bool:
    """Whether it is to be a control entry."""
    return event.directives is not None and event.directives.control is not None


def is_keyed(event: Event) -> bool:
    """Whether it has one key, its own or that of its request, and nothing else is asked."""
    asked = event.directives
    return (
        asked is not None
        and (asked.key is None) != (asked.request is None)
        and asked.producer is None
        and asked.expect is None
        and asked.control is None
        and not asked.ends
    )


def ended_topic(event: Event, states: TopicStates) -> TopicEnded | None:
    """The error of an event with a topic that has ended."""
    for topic in event.topics:
        if states.ended_at(topic):
            return TopicEnded(topic)
    return None


def known_once(event: Event, found: KnownKey) -> JudgedPositions | KeyReused:
    """The position of one event that is known by its key, or that of its request."""
    asked = event.directives
    if asked is not None and asked.request is not None and found.digest != asked.request.digest:
        return KeyReused(event.topics[0])
    positions = JudgedPositions((found.positions[0],))
    positions.duplicates = int(asked is not None and asked.key is not None)
    return positions


def judge(
    events: Sequence[Event], states: TopicStates, keys: Keys, producers: Producers
) -> Known | FastsseError | None:
    """What is to be done with a batch: None to store it, which events are known already, or why it
    is refused. O(events and topics)."""
    if is_content_alone(events):
        (topic,) = events[0].topics
        return TopicEnded(topic) if states.ended_at(topic) else None
    first = events[0].directives
    if first is not None and first.request is not None and first.request.entry_count > 1:
        found = keys.find(first.request.key)
        if found is not None:
            is_same = found.digest == first.request.digest and len(found.positions) == len(events)
            return list(found.positions) if is_same else KeyReused(events[0].topics[0])
    return _Batch(events, states, keys, producers).judge()


def is_content_alone(events: Sequence[Event]) -> bool:
    """Whether a batch is one event of one topic without a key, a producer or a condition: the most
    common append to a durable stream. O(1)."""
    if len(events) > 1 or len(events[0].topics) > 1:
        return False
    return asks_nothing(events[0].directives)


def asks_nothing(asked: Directives | None) -> bool:
    """Whether no key, producer or earlier event counts for an event."""
    return asked is None or (
        asked.control is None
        and asked.key is None
        and asked.expect is None
        and asked.request is None
        and asked.producer is None
    )


def key_of(asked: Directives | None) -> tuple[bytes, bytes] | None:
    """The key of an event, its own or that of a request with no other event, and the digest of
    the request; None without a key."""
    if asked is None:
        return None
    if asked.key is not None:
        return asked.key, b""
    if asked.request is not None and asked.request.entry_count == 1:
        return asked.request[:2]
    return None


class _Batch:
    """One batch, event by event: each sees what those before it change."""

    def __init__(
        self, events: Sequence[Event], states: TopicStates, keys: Keys, producers: Producers
    ) -> None:
        self._events: Final = events
        self._states: Final = states
        self._keys: Final = keys
        self._producers: Final = producers
        self._appended: Final[dict[bytes, ProducerRow]] = {}
        self._rows_bytes = 0
        self._ended: Final[dict[str, int]] = {}
        self._used: Final[dict[bytes, tuple[bytes, int]]] = {}
        self._newest: Final[dict[str, bytes | None]] = {}

    def judge(self) -> Known | FastsseError | None:
        known: Known = []
        for index, event in enumerate(self._events):
            found = self._one(index, event)
            if isinstance(found, FastsseError):
                return found
            known.append(found)
        new = [event for event, place in zip(self._events, known, strict=True) if place is None]
        size_bytes = sum(key_cost(key, count) for key, count in _sizes(new))
        if size_bytes and not self._keys.has_room(size_bytes):
            return Unavailable("keys", KEYS_FULL_RETRY_S)
        if self._rows_bytes and not self._producers.has_room(self._rows_bytes):
            return Unavailable("producers", KEYS_FULL_RETRY_S)
        return None if known.count(None) == len(known) else known

    def _one(self, index: int, event: Event) -> int | FastsseError | None:
        asked = event.directives
        if asks_nothing(asked):
            return self._plain(event)
        if asked is not None and asked.producer is not None:
            generation = 0 if asked.stream is None else asked.stream.generation
            found = self._append_of(index, event.topics[0], asked.producer, generation)
            if found is not None:
                return found
        if is_control(event):
            return self._control(event)
        keyed = key_of(asked)
        if keyed is not None:
            key, digest = keyed
            used = self._found(key)
            if used is not None:
                return used[1] if used[0] == digest else KeyReused(event.topics[0])
            self._used[key] = digest, -1 - index
        if asked is not None and asked.expect is not None:
            error = self._end(event) or self._objection(event.topics[0], asked.expect)
            if error is not None:
                return error
        return self._plain(event)

    def _plain(self, event: Event) -> TopicEnded | None:
        ended = self._end(event)
        if ended is None:
            for topic in event.topics:
                self._newest[topic] = event.id
        return ended

    def _end(self, event: Event) -> TopicEnded | None:
        for topic in event.topics:
            if self._ended_at(topic):
                return TopicEnded(topic)
        return None

    def _append_of(
        self, index: int, topic: str, asked: Producer, generation: int
    ) -> int | Conflict | None:
        row = self._appended.get(asked.key)
        if row is not None and row[:2] == (asked.epoch, asked.sequence):
            outcome = None  # One more event of the same append.
        else:
            if row is None:
                row = self._producers.find(asked.key)
                if row is None:
                    self._rows_bytes += producer_cost(asked.key)
                elif row.position < generation:
                    row = None  # It appended to an earlier stream of this name.
            outcome = judge_producer(topic, asked, row)
        if isinstance(outcome, ProducerRow):
            return outcome.position
        if outcome is None:
            self._appended[asked.key] = ProducerRow(asked.epoch, asked.sequence, -1 - index)
        return outcome

    def _control(self, event: Event) -> int | None:
        """An end of topics that have all ended is the last of their ends."""
        if event.directives is None or event.directives.control != END:
            return None
        ends = [self._ended_at(topic) for topic in event.topics]
        if min(ends) > 0:
            return max(ends)
        self._ended.update(dict.fromkeys(event.topics, -1))
        return None

    def _ended_at(self, topic: str) -> int:
        return self._ended.get(topic) or self._states.ended_at(topic)

    def _found(self, key: bytes) -> tuple[bytes, int] | None:
        """The digest that a key was used with, and the place of its event."""
        if key in self._used:
            return self._used[key]
        found = self._keys.find(key)
        return None if found is None else (found.digest, found.positions[0])

    def _objection(self, topic: str, expect: bytes) -> PreconditionFailed | None:
        if topic in self._newest:
            own_id = self._newest[topic]
            if own_id == expect:
                return None
            return PreconditionFailed(topic, (own_id or b"of this request").decode())
        last = self._states.last_of(topic)
        is_there = not last if expect == EARLIEST else last == self._states.place_of_id(expect)
        if is_there and (last or expect == EARLIEST):
            return None
        return PreconditionFailed(topic, format_position(last).decode() if last else "")


def _sizes(events: Sequence[Event]) -> list[tuple[bytes, int]]:
    """The keys of a batch, each with how many positions it has."""
    found = []
    for event in events:
        if event.directives is not None and event.directives.request is not None:
            request = event.directives.request
            found.append((request.key, request.entry_count))
        elif event.directives is not None and event.directives.key is not None:
            found.append((event.directives.key, 1))
    return found


def new_keys(
    events: Sequence[Event], positions: Sequence[int], known: Known | None
) -> list[tuple[bytes, KnownKey]]:
    """What is to be remembered of a batch that was stored at these positions."""
    found = []
    for index, (event, position) in enumerate(zip(events, positions, strict=True)):
        asked = event.directives
        if asked is None or (known is not None and known[index] is not None):
            continue
        if asked.request is not None:
            places = (position,) if asked.request.entry_count == 1 else tuple(positions)
            found.append((asked.request.key, KnownKey(asked.request.digest, places)))
        if asked.key is not None:
            found.append((asked.key, KnownKey(b"", (position,))))
    return found


def new_rows(
    events: Sequence[Event], positions: Sequence[int], known: Known | None
) -> list[NewRow]:
    """What is to be noted of the producers of a batch that was stored at these positions."""
    rows: dict[bytes, ProducerRow] = {}
    for index, (event, position) in enumerate(zip(events, positions, strict=True)):
        asked = event.directives
        if asked is None or asked.producer is None:
            continue
        if known is None or known[index] is None:
            one = asked.producer
            rows[one.key] = ProducerRow(one.epoch, one.sequence, position)
    return list(rows.items())


def newest_sequence(events: Sequence[Event], known: Known, producers: Producers) -> int:
    """The newest sequence number of the first producer of which an event is known; -1: none is."""
    for event, place in zip(events, known, strict=True):
        asked = event.directives
        if place is not None and asked is not None and asked.producer is not None:
            row = producers.find(asked.producer.key)
            return asked.producer.sequence if row is None else row.sequence
    return -1


def merged(events: Sequence[Event], known: Known, stored: Sequence[int]) -> JudgedPositions:
    """The positions of a batch, from those that it had and those that the rest has got."""
    rest = iter(stored)
    merged = JudgedPositions()
    for event, place in zip(events, known, strict=True):
        if place is None:
            merged.append(next(rest))
        else:
            merged.append(place if place > 0 else merged[-1 - place])
            asked = event.directives
            is_repeat = asked is not None and (asked.key or asked.producer) is not None
            merged.duplicates += is_repeat
    merged.repeats = {index for index, place in enumerate(known) if place is not None}
    return merged


def repeats_of(
    positions: Sequence[int],
    events: Sequence[Event],
    duplicates: int,
    firsts: Sequence[int | None],
) -> int:
    """How many events of a publisher were stored before, where copies of them were, too.

    Arguments:
        positions: of everything that the events became.
        events: everything that the events became.
        duplicates: how many of these were stored before.
        firsts: for each event of the publisher the place of the first that it became; None for a
            dropped one.
    """
    if not duplicates:
        return 0
    made = [place for place, event in zip(positions, events, strict=True) if not is_control(event)]
    # What is new has the newest positions, each once.
    new = set(sorted(set(made))[duplicates - len(made) :] if duplicates < len(made) else ())
    count = 0
    for first in firsts:
        if first is not None and not is_control(events[first]):
            count += positions[first] not in new
            new.discard(positions[first])
    return count
