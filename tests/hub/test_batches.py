"""A batch in columns is the same events and entries as one object for each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse.entries import (
    Entry,
    EventBatch,
    SharedFields,
    encode_entries,
    kinds_of,
    pack_entry,
    pack_events,
    sizes,
)
from fastsse.errors import FastsseError
from fastsse.events import DATA_BYTES, DATA_JSON, DATA_TEXT, Event
from fastsse.hub import Published
from fastsse.positions import Positions, position_at
from tests.hub.onenode import Node

FIRST = position_at(1_763_765_540_123) + 1
PLAIN = Event("a")

topic_tuples = st.lists(st.sampled_from(["a", "b", "ö/ü"]), min_size=1, unique=True).map(tuple)
data = st.one_of(st.sampled_from(["", "x\ny", "\r\n", "é\0"]), st.text())
plain = st.builds(Event, topic_tuples, data)
others = st.builds(
    Event,
    topic_tuples,
    data,
    event=st.sampled_from([None, "update"]),
    id=st.sampled_from([None, "own", "o2"]),
    retry=st.sampled_from([None, 5000]),
    private=st.booleans(),
    id_style=st.sampled_from(["position", "uuid"]),
    meta=st.sampled_from([None, {"a": "b"}]),
    data_kind=st.sampled_from([DATA_TEXT, DATA_JSON, DATA_BYTES]),
)


def is_plain(event: Event) -> bool:
    """Whether it has nothing but topics and data."""
    rest = [name for name in Event.__slots__ if name not in ("topics", "data", "data_kind")]
    return all(getattr(event, name) == getattr(PLAIN, name) for name in rest)


def batch_of(events: list[Event], columns: list[bool] | None = None) -> EventBatch:
    """All in a batch; those that are not plain in columns where that is asked, else as they are."""
    batch = EventBatch()
    for event, in_columns in zip(events, columns or [False] * len(events), strict=False):
        if is_plain(event):
            batch.add(event.topics, event.data, event.data_kind)
        elif in_columns:
            shared = SharedFields(event)
            batch.add(event.topics, event.data, event.data_kind, shared, event.id)
        else:
            batch.append(event)
    return batch


def fields_of(event: Event) -> list[object]:
    return [getattr(event, name) for name in Event.__slots__]


def facts_of(entry: Entry) -> list[object]:
    frame = entry.frame
    facts = [frame.wire, frame.position, frame.time_ms, frame.private, frame.data_kind]
    return [entry[:3], entry.extras, *facts]


@given(
    events=st.lists(st.one_of(plain, others), min_size=1, max_size=6),
    gaps=st.none() | st.lists(st.integers(1, 2**64), min_size=6, max_size=6),
    times=st.none() | st.integers(0, 2**48) | st.just([5, 4, 3, 2, 1, 2**63]),
    first=st.sampled_from([FIRST, FIRST + 98, position_at(7) - 3]),
    columns=st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_a_batch_becomes_the_same_entries_as_its_events(
    events: list[Event],
    gaps: list[int] | None,
    times: int | list[int] | None,
    first: int,
    columns: list[bool],
) -> None:
    count = len(events)
    times = times[:count] if isinstance(times, list) else times
    positions = Positions(first, count)
    steps = None if gaps is None else [first + sum(gaps[:index]) for index in range(count)]
    batch = batch_of(events, columns)
    assert len(batch) == count
    assert kinds_of(batch) == kinds_of(events)
    assert sizes(batch) == sizes(events)
    assert list(map(fields_of, batch)) == list(map(fields_of, events))
    assert pack_events(batch) == pack_events(events)
    one_by_one = [
        encode_entries([at], [event], [times[index]] if isinstance(times, list) else times)[0]
        for index, (at, event) in enumerate(zip(steps or positions, events, strict=True))
    ]
    together = encode_entries(steps or positions, batch, times)
    expected = steps or list(range(first, first + count))
    assert [entry.position for entry in together] == expected
    assert list(map(facts_of, together)) == list(map(facts_of, one_by_one))
    assert list(map(pack_entry, together)) == list(map(pack_entry, one_by_one))
    assert together.last is together[-1].frame
    again = encode_entries(steps or positions, events, times)
    assert [facts_of(again[-count + index]) for index in range(count)] == list(
        map(facts_of, together)
    )


def test_a_batch_that_can_not_be_is_refused() -> None:
    with pytest.raises(ValueError, match="as many topics as data"):
        EventBatch([("a",)], [])
    batch = EventBatch([("a",)], [b"x"])
    for positions, times in (([FIRST], []), ([FIRST, FIRST + 1], None), ([], None)):
        with pytest.raises(ValueError, match="as many"):
            encode_entries(positions, batch, times)
    with pytest.raises(IndexError):
        batch[1]
    with pytest.raises(IndexError):
        encode_entries([FIRST], batch)[-2]
    with pytest.raises(TypeError):
        batch.add(["a"], b"x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="directives"):
        SharedFields(Event.end("a"))


def test_a_stream_receives_a_published_batch(node: Node) -> None:
    client = node.subscribe("a")
    batch = EventBatch([("a",), ("b",)], [b"one", b"unheard"])
    batch.append(Event("a", "two", event="update", id="own"))
    batch.add(("b", "a"), b"three")
    outcomes: list[Published | FastsseError] = []
    node.hub.publish(batch, outcomes.append)
    (published,) = outcomes
    assert isinstance(published, Published)
    assert node.run_until_received(client, 3) == ["one", "two", "three"]
    assert published.count == len(published.positions) == 4
    assert [message.last_event_id for message in client.events] == [
        text.decode() for text in (published.ids[0], b"own", published.last)
    ]
