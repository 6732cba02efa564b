"""The oracle itself: the examples of the standard, and what it says about odd bytes."""

from itertools import pairwise

import httpx
import httpx_sse
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.eventstream import EventStream, Message, parse

pieces = st.sampled_from(
    [
        *(b"data", b"event", b"id", b"retry", b":", b" ", b"x", b"7"),
        *(b"\r", b"\n", b"\r\n", b"\n\n", b"data: y\n\n", b"\0"),
        *(b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xff", b"\xe2\x82", b"\xc3\xa9"),
    ]
)
streams = st.lists(pieces, max_size=40).map(b"".join)


def test_standard_example_of_three_lines_is_one_event() -> None:
    assert parse(b"data: YHOO\ndata: +2\ndata: 10\n\n").events == [Message("YHOO\n+2\n10")]


def test_standard_example_of_comment_ids_and_a_blank_id() -> None:
    stream = parse(
        b": test stream\n\n"
        b"data: first event\nid: 1\n\n"
        b"data:second event\nid\n\n"
        b"data:  third event\n\n"
    )
    assert stream.comments == [" test stream"]
    assert stream.events == [
        Message("first event", last_event_id="1"),
        Message("second event"),
        Message(" third event"),
    ]


def test_standard_example_of_empty_data() -> None:
    assert parse(b"data\n\ndata\ndata\n\ndata:").events == [Message(""), Message("\n")]


def test_one_space_after_the_colon_is_dropped() -> None:
    assert parse(b"data:test\n\ndata: test\n\n").events == [Message("test")] * 2


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_all_three_line_ends_count(end: bytes) -> None:
    stream = parse(end.join([b"event: a", b"data: b", b"", b""]))
    assert stream.events == [Message("b", "a")]


def test_carriage_return_ends_an_event_without_waiting_for_a_line_feed() -> None:
    assert EventStream().feed(b"data: x\r\r") == [Message("x")]


def test_event_without_a_blank_line_is_discarded_at_the_end() -> None:
    assert parse(b"data: x\n").events == []


def test_id_without_data_moves_the_last_event_id_and_dispatches_nothing() -> None:
    stream = parse(b"id: 5\n\n")
    assert (stream.events, stream.last_event_id) == ([], "5")


def test_unfinished_id_is_forgotten_at_a_reconnect() -> None:
    stream = parse(b"id: 1\ndata: a\n\nid: 2\n")
    stream.feed(b"data: b\n\n")
    assert stream.events[-1] == Message("b", last_event_id="1")


def test_id_is_not_taken_before_its_blank_line() -> None:
    assert parse(b"id: 5\n").last_event_id == ""


def test_id_with_nul_is_ignored() -> None:
    assert parse(b"id: 1\n\nid: 2\0\n\n").last_event_id == "1"


@pytest.mark.parametrize(("value", "retry_ms"), [(b"70", 70), (b"7x", None), (b"-1", None)])
def test_retry_takes_ascii_digits_only(value: bytes, retry_ms: int | None) -> None:
    assert parse(b"retry: " + value + b"\n").retry_ms == retry_ms


def test_only_one_byte_order_mark_is_dropped() -> None:
    assert parse("\ufeffdata: a\n\n".encode()).events == [Message("a")]
    assert parse("\ufeff\ufeffdata: a\n\n".encode()).events == []


def test_field_names_are_exact() -> None:
    assert parse(b"Data: a\n data: b\ndata : c\n\n").events == []


def test_unicode_line_separators_are_data() -> None:
    text = "a\u2028b\u0085c\x0bd\x0ce\x1cf"
    assert parse(f"data: {text}\n\n".encode()).events == [Message(text)]


@given(streams, st.lists(st.integers(0, 200), max_size=6))
def test_bytes_mean_the_same_in_any_pieces(stream: bytes, cuts: list[int]) -> None:
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    parts = [stream[a:b] for a, b in pairwise(places)]
    assert parse(parts) == parse(stream)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=5))
def test_it_agrees_with_an_independent_client_on_well_formed_streams(lines: list[str]) -> None:
    body = "".join(f"data: {line}\n\n" for line in lines).encode()
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)
    theirs = [event.data for event in httpx_sse.EventSource(response).iter_sse()]
    ours = [event.data for event in parse(body).events]
    if not any(set(line) & set("\r\n\0\ufeff") for line in lines):
        assert ours == theirs
