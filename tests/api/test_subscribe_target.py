"""How the target of a subscription is read."""

import pytest

from fastsse.api.access import OpenAccess
from fastsse.api.subscribe import Subscribe
from fastsse.errors import InvalidSubscription
from fastsse.http.cors import Cors
from fastsse.http.request import parse_target

NOW_MS = 1_800_000_000_000
ANYONE = OpenAccess(None, Cors((), cross_publish=False))


def since(text: str) -> int:
    """The unix milliseconds that a `since` means."""
    subscribe = Subscribe(100, lambda: NOW_MS, ANYONE)
    target = parse_target(b"/events?topic=a&since=" + text.encode())
    cursor = subscribe.read(target, {}).cursor
    assert cursor.kind == "since"
    assert isinstance(cursor.value, int)
    return cursor.value


@pytest.mark.parametrize(
    ("text", "unix_ms"),
    [
        ("2027-01-15T08:00:00Z", NOW_MS),
        ("2027-01-15T08:00:00.250z", NOW_MS + 250),
        ("2027-01-15T08:00:00.123456789Z", NOW_MS + 123),
        ("2027-01-15t09:30:00%2B01:30", NOW_MS),
        ("2027-01-15T09:30:00+01:30", NOW_MS),
        ("2027-01-15T07:00:00-01:00", NOW_MS),
        ("2027-01-15%2008:00:00Z", NOW_MS),
        ("10m", NOW_MS - 600_000),
        ("1h30m", NOW_MS - 5_400_000),
        ("250ms", NOW_MS - 250),
        ("3000w", 0),
    ],
)
def test_since_is_a_time_or_a_span(text, unix_ms) -> None:
    assert since(text) == unix_ms


def test_span_is_counted_from_each_request() -> None:
    now_ms = [NOW_MS]
    subscribe = Subscribe(100, lambda: now_ms[0], ANYONE)
    target = parse_target(b"/events?topic=a&since=1s")
    assert subscribe.read(target, {}).cursor.value == NOW_MS - 1000
    now_ms[0] += 500
    assert subscribe.read(target, {}).cursor.value == NOW_MS - 500


def test_header_is_not_remembered_with_the_target() -> None:
    subscribe = Subscribe(100, lambda: NOW_MS, ANYONE)
    target = parse_target(b"/events?topic=a")
    assert subscribe.read(target, {b"last-event-id": b"x"}).cursor.kind == "after"
    assert subscribe.read(target, {}).cursor.kind == "head"


def test_bound_on_topics_is_the_option() -> None:
    with pytest.raises(InvalidSubscription):
        Subscribe(1, lambda: NOW_MS, ANYONE).read(parse_target(b"/events?topic=a&topic=b"), {})
