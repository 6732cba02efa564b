"""The client's decoder says the same as a parser written from the standard, in bounded memory."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse.client import Decoder, EventTooLarge, Gap, ReceivedEvent
from tests.eventstream import EventStream, parse

pieces = st.sampled_from(
    [
        *(b"data", b"event", b"id", b"retry", b":", b" ", b"x", b"7", b"data: y\n\n", b"id: 5\n"),
        *(b"\r", b"\n", b"\r\n", b"\n\n", b"\0", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xff"),
        *(b"\xe2\x82", b"\xc3\xa9", b"\xc2\x85", b"\x0b", b"\x1c", b"\xf0\x9f", b"\x98\x80"),
    ]
)
streams = st.lists(pieces, max_size=60).map(b"".join)


def decoded(parts: list[bytes]) -> tuple[list[tuple[str, str, str]], str, float | None]:
    decoder = Decoder(10_000)
    events = [event for part in parts for event in decoder.feed(part)]
    shown = [(event.data, event.event, event.id) for event in events]
    return shown, decoder.last_event_id, decoder.retry_s


def expected(stream: EventStream) -> tuple[list[tuple[str, str, str]], str, float | None]:
    shown = [(event.data, event.type, event.last_event_id) for event in stream.events]
    retry_s = None if stream.retry_ms is None else stream.retry_ms / 1000
    return shown, stream.last_event_id, retry_s


@given(streams, st.lists(st.integers(0, 200), max_size=8))
def test_decoder_agrees_with_the_standard_in_any_pieces(stream: bytes, cuts: list[int]) -> None:
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    parts = [stream[a:b] for a, b in pairwise(places)]
    assert decoded(parts) == expected(parse(stream))


def test_block_with_only_an_id_is_no_event() -> None:
    decoder = Decoder(100)
    assert decoder.feed(b": fastsse\nretry: 3000\nid: 5-0\n\n") == []
    assert (decoder.last_event_id, decoder.retry_s) == ("5-0", 3)


def test_event_with_empty_data_is_an_event() -> None:
    assert Decoder(100).feed(b"data\n\n") == [ReceivedEvent("")]


def test_restart_drops_what_was_not_complete() -> None:
    decoder = Decoder(100)
    decoder.feed(b"id: 1\n\nid: 2\ndata: lost\ndat")
    decoder.restart()
    assert decoder.feed(b"data: a\n\n") == [ReceivedEvent("a", id="1")]


@pytest.mark.parametrize("part", [b"data: 0123456789\n", b"data: 0123456789", b"0123456789"])
def test_event_over_the_limit_is_refused_before_it_is_held(part: bytes) -> None:
    decoder = Decoder(1000)
    for _ in range(60):
        decoder.feed(part)
    with pytest.raises(EventTooLarge, match="1000 bytes"):
        [decoder.feed(part) for _ in range(50)]


def test_empty_piece_between_the_halves_of_a_line_end_is_nothing() -> None:
    decoder = Decoder(100)
    pieces = [b"data: a\r", b"", b"\ndata: b\r", b"", b"\n\r\n"]
    assert [event.data for piece in pieces for event in decoder.feed(piece)] == ["a\nb"]


def test_many_small_events_are_no_large_one() -> None:
    decoder = Decoder(20)
    assert (
        len([event for _ in range(100) for event in decoder.feed(b"data: 0123456789\n\n")]) == 100
    )


def test_a_gap_is_described_in_words() -> None:
    data = '{"reason":"evicted","requested":"1-1","from":"9-0"}'
    assert ReceivedEvent(data, "fastsse.gap").gap == Gap("evicted", "1-1", "9-0")
    assert ReceivedEvent("?", "fastsse.gap").gap == Gap("unknown", "", "")
    assert ReceivedEvent("[]", "fastsse.gap").gap == Gap("unknown", "", "")
    assert ReceivedEvent(data).gap is None


def test_absurd_retry_is_ignored() -> None:
    decoder = Decoder(100_000)
    decoder.feed(b"retry: " + b"9" * 5000 + b"\n")
    assert decoder.retry_s is None


FORMS = [
    "id: {n}\ndata: {n}\n\n",
    "data: {n}\n\n",
    "id: {n}\nevent: t{n}\ndata: {n}\n\n",
    "event: t{n}\nid: {n}\ndata: {n}\n\n",
    "event: t\ndata: {n}\n\n",
    "id: {n}\ndata:{n}\n\n",
    "id: \ndata: {n}\n\n",
    "id:\ndata: {n}\n\n",
    "event: \ndata: {n}\n\n",
    "data: {n}\nid: {n}\n\n",
    "id: {n}\ndata: {n}\ndata: more\n\n",
    "id: {n}\nretry: {n}\ndata: {n}\n\n",
    "retry: {n}\ndata: {n}\n\n",
    ": comment\ndata: {n}\n\n",
    "id: {n}\n\n",
    "id: a\0b\ndata: {n}\n\n",
    "id: {n}\r\ndata: {n}\r\n\r\n",
    "id: {n}\ndata: \n\n",
    "id: {n}\ndata\n\n",
    "\nid: {n}\ndata: {n}\n\n",
    "id: ☃{n}\ndata: ☃\n\n",
    "id: {n}\ndata: id: {n}\n\n",
    "event: data: {n}\n\n",
    "data: event: {n}\n\n",
]


@given(
    st.lists(
        st.tuples(st.sampled_from(FORMS), st.integers(1, 4)),
        max_size=8,
    ),
    st.lists(st.integers(0, 600), max_size=4),
)
def test_blocks_of_one_form_and_of_several_are_read_as_the_standard_says(
    runs: list[tuple[str, int]], cuts: list[int]
) -> None:
    blocks = [form for form, times in runs for _ in range(times)]
    # The first block is read by itself, so that the others are read together.
    stream = b"\n\n" + "".join(form.format(n=n) for n, form in enumerate(blocks)).encode()
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    parts = [stream[a:b] for a, b in pairwise(places)]
    assert decoded(parts) == expected(parse(stream))
