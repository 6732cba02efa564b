"""Rows of durable streams where order is made."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from fastsse.backbone.stream_expiry import LOOKS, control_event
from fastsse.backbone.stream_rows import RowChange, rows_of_log
from fastsse.backbone.stream_table import StreamTable
from fastsse.directives import Directives, Producer, without_seq
from fastsse.entries import encode_entries
from fastsse.events import Event
from fastsse.positions import position_at
from fastsse.streamstate import StreamAsk, StreamConfig, StreamControl, StreamRow


def test_a_log_says_the_last_seq_with_and_without_a_producer() -> None:
    config = StreamConfig("text/plain")
    positions = [position_at(1000 + n) for n in range(4)]
    asks = [StreamAsk("append", positions[0], seq) for seq in (b"a", b"b", None)]
    producers = [None, Producer(b"k", 0, 0), None]
    events = [control_event("log", StreamControl("create", config), 0)]
    events += [
        Event("log", "x", directives=Directives(stream=ask, producer=producer))
        for ask, producer in zip(asks, producers, strict=True)
    ]
    entries = encode_entries(positions, events, 1000)
    rows = rows_of_log(entries)
    assert (rows["log"].seq, rows["log"].tail) == (b"b", positions[-1])
    assert entries[2].extras is not None
    seq, key = without_seq(entries[2].extras.key or b"")
    assert (seq, Producer.decode(key[1:])) == (b"b", producers[1])


@given(
    st.tuples(st.integers(1, 1 << 60), st.integers(0, 1 << 60), st.integers(0, 1 << 60)),
    st.none() | st.binary(min_size=1, max_size=9),
    st.booleans(),
    st.sampled_from(["text/plain", 'a/b; x="é\\"']),
    st.sampled_from([None, "Quelle/1"]),
)
def test_a_row_is_read_back_as_it_was_written(places, seq, is_hidden, content_type, source) -> None:
    generation, tail, closed = (position_at(place) | place for place in places)
    of = generation if source else 0
    config = StreamConfig(content_type, 5, source=source, source_generation=of)
    closed = closed if is_hidden else 0
    row = StreamRow(generation, config, tail, closed, seq, 3, is_hidden, places[1], places[2])
    text = row.encode()
    assert StreamRow.decode(text) == row
    # What a script of Redis looks at without the configuration.
    members = orjson.loads(text)
    assert (members["p"], members["k"]) == (source or "", config.kind)


def test_looking_for_expired_streams_is_bounded_and_finds_all() -> None:
    now_ms = 10_000
    table = StreamTable(1 << 30, lambda: now_ms)
    mortal, eternal = StreamConfig("text/plain", ttl_s=1), StreamConfig("text/plain")
    table.apply(
        RowChange(f"s{n}", StreamRow(n + 1, eternal if n % 2 else mortal, n + 1, touched_ms=0))
        for n in range(LOOKS * 6)
    )
    found: list[str] = []
    for _ in range(3):
        batches = table.expired()
        assert len(batches) == LOOKS
        found += [event.topics[0] for batch in batches for event in batch]
    assert sorted(found) == sorted(f"s{n}" for n in range(0, LOOKS * 6, 2))
    for topic in found:
        table.apply([RowChange(topic, None)])
    assert table.expired() == []
