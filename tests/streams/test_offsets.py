"""Offsets and cursors: what they promise to clients that compare and repeat them."""

from hypothesis import given
from hypothesis import strategies as st

from fastsse.streamoffsets import NOW, format_offset, parse_offset
from fastsse.streams.cursors import EPOCH_MS, INTERVAL_MS, Cursors

positions = st.integers(0, (1 << 128) - 1)


@given(positions, positions)
def test_offsets_sort_as_text_like_their_positions(left: int, right: int) -> None:
    texts = format_offset(left), format_offset(right)
    assert (left < right) == (texts[0] < texts[1])
    assert parse_offset(texts[0]) == left


@given(st.text(max_size=40))
def test_a_text_that_is_no_offset_is_none(text: str) -> None:
    found = parse_offset(text)
    assert found in (None, 0, NOW) or format_offset(int(found)) == text


def test_sentinels_are_the_start_and_the_end() -> None:
    assert parse_offset("-1") == 0
    assert parse_offset("now") == NOW
    assert parse_offset("0000000000000000_0000000000000000") == 0


def test_a_cursor_never_goes_back_and_never_repeats_what_was_sent() -> None:
    cursors = Cursors(lambda: EPOCH_MS + 100 * INTERVAL_MS, lambda most: most)
    assert cursors.after(None) == cursors.after("99") == "100"
    assert int(cursors.after("100")) == 100 + 180
    assert int(cursors.after("5000")) > 5000


@given(st.text(max_size=30))
def test_whatever_is_sent_as_a_cursor_gets_a_number(sent: str) -> None:
    assert Cursors(lambda: EPOCH_MS).after(sent).isdigit()
