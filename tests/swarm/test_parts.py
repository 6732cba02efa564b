"""The native parts against independent answers: the standard, HdrHistogram, fastsse.stamp."""

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsse import stamp
from fastsse.swarm import _swarm
from fastsse.swarm.results import Histogram, highest_us, lowest_us
from tests.eventstream import EventStream

FIELDS = ["data", "data:", "data: ", "id:", "id: 7-1", "event:", "event: tick", "retry: 5", ":"]
OTHERS = [": hi", "x", "\0", "ö", "data:a:b", " data: x"]
LINE_ENDS = ["\n", "\r", "\r\n", "\n\n", "\r\r", "\r\n\r\n"]
LINE_PIECES = st.sampled_from([*FIELDS, *OTHERS, *LINE_ENDS])
STREAMS = st.lists(LINE_PIECES, max_size=40).map("".join)


@st.composite
def cut_bytes(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    edges = draw(st.lists(st.integers(0, len(whole)), max_size=8).map(sorted))
    return [whole[a:b] for a, b in zip([0, *edges], [*edges, len(whole)], strict=True)]


def expected_of(text: str) -> list[tuple[bytes, bytes, int, bytes]]:
    stream = EventStream()
    return [
        (
            (b"" if event.type == "message" else event.type.encode()),
            event.data.split("\n")[0].encode(),
            len(event.data.encode()),
            event.last_event_id.encode(),
        )
        for event in stream.feed(text.encode())
    ]


@given(STREAMS, st.booleans(), st.data())
def test_events_are_those_of_the_standard_wherever_the_stream_is_cut(
    text: str, marked: bool, data: st.DataObject
) -> None:
    text = "\ufeff" * marked + text
    pieces = data.draw(cut_bytes(text.encode()))
    found = [(kind, first, size, id) for kind, first, size, _, id in _swarm.decode_events(pieces)]
    assert found == expected_of(text)


def test_comments_do_not_pile_up_between_events() -> None:
    pieces = [b":\n"] * 1000 + [b"data: x\n\n"]
    assert _swarm.decode_events(pieces) == [(b"", b"x", 1, 1, b"")]


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), st.data())
def test_a_chunked_body_comes_out_whole_wherever_it_is_cut(
    chunks: list[bytes], data: st.DataObject
) -> None:
    wire = b"".join(b"%X;x=y\r\n%s\r\n" % (len(part), part) for part in chunks)
    pieces = data.draw(cut_bytes(wire + b"0\r\nTrailer: x\r\n\r\n"))
    assert _swarm.decode_chunks(pieces) == (b"".join(chunks), True)


def test_a_chunked_body_without_its_last_chunk_is_not_complete() -> None:
    assert _swarm.decode_chunks([b"1\r\na\r\n"]) == (b"a", False)


@pytest.mark.parametrize(
    "wire", [b"\r\n", b"g\r\n", b"1\na\n", b"1\r\nab\r\n", b"-1\r\n", b"fffffffff\r\n", b"1\r\na\n"]
)
def test_a_malformed_chunked_body_is_refused(wire: bytes) -> None:
    with pytest.raises(ValueError, match="not a chunked body"):
        _swarm.decode_chunks([wire])


@given(st.integers(0, 10**18), st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1))
def test_a_stamp_means_the_same_natively_and_in_python(due: int, source: int, count: int) -> None:
    written = stamp.encode(stamp.Stamp(due, source, count), 128)
    assert len(written) == 128
    assert _swarm.write_stamp(due, source, count, 128) == written
    assert _swarm.read_stamp(written) == (due, source, count)
    assert stamp.decode(written) == stamp.Stamp(due, source, count)


@given(st.text(alphabet='{}"due:sorcnt, 0123x', max_size=60).map(str.encode) | st.binary())
def test_what_is_no_stamp_for_one_reader_is_none_for_the_other(data: bytes) -> None:
    for text in (data, b'{"due":' + data, b'{"due": 5, "source": 3,' + data):
        found = stamp.decode(text)
        native = _swarm.read_stamp(text)
        assert native == (found and (found.due_us, found.source, found.count))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"due":5}', (5, 0, 0)),
        (b'{"due": 5, "source": 1, "count": 2}', (5, 1, 2)),
        (b'{"due":5,"count":2,"source":1}', (5, 0, 0)),
        (b'{"due":5,"source":1,"count":2', (5, 0, 0)),
        (b'{"due":5', None),
        (b'{"due":"5"}', None),
        (b"", None),
    ],
)
def test_stamps_of_others_are_read_as_far_as_they_go(
    data: bytes, expected: tuple[int, int, int] | None
) -> None:
    found = stamp.decode(data)
    assert (
        _swarm.read_stamp(data) == expected == (found and (found.due_us, found.source, found.count))
    )


@pytest.mark.parametrize(
    ("before", "is_read"),
    [
        (b'{"channel":"news","pub":{"data":', True),
        (b'{"a":"' + b"x" * (stamp.ENVELOPE_BYTES_MAX - 8) + b'":', True),
        (b'{"a":"' + b"x" * (stamp.ENVELOPE_BYTES_MAX - 7) + b'":', False),
        (b'{"data":', True),
        (b"data", False),
    ],
)
def test_a_stamp_is_found_in_an_envelope_of_another_server(before: bytes, is_read: bool) -> None:
    data = before + stamp.encode(stamp.Stamp(5, 6, 7), 128) + b"}}"
    expected = (5, 6, 7) if is_read else None
    found = stamp.decode(data)
    assert (found and (found.due_us, found.source, found.count)) == expected
    assert _swarm.read_stamp(data) == expected


@pytest.mark.parametrize("size", [0, stamp.SIZE_BYTES_MIN - 1])
def test_a_stamp_that_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="stamped event"):
        stamp.encode(stamp.Stamp(1), size)
    with pytest.raises(ValueError, match="stamped event"):
        _swarm.write_stamp(1, 1, 1, size)


def test_the_largest_numbers_fit_into_the_smallest_stamp() -> None:
    most = stamp.Stamp(10**18, 2**32 - 1, 2**32 - 1)
    assert stamp.decode(stamp.encode(most, stamp.SIZE_BYTES_MIN)) == most


def verdicts(*counts: int | None) -> list[str]:
    arrivals = [None if count is None else (1, count) for count in counts]
    return [verdict for verdict, _ in _swarm.judge_counts(arrivals)]


def test_a_jump_is_a_loss_of_what_was_jumped_over() -> None:
    assert _swarm.judge_counts([(1, 5), (1, 6), (1, 9)]) == [("first", 0), ("next", 0), ("lost", 2)]


def test_an_event_that_fills_a_gap_is_late_and_then_a_repeat() -> None:
    assert verdicts(1, 3, 2, 2) == ["first", "lost", "late", "again"]


def test_what_came_before_joining_was_never_owed() -> None:
    assert verdicts(10, 9) == ["first", "again"]


def test_an_event_older_than_the_window_counts_as_a_repeat() -> None:
    assert verdicts(1, 1000, 2, 999) == ["first", "lost", "again", "late"]


def test_a_jump_that_the_server_announced_is_no_silent_loss() -> None:
    assert verdicts(1, None, 5, 7) == ["first", "announced", "lost"]
    assert verdicts(1, None, 2, 4) == ["first", "next", "lost"]


def test_sources_are_judged_apart() -> None:
    arrivals = [(source, count) for count in (1, 2, 4) for source in range(40)]
    found = [verdict for verdict, _ in _swarm.judge_counts(arrivals)]
    assert found == ["first"] * 40 + ["next"] * 40 + ["lost"] * 40


VALUES = st.lists(st.integers(1, 3_600_000_000), min_size=1, max_size=200)


@settings(deadline=None, max_examples=30)
@given(VALUES)
def test_the_histogram_says_what_hdrhistogram_says(values: list[int]) -> None:
    theirs = HdrHistogram(1, 2**32 - 1, 3)
    buckets = [0] * _swarm.HISTOGRAM_BUCKETS
    for value in values:
        theirs.record_value(value)
        buckets[_swarm.bucket_of(value)] += 1
    ours = Histogram(buckets)
    percents = [100 * rank / len(values) for rank in range(1, len(values) + 1)]
    assert ours.percentiles_us(*percents) == [
        theirs.get_value_at_percentile(percent) for percent in percents
    ]
    assert ours.max_us() == theirs.get_max_value()
    assert ours.count == theirs.get_total_count()


@given(st.integers(0, 2**32 - 1))
def test_a_bucket_holds_its_values_to_three_digits(value: int) -> None:
    bucket = _swarm.bucket_of(value)
    assert lowest_us(bucket) <= value <= highest_us(bucket)
    assert highest_us(bucket) - lowest_us(bucket) <= value / 1000


def test_values_beyond_the_histogram_are_kept_in_its_last_bucket() -> None:
    assert _swarm.bucket_of(2**63) == _swarm.HISTOGRAM_BUCKETS - 1


def test_histograms_of_processes_add_up_and_looks_subtract() -> None:
    few, more = [0] * _swarm.HISTOGRAM_BUCKETS, [0] * _swarm.HISTOGRAM_BUCKETS
    few[7], more[7], more[9] = 1, 2, 1
    difference = Histogram(more) - Histogram(few)
    assert list(difference.filled()) == [(7, 1), (9, 1)]
    assert (difference + Histogram(few)).buckets == more
    assert Histogram().percentiles_us(50, 99) == [0, 0]
