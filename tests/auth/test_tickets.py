"""A ticket carries rights once, to any worker."""

from collections.abc import Callable

import pytest

from fastsse.auth import tickets as tickets_module
from fastsse.auth.guard import Pending, make_guard
from fastsse.auth.revocations import Revocation
from fastsse.auth.rights import ANONYMOUS, Rights
from fastsse.auth.tickets import Tickets
from fastsse.config import Config
from fastsse.desks.control import Answer, LocalControl
from fastsse.errors import Refused, Unauthorised
from tests.auth.conftest import control
from tests.auth.minting import SECRET, grants, mint
from tests.auth.onenode import Node, bearer, got, spend

GOOD = mint()


def test_a_ticket_carries_the_rights_of_its_token_once_to_any_worker() -> None:
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
        assert isinstance(spend(guard, ticket), Unauthorised)


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
    node.clock.now_s += 0.1
    assert isinstance(spend(node.one, second), Unauthorised)


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
    monkeypatch.setattr(tickets_module, "TICKETS_MAX", 3)
    issued = [got(node.one.tickets.issue, ANONYMOUS) for _ in range(5)]
    assert [isinstance(one, Refused) for one in issued] == [False] * 3 + [True] * 2
    node.clock.now_s += 31
    assert isinstance(got(node.one.tickets.issue, ANONYMOUS), str), "the ended make room"
    monkeypatch.setattr(tickets_module, "TICKETS_MAX_BYTES", 150)
    assert isinstance(got(node.one.tickets.issue, ANONYMOUS), Refused)
    big = Rights(payload="x" * (64 * 1024))
    assert isinstance(got(node.one.tickets.issue, big), Refused)


def test_the_desk_does_not_know_tickets_but_by_hash() -> None:
    node = Node()
    ticket = got(node.one.tickets.issue, ANONYMOUS)
    desk = node.control.desks["tickets"]
    assert ticket.encode() not in b"".join(desk._tickets)  # type: ignore[attr-defined]
    assert all(len(name) == 16 for name in desk._tickets)  # type: ignore[attr-defined]


class Away:
    """A control whose desk can't be reached until it is let."""

    worker = 0

    def __init__(self, control: LocalControl) -> None:
        self.control = control
        self.is_away = True
        self.on_back: list[Callable[[], None]] = []
        self.asked: list[tuple[str, bytes, Answer]] = []

    def ask(self, subject: str, message: bytes, done: Answer) -> None:
        if self.is_away:
            done(Refused("bus", 1))
        else:
            self.control.ask(subject, message, done)

    def tell(self, subject: str, message: bytes) -> None: ...

    def listen(self, subject: str, heard: Callable[[bytes], None]) -> None:
        self.control.listen(subject, heard)


def test_while_the_desk_is_away_nobody_is_let_in_unjudged() -> None:
    away = Away(control())
    guard = make_guard(Config(jwt_key=SECRET), away)
    assert guard is not None
    with pytest.raises(Pending) as caught:
        guard.subscriber(bearer(GOOD), ())
    assert isinstance(got(caught.value.wait), Refused)
    assert isinstance(got(guard.tickets.issue, ANONYMOUS), Refused)
    assert isinstance(spend(guard, "a" * 32), Refused)
    revocation = Revocation("7", None, None, 1e11)
    assert isinstance(got(guard.revocations.revoke, revocation), Refused)
    away.is_away = False
    assert isinstance(got(caught.value.wait), Rights)
    assert guard.subscriber(bearer(GOOD), ())


def test_a_worker_speaks_of_tickets_it_can_not_count() -> None:
    node = Node()
    assert isinstance(Tickets(node.control, 1.0), Tickets)
    assert isinstance(got(node.control.ask, "tickets", b"nonsense"), bytes)
