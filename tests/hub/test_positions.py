"""Positions order everything: strictly increasing, one text for each."""

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsse.positions import (
    Clock,
    Positions,
    format_position,
    is_position_shaped,
    parse_id,
    parse_position,
    position_at,
    position_ms,
    uuid_of_position,
)

milliseconds = st.integers(0, 2**63 - 1)
counters = st.integers(0, 2**64 - 1)


@settings(deadline=None)
@given(milliseconds, counters)
def test_text_of_a_position_reads_back_as_the_same(ms: int, n: int) -> None:
    text = format_position(position_at(ms) + n)
    assert text == f"{ms}-{n}".encode()
    assert parse_position(text) == parse_position(text.decode()) == position_at(ms) + n
    assert is_position_shaped(text)
    assert position_ms(position_at(ms) + n) == ms


@settings(deadline=None)
@given(milliseconds, counters, milliseconds, counters)
def test_positions_order_by_time_and_then_by_counter(a: int, b: int, c: int, d: int) -> None:
    assert (position_at(a) + b < position_at(c) + d) == ((a, b) < (c, d))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "-",
            "1",
            "1-",
            "-1",
            "01-1",
            "1-01",
            "+1-1",
            " 1-1",
            "1-1\n",
            "1--1",
            "1-1-1",
            "a-b",
        ),
        *(f"{2**63}-0", f"0-{2**64}", "9" * 5000 + "-1", "1-" + "9" * 5000, "\ud800-1"),
        "\u0661-\u0661",
    ],
)
def test_what_is_not_exactly_a_position_is_none(text: str) -> None:
    assert parse_position(text) is None


@pytest.mark.parametrize("text", [b"007-1", b"99999999999999999999999999-1", b"0-0"])
def test_position_shaped_covers_all_digits_hyphen_digits(text: bytes) -> None:
    assert is_position_shaped(text)


@settings(deadline=None)
@given(st.lists(st.tuples(milliseconds, st.integers(1, 1000)), min_size=1))
def test_clock_only_goes_up_however_time_jumps(steps: list[tuple[int, int]]) -> None:
    now = 0
    clock = Clock(lambda: now, last=position_at(steps[0][0]))
    last = clock.last
    for now, count in steps:
        first = clock.take(count)
        assert first > last
        assert position_ms(first) >= now
        last = first + count - 1
        assert clock.last == last
    assert clock.next() == last + 1 or position_ms(clock.last) > position_ms(last)


@settings(deadline=None)
@given(milliseconds)
def test_the_place_before_an_event_is_never_an_event_of_an_earlier_millisecond(ms: int) -> None:
    clock = Clock(lambda: ms)
    assert clock.next() == position_at(ms) + 1


@given(milliseconds, counters)
def test_both_ways_to_write_an_id_name_the_position(ms: int, n: int) -> None:
    position = position_at(ms) + n
    assert parse_id(format_position(position)) == position
    assert parse_id(uuid_of_position(position)) == position


@given(st.integers(0, (1 << 48) - 1), st.integers(0, (1 << 32) - 1))
def test_a_position_fits_into_a_uuid_of_version_7(ms: int, n: int) -> None:
    text = uuid_of_position(position_at(ms) + n).decode()
    made = uuid.UUID(text)
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == ms
    assert text == made.urn
    assert is_position_shaped(text.upper().encode())


@pytest.mark.parametrize(
    "text",
    [
        b"urn:uuid:018bcfe5-6800-7000-8000-000000000007",
        b"urn:uuid:018bcfe5-6800-45e5-8000-000000000007",
        b"urn:uuid:018bcfe5-6800-75e5-8000-000100000007",
        b"018bcfe5-6800-75e5-8000-000000000007",
        b"urn:uuid:018bcfe5-6800-75e5-8000-000000000007\n",
        b"",
    ],
)
def test_other_peoples_uuids_are_no_positions(text: bytes) -> None:
    assert parse_id(text) is None
    assert not is_position_shaped(text)


@given(
    first=st.integers(0, 2**127) | st.integers(2**70 - 5, 2**70),
    count=st.integers(0, 9),
    index=st.integers(-12, 12),
)
def test_positions_in_a_row_are_a_range(first: int, count: int, index: int) -> None:
    expected = range(first, first + count)
    positions = Positions(first, count)
    assert (len(positions), list(positions)) == (count, list(expected))
    assert positions[1:-1] == list(expected[1:-1])
    assert positions == Positions(first, count)
    assert positions != Positions(first, count + 1)
    if -count <= index < count:
        assert positions[index] == expected[index]
    else:
        with pytest.raises(IndexError):
            positions[index]


def test_the_clock_gives_all_positions_that_it_says() -> None:
    clock = Clock(lambda: 7, last=position_at(9) - 2)
    assert list(clock.take_all(3)) == [position_at(9) - 1, position_at(9), position_at(9) + 1]
    assert (clock.last, clock.time_ms) == (position_at(9) + 1, 7)
    with pytest.raises(ValueError, match="less than no positions"):
        Positions(1, -1)
