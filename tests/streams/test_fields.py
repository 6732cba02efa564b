"""The protocol's headers and parameters: absurd values are refused with the name of the field."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse.errors import BadRequest
from fastsse.streams.fields import (
    content_type_of,
    expiry_of,
    fork_of,
    is_true,
    producer_of,
    read_request,
    rfc3339,
    seq_of,
)

BIG = str(1 << 53).encode()


@pytest.mark.parametrize(
    "value", [b"", b"01", b"+1", b"1.0", b"1e3", b"-1", b"abc", BIG, b"9" * 40, b"0x10", b"1 0"]
)
def test_a_time_to_live_is_a_plain_whole_number(value: bytes) -> None:
    with pytest.raises(BadRequest, match="Stream-TTL"):
        expiry_of({b"stream-ttl": value})


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"tomorrow",
        b"2026-13-01T00:00:00Z",
        b"2026-01-01",
        b"2026-01-01T00:00:00",
        b"9999-12-31T23:59:59Z",
    ],
)
def test_an_end_is_a_time_that_exists(value: bytes) -> None:
    with pytest.raises(BadRequest, match="Stream-Expires-At"):
        expiry_of({b"stream-expires-at": value})


def test_times_are_read_and_written_in_utc() -> None:
    _, unix_ms = expiry_of({b"stream-expires-at": b"2026-01-31T12:00:00.250+02:00"})
    assert unix_ms is not None
    assert rfc3339(unix_ms) == "2026-01-31T10:00:00.250Z"
    with pytest.raises(BadRequest):
        expiry_of({b"stream-expires-at": b"2026-01-31T12:00:00Z", b"stream-ttl": b"1"})


@pytest.mark.parametrize("value", [b"false", b"yes", b"1", b"", b"true,true"])
def test_only_true_is_true(value: bytes) -> None:
    assert not is_true(value)
    assert is_true(b" TRUE ")


@pytest.mark.parametrize("epoch", [BIG, b"-1", b"1.5", b"", b"a", b"00"])
def test_epochs_and_numbers_have_bounds(epoch: bytes) -> None:
    for name in (b"producer-epoch", b"producer-seq"):
        headers = {
            b"producer-id": b"p",
            b"producer-epoch": b"0",
            b"producer-seq": b"0",
            name: epoch,
        }
        with pytest.raises(BadRequest):
            producer_of(headers, "s")


def test_a_producer_has_all_three_headers_or_none() -> None:
    assert producer_of({}, "s") is None
    for name in (b"producer-id", b"producer-epoch", b"producer-seq"):
        with pytest.raises(BadRequest, match="Producer-Id"):
            producer_of({name: b"1"}, "s")
    for name in (b"", b" ", b"x" * 257):
        headers = {b"producer-id": name, b"producer-epoch": b"0", b"producer-seq": b"0"}
        with pytest.raises(BadRequest, match="Producer-Id"):
            producer_of(headers, "s")


def test_forks_say_of_what() -> None:
    assert fork_of({}, None) is None
    for name in (b"stream-fork-offset", b"stream-fork-sub-offset"):
        with pytest.raises(BadRequest, match="Stream-Forked-From"):
            fork_of({name: b"0"}, None)
    with pytest.raises(BadRequest, match="Stream-Fork-Sub-Offset"):
        fork_of({b"stream-fork-sub-offset": b"-1"}, "source")


@pytest.mark.parametrize(
    "pairs",
    [
        [("offset", "")],
        [("offset", "1"), ("offset", "1")],
        [("offset", "a,b")],
        [("offset", "../x")],
        [("live", "sse")],
        [("live", "long-poll")],
        [("live", "websocket"), ("offset", "-1")],
    ],
)
def test_queries_that_can_not_be_are_refused(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(BadRequest):
        read_request(pairs)


def test_unknown_parameters_are_ignored() -> None:
    assert read_request([("foo", "bar"), ("offset", "now"), ("cursor", "x")]).cursor == "x"


@given(st.binary(max_size=40))
def test_no_bytes_break_a_header(value: bytes) -> None:
    for read in (
        lambda: content_type_of({b"content-type": value}),
        lambda: expiry_of({b"stream-ttl": value}),
        lambda: expiry_of({b"stream-expires-at": value}),
        lambda: seq_of({b"stream-seq": value}),
        lambda: fork_of({b"stream-fork-offset": value, b"stream-fork-sub-offset": value}, "s"),
        lambda: producer_of(
            {b"producer-id": value, b"producer-epoch": value, b"producer-seq": value}, "s"
        ),
    ):
        with contextlib.suppress(BadRequest):
            read()
