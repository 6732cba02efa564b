"""A ticket carries rights to any worker, for the client that opened it first."""

from collections.abc import Callable
from typing import Any

import pytest

from fastsse.auth import ticket_store
from fastsse.auth.guard import Pending, make_guard
from fastsse.auth.revocations import Revocation
from fastsse.auth.rights import ANONYMOUS, Rights
from fastsse.auth.tickets import Tickets
from fastsse.config import Config
from fastsse.control.service import Answer, LocalControlClient, MemoryControlStore
from fastsse.errors import Unauthorised, Unavailable
from tests.auth.conftest import control
from tests.auth.minting import SECRET, grants, mint
from tests.auth.onenode import Node, bearer, got, opened, spend

GOOD = mint()


def test_a_ticket_carries_the_rights_of_its_token_to_any_worker() -> None:
    node = Node()
    claims = {**grants(subscribe=["b", "a"], publish=["*"], payload={"n": 1}), "sub": "me"}
    rights = node.one.subscriber(bearer(mint({**claims, "jti": "7", "iat": 9})), ())
    ticket = got(node.one.tickets.issue, rights)
    spent = spend(node.other, ticket)
    assert isinstance(spent, Rights)
    assert (spent.subscribe, spent.payload, spent.subject) == (("a", "b"), {"n": 1}, "me")
    assert spent.claims == rights.claims
    assert spent.publish == ()
    for guard in (node.one, node.other):
        again = spend(guard, ticket)
        assert isinstance(again, Rights)
        assert again.claims == rights.claims


def test_tickets_are_long_random_and_fit_into_a_url() -> None:
    node = Node()
    tickets = {got(node.one.tickets.issue, ANONYMOUS) for _ in range(100)}
    assert len(tickets) == 100
    for ticket in tickets:
        assert len(ticket) == 32
        assert ticket.replace("-", "").replace("_", "").isalnum()


def test_a_ticket_ends_after_its_lifetime() -> None:
    node = Node(ticket_lifetime="5s")
    first, second = (got(node.one.tickets.issue, ANONYMOUS) for _ in range(2))
    node.clock.now_s += 4.9
    assert isinstance(spend(node.one, first), Rights)
    node.clock.now_s += 0.2
    assert isinstance(spend(node.one, second), Unauthorised)
    assert isinstance(spend(node.one, first), Rights), "what was opened stays"


CHROME = {b"user-agent": b"Chrome", b"origin": b"https://a.example"}


def issued(node: Node, **claims: Any) -> str:
    raw = mint({**grants(subscribe=["a"]), **claims})
    ticket: str = got(node.one.tickets.issue, node.one.subscriber(bearer(raw), ()))
    return ticket


def test_a_client_returns_with_its_cookie_from_anywhere() -> None:
    node = Node()
    ticket = issued(node)
    rights, cookie = opened(node.one, ticket, CHROME)
    assert isinstance(rights, Rights)
    assert cookie is not None
    moved = {b"user-agent": b"Chrome 2", b"cookie": b"a=b; " + cookie + b"; c=d"}
    rights, second = opened(node.other, ticket, moved, "elsewhere")
    assert isinstance(rights, Rights)
    assert second is None, "the cookie is given once"


@pytest.mark.parametrize(
    ("headers", "network"),
    [
        ({**CHROME, b"user-agent": b"curl"}, "n"),
        ({**CHROME, b"origin": b"https://evil.example"}, "n"),
        ({b"user-agent": b"Chrome"}, "n"),
        (CHROME, "elsewhere"),
        ({b"user-agent": b"Chromehttps://a.example"}, "n"),
        ({b"cookie": b"fastsse-ticket-0=x; fastsse-ticket-1=x; fastsse-ticket-2="}, "n"),
    ],
)
def test_another_client_is_refused_and_the_first_stays(
    headers: dict[bytes, bytes], network: str
) -> None:
    node = Node()
    ticket = issued(node)
    assert isinstance(spend(node.one, ticket, CHROME), Rights)
    assert isinstance(spend(node.other, ticket, headers, network), Unauthorised)
    assert isinstance(spend(node.other, ticket, CHROME), Rights)


def test_a_cookie_of_another_ticket_opens_nothing() -> None:
    node = Node()
    one, other = issued(node), issued(node)
    _, cookie = opened(node.one, one, CHROME)
    assert cookie is not None
    assert isinstance(spend(node.one, other, {b"user-agent": b"curl"}), Rights)
    value = cookie.partition(b"=")[2]
    every = b"; ".join(b"fastsse-ticket-%x=%b" % (slot, value) for slot in range(16))
    assert isinstance(spend(node.one, other, {b"cookie": every}, "x"), Unauthorised)


def test_an_opened_ticket_ends_at_its_tokens_exp_and_not_before() -> None:
    node = Node()
    ticket = issued(node, exp=node.clock() + 3600)
    for _ in range(60):
        assert isinstance(spend(node.other, ticket, CHROME), Rights)
        node.clock.now_s += 59.9
    node.clock.now_s += 7
    assert isinstance(spend(node.other, ticket, CHROME), Unauthorised)


def test_an_opened_ticket_outlives_a_restart_with_its_store() -> None:
    store = MemoryControlStore()
    ticket = issued(node := Node(store))
    _, cookie = opened(node.one, ticket, CHROME)
    assert cookie is not None
    again = Node(store)
    assert isinstance(spend(again.one, ticket, {b"cookie": cookie}, "x"), Rights)
    assert isinstance(spend(again.one, ticket, {}, "x"), Unauthorised)


def test_each_new_stream_of_a_ticket_replaces_the_one_before() -> None:
    node = Node()
    ticket = issued(node)
    before: list[bytes] = []
    for number in range(4):
        with pytest.raises(Pending) as caught:
            node.one.subscriber(CHROME, [("ticket", ticket)])
        got(caught.value.wait)
        assert caught.value.opened is not None
        node.other.tickets.note_stream(caught.value.opened, b"%d" % number, before.append)
    assert before == [b"0", b"1", b"2"]


def test_a_ticket_ends_with_its_token() -> None:
    node = Node()
    raw = mint({"mercure": {}, "exp": node.clock() + 3})
    ticket = got(node.one.tickets.issue, node.one.subscriber(bearer(raw), ()))
    node.clock.now_s += 4
    assert isinstance(spend(node.one, ticket), Unauthorised)


def test_a_ticket_of_a_revoked_token_is_refused() -> None:
    node = Node()
    rights = node.one.subscriber(bearer(mint({**grants(), "jti": "7"})), ())
    ticket = got(node.one.tickets.issue, rights)
    assert got(node.other.revocations.revoke, Revocation("7", None, None, 1e11)) is None
    outcome = spend(node.one, ticket)
    assert isinstance(outcome, Unauthorised)
    assert "revoked" in str(outcome)


@pytest.mark.parametrize("ticket", ["", "a", "a" * 31, "a" * 33, "é" * 16, "a" * 32, "\0" * 32])
def test_a_made_up_ticket_is_refused(ticket: str) -> None:
    outcome = spend(Node().one, ticket)
    assert isinstance(outcome, Unauthorised)
    assert len(ticket) < 30 or ticket not in str(outcome)


def test_a_ticket_can_not_publish_and_is_spent_by_no_such_try() -> None:
    node = Node()
    ticket = got(node.one.tickets.issue, Rights(publish=["*"]))
    with pytest.raises(Unauthorised, match="ticket"):
        node.one.publisher({}, [("ticket", ticket)])
    assert isinstance(spend(node.one, ticket), Rights)


def test_asking_without_waiting_spends_nothing() -> None:
    node = Node()
    ticket = got(node.one.tickets.issue, ANONYMOUS)
    for _ in range(3):
        with pytest.raises(Pending):
            node.one.subscriber({}, [("ticket", ticket)])
    assert isinstance(spend(node.one, ticket), Rights)


def test_tickets_are_bounded_by_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node()
    monkeypatch.setattr(ticket_store, "ENTRIES_MAX", 6)
    used = issued(node)
    unused = issued(node)
    for _ in range(10):
        assert isinstance(spend(node.one, used), Rights)
        issued(node)
    one_time_store = node.control.services["tickets"]._one_time_store  # type: ignore[attr-defined]
    assert len(one_time_store) == 6
    assert isinstance(spend(node.one, unused), Unauthorised), "unused longest"
    assert isinstance(spend(node.one, used), Rights)
    monkeypatch.setattr(ticket_store, "ENTRIES_BYTES_MAX", 600)
    issued(node)
    assert one_time_store._bytes <= 600
    node.clock.now_s += 100_000
    got(node.one.tickets.issue, ANONYMOUS)
    assert len(one_time_store) == 1, "the ended make room"
    assert len(node.store.items("tickets/")) == 1
    big = Rights(payload="x" * (64 * 1024))
    assert isinstance(got(node.one.tickets.issue, big), Unavailable)


def test_the_desk_does_not_know_tickets_and_cookies_but_by_hash() -> None:
    node = Node()
    ticket = issued(node)
    _, cookie = opened(node.one, ticket)
    assert cookie is not None
    kept = b"".join(key.encode() + value for key, value in node.store.items())
    assert ticket.encode() not in kept
    assert cookie.partition(b"=")[2] not in kept


class Away:
    """A control whose control service can't be reached until it is let."""

    worker = 0

    def __init__(self, control: LocalControlClient) -> None:
        self.control = control
        self.is_away = True
        self.on_back: list[Callable[[], None]] = []
        self.asked: list[tuple[str, bytes, Answer]] = []

    def ask(self, subject: str, message: bytes, done: Answer) -> None:
        if self.is_away:
            done(Unavailable("bus", 1))
        else:
            self.control.ask(subject, message, done)

    def notify(self, subject: str, message: bytes) -> None: ...

    def listen(self, subject: str, on_broadcast: Callable[[bytes], None]) -> None:
        self.control.listen(subject, on_broadcast)


def test_while_the_control_service_is_away_no_ticket_is_accepted() -> None:
    away = Away(control())
    guard = make_guard(Config(jwt_key=SECRET), away)
    assert guard is not None
    with pytest.raises(Pending) as caught:
        guard.subscriber(bearer(GOOD), ())
    assert isinstance(got(caught.value.wait), Unavailable)
    assert isinstance(got(guard.tickets.issue, ANONYMOUS), Unavailable)
    assert isinstance(spend(guard, "a" * 32), Unavailable)
    revocation = Revocation("7", None, None, 1e11)
    assert isinstance(got(guard.revocations.revoke, revocation), Unavailable)
    away.is_away = False
    assert isinstance(got(caught.value.wait), Rights)
    assert guard.subscriber(bearer(GOOD), ())


def test_a_worker_speaks_of_tickets_it_can_not_count() -> None:
    node = Node()
    assert isinstance(Tickets(node.control, 1.0), Tickets)
    assert isinstance(got(node.control.ask, "tickets", b"nonsense"), bytes)
