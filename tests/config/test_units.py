"""Values with units are read exactly, and refused clearly."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse.units import counted, format_duration, format_size, parse_duration_s, parse_size_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("250ms", 0.25),
        ("1h30m", 5400),
        ("1m30s", 90),
        ("1.5h", 5400),
        ("2w", 1209600),
        ("1d2h3m4s5ms", 93784.005),
        ("10 s", 10),
        (" 3s ", 3),
        ("3", 3),
        ("0.5", 0.5),
        ("0", 0),
        (7, 7),
        (0.25, 0.25),
    ],
)
def test_duration_is_read_in_seconds(text: object, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "-1s", "-1", "+1s", "1x", "s", "1s1s", "1s2m", "1e3s", "nan", "inf", "1_000s",
        "1,5s", "\u0661s", "9" * 19 + "s", "1s\n2s", ".5s", "5.s", True, None, [], float("nan"),
        float("inf"), -1, -0.5,
    ],
)  # fmt: skip
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("1MiB", 1048576),
        ("64KB", 64000),
        ("1.5GiB", 1610612736),
        ("1 kib", 1024),
        ("12", 12),
        ("12B", 12),
        ("0", 0),
        ("2TiB", 2 * 2**40),
        (5, 5),
        (1e6, 1000000),
    ],
)
def test_size_is_read_in_bytes(text: object, size_bytes: int) -> None:
    assert parse_size_bytes(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        "", "-1", "1K", "1M", "1MiBs", "1.5B", "0.5", "MiB", "nan", "1e400", "9" * 30, True, None,
        0.5, -1, float("nan"), float("inf"), "1PiB", "1 0KB", "\u0663KB", "1iB",
    ],
)  # fmt: skip
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_size_bytes(text)


@given(st.integers(0, 10**15))
def test_size_text_reads_back_as_the_same_bytes(size_bytes: int) -> None:
    assert parse_size_bytes(format_size(size_bytes)) == size_bytes


@given(st.integers(0, 10**11))
def test_duration_text_reads_back_as_the_same_milliseconds(duration_ms: int) -> None:
    assert round(parse_duration_s(format_duration(duration_ms / 1000)) * 1000) == duration_ms


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert parse_duration_s(text) >= 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (90, "1m30s"),
        (0.25, "250ms"),
        (3600, "1h"),
        (86400 * 8, "8d"),
        (0.0001, "0.0001"),
    ],
)
def test_duration_is_shown_in_the_shortest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_nouns_are_counted() -> None:
    assert [counted(n, "gap event") for n in (0, 1, 2_000)] == [
        "0 gap events",
        "1 gap event",
        "2,000 gap events",
    ]
