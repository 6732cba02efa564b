"""What is stored of a ticket and for how long, and what a worker says of each answer."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from fastsse.auth import ticket_store
from fastsse.auth.rights import ANONYMOUS, Rights
from fastsse.auth.ticket_store import TicketStore
from fastsse.auth.tickets import _RIGHTS_BYTES_MAX, Opened, Tickets, TicketService
from fastsse.control.service import MemoryControlStore
from fastsse.errors import FastsseError, Unauthorised, Unavailable
from tests.auth.onenode import got

NOW_S = 1_800_000_000.0
NAME, COOKIE, PROOF = b"n" * 16, b"c" * 16, b"p" * 32


class Store:
    """A store that shows lifetimes. With `loses` another client was first in the meantime, with the
    same cookie."""

    def __init__(self, *, loses: bool = False) -> None:
        self.one_time_store = self
        self.entries: dict[bytes, tuple[bytes, int]] = {}
        self.loses = loses

    def put(self, key: bytes, value: bytes, life_ms: int, done: Callable[[bool], None]) -> None:
        self.entries[key] = (value, life_ms)
        done(not self.loses)

    def get(self, key: bytes, done: Callable[[Any], None]) -> None:
        done(self.entries.get(key, (None, 0))[0])

    def exchange(
        self, key: bytes, value: bytes, life_ms: int, done: Callable[[bytes | None], None]
    ) -> None:
        self.entries[key] = (value, life_ms)
        done(b"before")


def service(store: Store) -> TicketService:
    made: Any = store
    return TicketService(lambda message: None, made, lambda events, done: None, lambda: NOW_S)


def asked(one: TicketService, message: bytes) -> bytes:
    answer = got(one.on_request, 0, message)
    assert isinstance(answer, bytes)
    return answer


def test_the_stream_of_a_ticket_is_kept_as_long_as_is_said() -> None:
    """Also a stream whose name makes the request as long as one that opens a ticket."""
    store = Store()
    for stream in (b"s" * 16, b"s" * 40):
        assert asked(service(store), b"l" + NAME + (5000).to_bytes(8) + stream) == b"+before"
        assert store.entries[b"s" + NAME] == (stream, 5000)


@pytest.mark.parametrize(
    ("left_s", "life_ms"), [(10.0, 10_000), (0.004, 4), (-5.0, 1), (None, 86_400_000)]
)
def test_an_opened_ticket_is_kept_until_its_token_ends(left_s: float | None, life_ms: int) -> None:
    store = Store()
    ends_s = None if left_s is None else NOW_S + left_s
    store.entries[b"i" + NAME] = (Rights(expires_s=ends_s).pack(), 1)
    assert asked(service(store), b"o" + NAME + PROOF + COOKIE)[:1] == b"1"
    assert store.entries[b"b" + NAME][1] == pytest.approx(life_ms, abs=0.5)


def test_of_two_clients_at_once_the_later_is_compared_with_the_first() -> None:
    store = Store(loses=True)
    store.entries[b"i" + NAME] = (ANONYMOUS.pack(), 1)
    # The one that was first has the fingerprint of this one.
    assert asked(service(store), b"o" + NAME + PROOF + COOKIE)[:1] == b"2"


class Control:
    """A control service that gives one answer, and what it was asked."""

    def __init__(self, answer: bytes | FastsseError) -> None:
        self._answer = answer
        self.messages: list[bytes] = []

    def ask(self, subject: str, message: bytes, done: Callable[[Any], None]) -> None:
        self.messages.append(message)
        done(self._answer)


def tickets(answer: bytes | FastsseError, lifetime_s: float = 5.0) -> tuple[Tickets, Control]:
    one = Control(answer)
    return Tickets(one, lifetime_s, lambda: NOW_S), one  # type: ignore[arg-type]


def test_a_ticket_waits_for_its_first_open_as_long_as_is_configured() -> None:
    one, control = tickets(b"+", 7.5)
    assert len(got(one.issue, ANONYMOUS)) == 32
    (message,) = control.messages
    assert int.from_bytes(message[17:25]) == 7500


def test_rights_of_the_largest_size_get_a_ticket_and_larger_ones_do_not() -> None:
    empty = len(Rights(payload="").pack())
    one, _ = tickets(b"+")
    assert isinstance(got(one.issue, Rights(payload="x" * (_RIGHTS_BYTES_MAX - empty))), str)
    refused = got(one.issue, Rights(payload="x" * (_RIGHTS_BYTES_MAX - empty + 1)))
    assert isinstance(refused, Unavailable)
    assert refused.retry_after_s == 1


@pytest.mark.parametrize("answer", [b"-", Unavailable("control", 30)])
def test_a_ticket_that_is_not_stored_is_asked_for_again_a_second_later(answer: Any) -> None:
    refused = got(tickets(answer)[0].issue, ANONYMOUS)
    assert isinstance(refused, Unavailable)
    assert refused.retry_after_s == 1


@pytest.mark.parametrize("answer", [b"!", Unavailable("control", 30)])
def test_a_store_that_can_not_be_asked_is_no_refusal_of_the_ticket(answer: Any) -> None:
    refused = got(tickets(answer)[0].open, b"t" * 32, {}, "n")
    assert isinstance(refused, Unavailable)
    assert refused.retry_after_s == 1


@pytest.mark.parametrize(
    ("left_s", "age"), [(90.0, b"90"), (0.75, b"1"), (0.25, b"1"), (0.0, None), (-1.0, None)]
)
def test_the_cookie_of_a_ticket_ends_with_its_token(left_s: float, age: bytes | None) -> None:
    one, _ = tickets(b"1" + Rights(expires_s=NOW_S + left_s).pack())
    given = got(one.open, b"t" * 32, {}, "n")
    if age is None:
        assert isinstance(given, Unauthorised)
    else:
        assert isinstance(given, Opened)
        assert given.cookie is not None
        assert given.cookie.endswith(b"; Max-Age=" + age)


@pytest.mark.parametrize(
    ("left_s", "life_ms"), [(10.0, 10_000), (0.0001, 1), (-1.0, 1), (None, 86_400_000)]
)
def test_a_worker_says_how_long_the_stream_of_a_ticket_counts(
    left_s: float | None, life_ms: int
) -> None:
    one, control = tickets(b"-")
    ends_s = None if left_s is None else NOW_S + left_s
    one.note_stream(Opened(Rights(expires_s=ends_s), NAME, None), b"s", lambda before: None)
    (message,) = control.messages
    assert message == b"l" + NAME + life_ms.to_bytes(8) + b"s"


def test_what_is_stored_under_a_name_stays_until_its_end() -> None:
    store = TicketStore(MemoryControlStore(), lambda: NOW_S)
    assert got(store.put, b"name", b"first", 1000) is True
    assert got(store.put, b"name", b"second", 1000) is False
    assert got(store.get, b"name") == b"first"


def test_what_is_renewed_stays_longer_and_what_is_gone_is_not_renewed() -> None:
    now_s = NOW_S
    store = TicketStore(MemoryControlStore(), lambda: now_s)
    assert got(store.renew, b"name", 1000) is False
    got(store.put, b"name", b"value", 1000)
    assert got(store.renew, b"name", 3000) is True
    now_s += 2
    assert got(store.get, b"name") == b"value"
    now_s += 1
    assert got(store.get, b"name") is None, "it ends at its time"


def test_a_ticket_that_is_opened_again_and_again_takes_no_more_memory() -> None:
    store = TicketStore(MemoryControlStore(), lambda: NOW_S)
    tracemalloc.start()
    try:
        for number in range(50_000):
            got(store.exchange, b"stream", b"%d" % number, 86_400_000)
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()
    assert got(store.get, b"stream") == b"49999"


class Clock:
    now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


def names_in(store: TicketStore, *names: bytes) -> list[bytes]:
    return [name for name in names if got(store.get, name) is not None]


def test_entries_are_kept_up_to_the_bound_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticket_store, "ENTRIES_BYTES_MAX", 3 * 108)
    store = TicketStore(MemoryControlStore(), lambda: NOW_S)
    names = [b"a", b"b", b"c", b"d"]
    for name in names[:3]:
        assert got(store.put, name, b"x" * 100, 1000) is True
    assert names_in(store, *names) == names[:3]
    assert got(store.put, b"d", b"x" * 100, 1000) is True
    assert names_in(store, *names) == names[1:], "the one unused longest makes room"
    assert got(store.put, b"a", b"x" * 317, 1000) is False, "more than all of it"
    assert len(store) == 0


def test_an_entry_that_is_replaced_counts_once_and_is_the_newest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ticket_store, "ENTRIES_BYTES_MAX", 2 * 108)
    store = TicketStore(MemoryControlStore(), lambda: NOW_S)
    for name in (b"a", b"b"):
        got(store.put, name, b"x" * 100, 1000)
    for letter in (b"y", b"z"):
        got(store.exchange, b"a", letter * 100, 1000)
    assert names_in(store, b"b", b"a") == [b"b", b"a"]
    got(store.exchange, b"b", b"y" * 100, 1000)
    got(store.put, b"c", b"x" * 100, 1000)
    assert names_in(store, b"a", b"b", b"c") == [b"b", b"c"]


def test_ends_without_an_entry_are_bounded_and_the_others_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ticket_store, "_ENDS_KEPT", 3)
    clock = Clock()
    store = TicketStore(MemoryControlStore(), clock)
    # Used in this order, and they end in the other.
    names = (b"a", b"b", b"c")
    for name, life_ms in zip(names, (9_000, 6_000, 3_000), strict=True):
        got(store.put, name, b"x", life_ms)
    counts = []
    for _ in range(7):
        for name, life_ms in zip(names, (9_000, 6_000, 3_000), strict=True):
            got(store.exchange, name, b"y", life_ms)
            counts.append(len(store._ends))
    # Three more than two for each entry.
    assert max(counts) == 9
    assert counts[5:7] == [9, 3]
    for left in (names, names[:2], names[:1], ()):
        assert names_in(store, *names) == list(left)
        clock.now_s += 3
