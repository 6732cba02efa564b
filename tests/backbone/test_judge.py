"""The judge: what is stored, what is known already and what is refused, decided without a store."""

from collections.abc import Sequence
from typing import Any

import pytest

from fastsse.backbone.judge import (
    JudgedPositions,
    Known,
    ended_topic,
    is_control,
    is_keyed,
    judge,
    key_of,
    known_once,
    merged,
    new_keys,
    new_rows,
    newest_sequence,
)
from fastsse.backbone.keys import KeyTable, KnownKey, key_cost
from fastsse.backbone.producers import ProducerRow, ProducerTable, producer_cost
from fastsse.directives import END, Directives, Producer, RequestKey
from fastsse.errors import (
    FastsseError,
    KeyReused,
    PreconditionFailed,
    ProducerFenced,
    TopicEnded,
    Unavailable,
)
from fastsse.events import EARLIEST, Event
from fastsse.positions import format_position

WINDOW_MS = 1_000
PLENTY = 1_000_000
REQUEST = RequestKey(b"r", b"digest", 1)
BATCH = RequestKey(b"batch", b"digest", 2)
PRODUCER = Producer(b"p", 3, 7)


class State:
    """Topics, keys and producers; positions are small numbers."""

    def __init__(self, room_bytes: int = PLENTY) -> None:
        self.ends: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.ids: dict[bytes, int] = {}
        self.keys = KeyTable(WINDOW_MS, room_bytes, lambda: 0)
        self.producers = ProducerTable(WINDOW_MS, room_bytes, lambda: 0)

    @property
    def ended_count(self) -> int:
        return len(self.ends)

    def ended_at(self, topic: str) -> int:
        return self.ends.get(topic, 0)

    def last_of(self, topic: str) -> int:
        return self.last.get(topic, 0)

    def place_of_id(self, text: bytes) -> int | None:
        return self.ids.get(text)

    def judge(self, *events: Event) -> Known | FastsseError | None:
        return judge(events, self, self.keys, self.producers)


def event(*topics: str, own_id: bytes | None = None, **asked: Any) -> Event:
    return Event(topics, b"x", id=own_id, directives=Directives(**asked) if asked else None)


def end(*topics: str) -> Event:
    return Event.end(topics)


@pytest.fixture
def state() -> State:
    return State()


# --- single events


@pytest.mark.parametrize(
    ("asked", "short"),
    [
        ({}, False),
        ({"key": b"k"}, True),
        ({"request": REQUEST}, True),
        ({"key": b"k", "request": REQUEST}, False),
        ({"key": b"k", "producer": PRODUCER}, False),
        ({"key": b"k", "expect": b"1"}, False),
        ({"key": b"k", "control": END}, False),
        ({"key": b"k", "ends": True}, False),
        ({"expect": b"1"}, False),
    ],
)
def test_one_key_and_nothing_else_is_judged_the_short_way(
    asked: dict[str, Any], short: bool
) -> None:
    assert is_keyed(event("a", **asked)) is short


def test_control_entries_are_no_events() -> None:
    assert is_control(end("a"))
    assert not is_control(event("a"))
    assert not is_control(event("a", key=b"k"))


def test_an_ended_topic_is_named(state: State) -> None:
    state.ends["b"] = 5
    assert ended_topic(event("a"), state) is None
    error = ended_topic(event("a", "b"), state)
    assert isinstance(error, TopicEnded)
    assert error.topic == "b"


def test_a_known_key_gives_the_position_and_counts_as_a_duplicate() -> None:
    positions = known_once(event("a", key=b"k"), KnownKey(b"", (9,)))
    assert positions == [9]
    assert isinstance(positions, JudgedPositions)
    assert positions.duplicates == 1


def test_a_repeated_request_gives_the_position_and_another_one_is_refused() -> None:
    positions = known_once(event("a", request=REQUEST), KnownKey(b"digest", (9,)))
    assert positions == [9]
    assert isinstance(positions, JudgedPositions)
    assert positions.duplicates == 0
    other = known_once(event("a", request=REQUEST), KnownKey(b"other", (9,)))
    assert isinstance(other, KeyReused)
    assert other.topic == "a"


def test_the_key_of_an_event_is_its_own_or_that_of_a_request_of_one() -> None:
    assert key_of(None) is None
    assert key_of(Directives()) is None
    assert key_of(Directives(key=b"k")) == (b"k", b"")
    assert key_of(Directives(request=REQUEST)) == (b"r", b"digest")
    assert key_of(Directives(request=BATCH)) is None


# --- requests and keys


def test_a_repeated_request_of_several_events_is_known_as_a_whole(state: State) -> None:
    batch = (event("a", request=BATCH), event("b"))
    assert state.judge(*batch) is None
    state.keys.add(b"batch", KnownKey(b"digest", (4, 5)))
    assert state.judge(*batch) == [4, 5]
    longer = state.judge(*batch, event("c"))
    assert isinstance(longer, KeyReused)
    assert longer.topic == "a"
    changed = state.judge(event("a", request=BATCH._replace(digest=b"other")), event("b"))
    assert isinstance(changed, KeyReused)


def test_a_repeated_request_of_one_event_is_known_by_its_digest(state: State) -> None:
    state.keys.add(b"r", KnownKey(b"digest", (4,)))
    assert state.judge(event("a", request=REQUEST)) == [4]
    changed = state.judge(event("a", "b", request=REQUEST._replace(digest=b"other")))
    assert isinstance(changed, KeyReused)
    assert changed.topic == "a"


def test_a_key_twice_in_a_batch_is_stored_once(state: State) -> None:
    events = (event("a"), event("a", key=b"k"), event("b", key=b"k"), event("a"))
    assert state.judge(*events) == [None, None, -2, None]


def test_a_key_that_another_request_used_is_refused(state: State) -> None:
    found = state.judge(event("b", key=b"r"), event("a", request=REQUEST))
    assert isinstance(found, KeyReused)
    assert found.topic == "a"


def test_known_events_need_no_room_and_new_ones_all_of_theirs() -> None:
    room = key_cost(b"k", 1)
    full, enough = State(room - 1), State(room)
    error = full.judge(event("a", key=b"k"))
    assert isinstance(error, Unavailable)
    assert error.reason == "keys"
    assert enough.judge(event("a", key=b"k")) is None
    enough.keys.add(b"k", KnownKey(b"", (3,)))
    assert enough.judge(event("a", key=b"k")) == [3]
    assert isinstance(enough.judge(event("a", key=b"k"), event("a", key=b"l")), Unavailable)


def test_a_request_needs_room_for_all_its_positions() -> None:
    cost = key_cost(b"batch", 2)
    assert isinstance(State(cost - 1).judge(event("a", request=BATCH), event("a")), Unavailable)
    assert State(cost).judge(event("a", request=BATCH), event("a")) is None


# --- topics


def test_an_ended_topic_takes_no_event_and_its_first_end_stays(state: State) -> None:
    state.ends["a"] = 1
    error = state.judge(event("b"), event("b", "a"))
    assert isinstance(error, TopicEnded)
    assert error.topic == "a"
    assert state.judge(end("a")) == [1]
    state.ends["b"] = 8
    assert state.judge(end("a", "b")) == [8]
    assert state.judge(end("a", "c")) is None


def test_an_end_in_a_batch_holds_for_what_follows_it(state: State) -> None:
    assert isinstance(state.judge(end("a"), event("a")), TopicEnded)
    assert state.judge(end("a"), event("b")) is None
    assert state.judge(event("a", ends=True), event("b")) is None


# --- expectations


def test_an_expected_id_must_be_that_of_the_newest_event(state: State) -> None:
    state.last["a"], state.ids = 9, {b"mine": 9, b"older": 8}
    assert state.judge(event("a", expect=b"mine")) is None
    for expected in (b"older", b"unknown", EARLIEST):
        error = state.judge(event("a", expect=expected))
        assert isinstance(error, PreconditionFailed)
        assert (error.topic, error.current) == ("a", format_position(9).decode())


def test_earliest_expects_a_topic_without_events(state: State) -> None:
    assert state.judge(event("a", expect=EARLIEST)) is None
    error = state.judge(event("a", expect=b"gone"))
    assert isinstance(error, PreconditionFailed)
    assert error.current == ""


def test_an_event_of_the_batch_is_the_newest_of_its_topics(state: State) -> None:
    state.last["b"], state.ids = 9, {b"old": 9}
    first = event("a", "b", own_id=b"first")
    assert state.judge(first, event("b", expect=b"first")) is None
    error = state.judge(first, event("b", expect=b"old"))
    assert isinstance(error, PreconditionFailed)
    assert error.current == "first"
    nameless = state.judge(event("b"), event("b", expect=b"old"))
    assert isinstance(nameless, PreconditionFailed)
    assert nameless.current == "of this request"


# --- producers


def test_events_of_one_append_are_stored_together_and_repeats_are_known(state: State) -> None:
    events = (event("a", producer=PRODUCER), event("a", producer=PRODUCER))
    assert state.judge(*events) is None
    state.producers.add(b"p", ProducerRow(3, 7, 44))
    assert state.judge(*events) == [44, 44]
    later = PRODUCER._replace(sequence=8)
    assert state.judge(events[0], event("a", producer=later)) == [44, None]


def test_an_append_known_from_the_same_batch_has_its_place(state: State) -> None:
    older = PRODUCER._replace(sequence=6)
    events = (event("b"), event("a", producer=PRODUCER), event("a", producer=older))
    assert state.judge(*events) == [None, None, -2]


def test_an_older_epoch_is_refused(state: State) -> None:
    state.producers.add(b"p", ProducerRow(4, 0, 44))
    error = state.judge(event("a", producer=PRODUCER))
    assert isinstance(error, ProducerFenced)


def test_new_producers_need_room_once() -> None:
    room = producer_cost(b"p")
    full, enough = State(room - 1), State(room)
    error = full.judge(event("a", producer=PRODUCER))
    assert isinstance(error, Unavailable)
    assert error.reason == "producers"
    later = PRODUCER._replace(sequence=8)
    assert enough.judge(event("a", producer=PRODUCER), event("a", producer=later)) is None
    other = Producer(b"q", 0, 0)
    assert isinstance(
        enough.judge(event("a", producer=PRODUCER), event("a", producer=other)), Unavailable
    )


# --- what a stored batch leaves


def test_keys_of_stored_events_are_remembered_and_of_known_ones_not() -> None:
    events = (
        event("a"),
        event("a", key=b"k"),
        event("a", key=b"known"),
        event("a", request=REQUEST),
        event("a", expect=b"1"),
    )
    known: Known = [None, None, 2, None, None]
    assert new_keys(events, (1, 5, 2, 7, 8), known) == [
        (b"k", KnownKey(b"", (5,))),
        (b"r", KnownKey(b"digest", (7,))),
    ]
    assert [key for key, _ in new_keys(events, (1, 5, 2, 7, 8), None)] == [b"k", b"known", b"r"]


def test_the_key_of_a_request_stands_for_all_its_positions() -> None:
    events = (event("a", request=BATCH), event("b", key=b"k"))
    assert new_keys(events, (5, 6), None) == [
        (b"batch", KnownKey(b"digest", (5, 6))),
        (b"k", KnownKey(b"", (6,))),
    ]


def test_the_row_of_a_producer_is_its_newest_stored_append() -> None:
    later = PRODUCER._replace(sequence=8)
    events = (
        event("a"),
        event("a", producer=PRODUCER),
        event("a", producer=later),
        event("a", producer=Producer(b"known", 0, 0)),
        event("a", producer=Producer(b"q", 1, 0)),
    )
    rows = new_rows(events, (1, 2, 3, 4, 5), [None, None, None, 4, None])
    assert rows == [(b"p", ProducerRow(3, 8, 3)), (b"q", ProducerRow(1, 0, 5))]
    assert [key for key, _ in new_rows(events, (1, 2, 3, 4, 5), None)] == [b"p", b"known", b"q"]


def test_the_newest_number_is_that_of_the_first_known_producer(state: State) -> None:
    other = Producer(b"q", 0, 1)
    state.producers.add(b"q", ProducerRow(0, 30, 9))
    events = (event("a", producer=PRODUCER), event("a"), event("a", producer=other))
    assert newest_sequence(events, [None, None, 9], state.producers) == 30
    assert newest_sequence(events, [8, None, 9], state.producers) == 7
    assert newest_sequence(events, [None, 8, None], state.producers) == -1


def test_positions_of_known_and_stored_events_are_merged_in_order() -> None:
    events: Sequence[Event] = (
        event("a"),
        event("a", key=b"k"),
        event("a", key=b"l"),
        event("a", key=b"l"),
        event("a", request=REQUEST),
        event("a", producer=PRODUCER),
    )
    positions = merged(events, [None, 4, None, -3, 6, 7], (11, 12))
    assert positions == [11, 4, 12, 12, 6, 7]
    assert positions.repeats == {1, 3, 4, 5}
    assert positions.duplicates == 3
