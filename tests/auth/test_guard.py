"""What requests show, where, and who wins; tickets, renewal and revocation of a node."""

import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from fastsse.auth import revocations as revocations_module
from fastsse.auth import tickets as tickets_module
from fastsse.auth.credentials import credentials, page_origin
from fastsse.auth.guard import DESKS, Guard, Pending, make_guard
from fastsse.auth.renewal import check_renewal
from fastsse.auth.revocations import Revocation, RevocationDesk, Revocations
from fastsse.auth.rights import ANONYMOUS, REVOKE_TOPIC, Rights, claim_hash
from fastsse.auth.tickets import TicketDesk, Tickets
from fastsse.config import Config
from fastsse.desks.control import Answer, LocalControl, MemoryStore
from fastsse.errors import BadRequest, FastsseError, Forbidden, Refused, Unauthorised
from fastsse.events import Event
from tests.auth.conftest import control, guard_of
from tests.auth.minting import OTHER_SECRET, SECRET, grants, mint

GOOD = mint()
BAD = mint(key=OTHER_SECRET)
COOKIE = b"mercureAuthorization"


def bearer(raw: bytes, **more: bytes) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + raw, **{k.encode(): v for k, v in more.items()}}


def cookie(raw: bytes, **more: bytes) -> dict[bytes, bytes]:
    return {b"cookie": COOKIE + b"=" + raw, **{k.encode(): v for k, v in more.items()}}


def query(raw: bytes) -> list[tuple[str, str]]:
    return [("topic", "a"), ("authorization", raw.decode())]


# --- Where a token is (A1, A2)


@pytest.mark.parametrize("mercure", [False, True])
@pytest.mark.parametrize(
    ("headers", "pairs", "source"),
    [
        (bearer(GOOD), [], "header"),
        ({}, query(GOOD), "query"),
        (cookie(GOOD), [], "cookie"),
        ({**bearer(GOOD), **cookie(BAD)}, query(BAD), "header"),
        (cookie(BAD), query(GOOD), "query"),
        ({b"cookie": b"a=b; " + COOKIE + b'="' + GOOD + b'"; c=d'}, [], "cookie"),
    ],
)
def test_header_query_and_cookie_are_taken_in_this_order(
    headers: dict[bytes, bytes], pairs: list[tuple[str, str]], source: str, mercure: bool
) -> None:
    found = credentials(headers, pairs, COOKIE, mercure=mercure)
    assert found == (GOOD, source)
    assert guard_of(jwt_key=SECRET).subscriber(headers, pairs, mercure=mercure)


@pytest.mark.parametrize("mercure", [False, True])
@pytest.mark.parametrize(
    ("headers", "pairs"),
    [
        ({**bearer(BAD), **cookie(GOOD)}, query(GOOD)),
        ({b"authorization": b"", **cookie(GOOD)}, query(GOOD)),
        ({b"authorization": b"Basic dXNlcjpwYXNz", **cookie(GOOD)}, []),
        ({b"authorization": b"Bearer", **cookie(GOOD)}, []),
        ({b"authorization": GOOD, **cookie(GOOD)}, []),
        (cookie(GOOD), query(BAD)),
        (cookie(GOOD), [("authorization", "")]),
        ({}, query(GOOD) + query(GOOD)),
        ({}, [*query(GOOD), ("ticket", "a" * 32)]),
        ({b"cookie": COOKIE + b"=" + GOOD + b"; " + COOKIE + b"=" + GOOD}, []),
        (cookie(b""), []),
        (cookie(BAD), []),
    ],
)
def test_a_higher_one_that_is_present_decides_even_when_bad(
    headers: dict[bytes, bytes], pairs: list[tuple[str, str]], mercure: bool
) -> None:
    guard = guard_of(jwt_key=SECRET, anonymous=True)
    with pytest.raises(Unauthorised):
        guard.subscriber(headers, pairs, mercure=mercure)
    with pytest.raises(Unauthorised):
        guard.publisher(headers, pairs, mercure=mercure)


def test_on_mercures_path_short_tokens_and_another_spelling_of_bearer_are_refused() -> None:
    for headers, pairs in (
        ({b"authorization": b"bearer " + GOOD}, []),
        ({b"authorization": b"BEARER " + GOOD}, []),
        ({b"authorization": b"Bearer " + b"a" * 40}, []),
        ({}, [("authorization", "a" * 40)]),
    ):
        with pytest.raises(Unauthorised, match=r"Bearer and a token|no token"):
            credentials(headers, pairs, COOKIE, mercure=True)
        assert credentials(headers, pairs, COOKIE)
    assert credentials({b"authorization": b"Bearer " + b"a" * 41}, [], COOKIE, mercure=True)
    assert credentials({}, [("authorization", "a" * 41)], COOKIE, mercure=True)


@pytest.mark.parametrize(
    "cookies",
    [b"", b";;;", b"=", COOKIE, COOKIE.lower() + b"=x", b"x" + COOKIE + b"=x", b"\xff\0=" * 1000],
)
def test_other_cookies_are_no_token(cookies: bytes) -> None:
    assert credentials({b"cookie": cookies}, [], COOKIE) is None


def test_the_cookie_has_the_name_that_is_configured() -> None:
    guard = guard_of(jwt_key=SECRET, jwt_cookie="__Host-token")
    assert guard.subscriber({b"cookie": b"__Host-token=" + GOOD}, ())
    with pytest.raises(Unauthorised, match="needs a token"):
        guard.subscriber(cookie(GOOD), ())


def test_without_a_token_only_the_anonymous_option_lets_readers_in() -> None:
    with pytest.raises(Unauthorised, match="needs a token"):
        guard_of(jwt_key=SECRET).subscriber({}, ())
    guard = guard_of(jwt_key=SECRET, anonymous=True)
    assert guard.subscriber({}, ()) is ANONYMOUS
    assert not ANONYMOUS.covers_subscribe(["a"])
    with pytest.raises(Unauthorised, match="needs a token"):
        guard.publisher({}, ())


def test_with_a_key_for_publishers_alone_a_readers_token_is_refused() -> None:
    guard = guard_of(publisher_jwt_key=SECRET, anonymous=True)
    assert guard.subscriber({}, ()) is ANONYMOUS
    with pytest.raises(Unauthorised):
        guard.subscriber(bearer(GOOD), ())


# --- Cookies and pages (A3, 3.7)


def cookie_guard() -> Guard:
    guard = make_guard(Config(jwt_key=SECRET), control(), {b"https://app.example"})
    assert guard is not None
    return guard


@pytest.mark.parametrize(
    "page",
    [
        {"origin": b"https://app.example"},
        {"referer": b"https://app.example/page?x=y"},
        {"origin": b"https://app.example", "referer": b"https://evil.example/"},
    ],
)
def test_an_allowed_page_publishes_by_cookie(page: dict[str, bytes]) -> None:
    assert cookie_guard().publisher(cookie(GOOD, **page), ())


@pytest.mark.parametrize(
    "page",
    [
        {},
        {"origin": b"https://evil.example"},
        {"origin": b"null"},
        {"origin": b""},
        {"origin": b"https://evil.example", "referer": b"https://app.example/"},
        {"origin": b"https://app.example.evil.example"},
        {"referer": b"https://app.example.evil.example/"},
        {"referer": b"https://app.example@evil.example/"},
        {"referer": b"https://user@app.example/"},
        {"referer": b"http://app.example/"},
        {"referer": b"https://app.example:444/"},
        {"referer": b"/relative"},
        {"referer": b"https://[bad/"},
        {"referer": b"//app.example/"},
        {"referer": b""},
    ],
)
def test_a_page_that_is_not_allowed_can_not_publish_by_cookie(page: dict[str, bytes]) -> None:
    guard = cookie_guard()
    with pytest.raises(Unauthorised, match="cookie"):
        guard.publisher(cookie(GOOD, **page), ())
    assert guard.subscriber(cookie(GOOD, **page), ()), "reading needs no page"


def test_a_header_or_query_needs_no_page() -> None:
    assert cookie_guard().publisher(bearer(GOOD, origin=b"https://evil.example"), ())
    assert cookie_guard().publisher({b"origin": b"https://evil.example"}, query(GOOD))


def test_a_referer_of_any_bytes_is_an_origin_or_none() -> None:
    for referer in (b"\xff\xfe://x/", b"https://\xc3\xa9/", b"https://a:99999/", b"a" * 9000):
        assert page_origin({b"referer": referer}) is None or isinstance(
            page_origin({b"referer": referer}), bytes
        )


# --- Rights


def test_every_topic_of_a_publish_must_be_granted() -> None:
    rights = Rights(publish=["a", "https://x/{id}", "b/*"])
    for topics in (["a"], ["https://x/1"], ["a", "https://x/1"], ["b/*"], ["https://x/{id}"]):
        rights.check_publish(topics)
    for topics in (["b"], ["a", "b"], ["https://x/1/2"], ["b/c"], ["A"], ["a", "*"]):
        assert not rights.covers_publish(topics)
        with pytest.raises(Forbidden, match="publish"):
            rights.check_publish(topics)
    assert Rights(publish=["*"]).covers_publish(["anything", "*"])
    assert not Rights().covers_publish(["a"])


def test_one_topic_of_a_private_event_must_be_granted() -> None:
    rights = Rights(subscribe=["user/{id}"])
    assert rights.covers_subscribe(["news", "user/7"])
    assert not rights.covers_subscribe(["news"])
    assert not Rights().covers_subscribe(["news"])


def test_hashes_of_claims_are_64_bits_and_never_the_none_of_no_claim() -> None:
    hashes = {claim_hash(f"user-{number}") for number in range(10_000)}
    assert len(hashes) == 10_000
    assert all(0 < one < 1 << 64 for one in hashes)
    assert claim_hash(None) == 0
    assert claim_hash("a") == claim_hash("a")


def test_hashes_differ_from_process_to_process() -> None:
    """So that nobody can look for a subject whose hash is another's."""
    import subprocess
    import sys

    program = "from fastsse.auth.rights import claim_hash; print(claim_hash('a'))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) != claim_hash("a")


# --- Tickets


class Clock:
    def __init__(self) -> None:
        self.now_s = time.time()

    def __call__(self) -> float:
        return self.now_s


class Node:
    """A node of several workers around one control, as far as rights go."""

    def __init__(self, store: MemoryStore | None = None, **options: Any) -> None:
        self.clock = Clock()
        makers = {
            "tickets": lambda *ways: TicketDesk(*ways, self.clock),
            "revocations": lambda *ways: RevocationDesk(*ways, self.clock),
        }
        self.store = store or MemoryStore()
        self.control = LocalControl(makers, lambda events: None, self.store)
        config = Config(**{"jwt_key": SECRET, **options})
        guards = [make_guard(config, self.control, (), self.clock) for _ in range(2)]
        self.one, self.other = [guard for guard in guards if guard is not None]


def got(begin: Callable[..., None], *arguments: Any) -> Any:
    """What a callback is given, within the call."""
    outcomes: list[Any] = []
    begin(*arguments, outcomes.append)
    (outcome,) = outcomes
    return outcome


def spend(guard: Guard, ticket: str) -> Rights | FastsseError | None:
    with pytest.raises(Pending) as caught:
        guard.subscriber({}, [("topic", "a"), ("ticket", ticket)])
    outcome: Rights | FastsseError | None = got(caught.value.wait)
    return outcome


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


# --- Revocation


NOW = int(time.time())


def token(**claims: Any) -> bytes:
    return mint({**grants(), "iat": NOW - 100, **claims})


@pytest.mark.parametrize(
    ("body", "ended", "kept"),
    [
        ({"jti": "7"}, [{"jti": "7"}], [{"jti": "8"}, {}]),
        ({"sub": "me"}, [{"sub": "me"}, {"sub": "me", "iat": NOW}], [{"sub": "you"}, {}]),
        ({"issued_before": NOW - 50}, [{}, {"sub": "x"}], [{"iat": NOW - 50}, {"iat": NOW - 10}]),
        (
            {"sub": "me", "issued_before": NOW - 50},
            [{"sub": "me"}],
            [{"sub": "me", "iat": NOW - 10}, {"sub": "you"}],
        ),
        (
            {"sub": "me", "jti": "7"},
            [{"sub": "me", "jti": "7"}],
            [{"sub": "me"}, {"jti": "7"}, {"sub": "me", "jti": "8"}],
        ),
    ],
    ids=str,
)
def test_a_revocation_holds_for_what_it_names_in_every_worker(
    body: dict[str, Any], ended: list[dict[str, Any]], kept: list[dict[str, Any]]
) -> None:
    node = Node()
    for claims in ended + kept:  # They are remembered, which must not save them.
        assert node.other.subscriber(bearer(token(**claims)), ())
    assert got(node.one.revocations.revoke, Revocation.of_json(orjson.dumps(body))) is None
    for guard in (node.one, node.other):
        for claims in ended:
            for ask in (guard.subscriber, guard.publisher):
                with pytest.raises(Unauthorised, match="revoked"):
                    ask(bearer(mint({**grants(publish=["*"]), "iat": NOW - 100, **claims})), ())
        for claims in kept:
            assert guard.subscriber(bearer(token(**claims)), ())


def test_a_token_that_tells_no_iat_counts_as_old() -> None:
    node = Node()
    assert got(node.one.revocations.revoke, Revocation(None, None, 5.0, 1e11)) is None
    with pytest.raises(Unauthorised, match="revoked"):
        node.one.subscriber(bearer(mint(grants())), ())


def test_streams_are_named_to_the_core_as_they_were_attached() -> None:
    node = Node()
    calls: list[tuple[int, int, int]] = []
    node.other.revocations.on_revoked = lambda *call: calls.append(call)
    rights = Rights(subject="me", token_id="7", issued_s=99.9)
    for body in ({"jti": "7"}, {"sub": "me", "issued_before": 99.5}, {"issued_before": 100}):
        got(node.one.revocations.revoke, Revocation.of_json(orjson.dumps(body)))
    _, subject, token_id, issued_s = rights.claims
    assert calls == [(0, token_id, 0), (subject, 0, 100), (0, 0, 100)]
    assert issued_s == 99


def test_revocations_outlive_a_restart_and_a_new_worker_knows_them() -> None:
    store = MemoryStore()
    node = Node(store)
    got(node.one.revocations.revoke, Revocation("7", None, None, 1e11))
    for guard in (Node(store).one, make_guard(Config(jwt_key=SECRET), node.control)):
        assert guard is not None
        with pytest.raises(Unauthorised, match="revoked"):
            guard.subscriber(bearer(token(jti="7")), ())


def test_a_revocation_is_forgotten_when_its_tokens_have_ended() -> None:
    node = Node()
    got(node.one.revocations.revoke, Revocation("7", None, None, node.clock() + 10))
    assert len(node.store.items()) == 1
    node.clock.now_s += 11
    assert node.one.subscriber(bearer(token(jti="7")), ())
    node.one.revocations.learn()
    node.one.revocations.forget_ended()
    assert not node.store.items()
    assert not node.one.revocations._by_token


def test_a_worker_learns_very_many_revocations_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations_module, "_PAGE", 7)
    store = MemoryStore()
    node = Node(store)
    for number in range(50):
        got(node.one.revocations.revoke, Revocation(str(number), None, None, 1e11))
    fresh = Node(store).one.revocations
    assert len(fresh._by_token) == 50
    answer = got(node.control.ask, "revocations", b"?")
    assert len(orjson.loads(answer)[1]) == 7


def test_a_desk_that_began_anew_is_told_what_was_revoked() -> None:
    node = Node()
    got(node.one.revocations.revoke, Revocation("7", None, None, 1e11))
    calls: list[tuple[int, int, int]] = []
    node.one.revocations.on_revoked = lambda *call: calls.append(call)
    desk = RevocationDesk(lambda message: None, MemoryStore(), lambda events: None)
    node.control.desks._desks["revocations"] = desk
    for back in node.control.on_back:
        back()
    assert [one.jti for one in desk._kept.values()] == ["7"]
    assert not calls, "what is known ends nothing again"


def test_a_repeated_revocation_is_one_and_lasts_longest() -> None:
    node = Node()
    for end_s in (20, 10, 15):
        got(node.one.revocations.revoke, Revocation("7", None, None, node.clock() + end_s))
    assert len(node.store.items()) == 1
    node.clock.now_s += 16
    with pytest.raises(Unauthorised, match="revoked"):
        node.one.subscriber(bearer(token(jti="7")), ())


def test_revocations_are_bounded_and_the_surplus_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node()
    monkeypatch.setattr(revocations_module, "REVOCATIONS_MAX", 3)
    answers = [
        got(node.one.revocations.revoke, Revocation(str(n), None, None, node.clock() + 10))
        for n in range(4)
    ]
    assert answers[:3] == [None] * 3
    assert isinstance(answers[3], Refused)
    node.clock.now_s += 11
    assert got(node.one.revocations.revoke, Revocation("x", None, None, 1e11)) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"expires":9}',
        b'{"jti":""}',
        b'{"jti":7}',
        b'{"jti":null}',
        b'{"sub":["a"]}',
        b'{"jit":"7"}',
        b'{"jti":"7","all":true}',
        b'{"issued_before":"1"}',
        b'{"issued_before":true}',
        b'{"issued_before":0}',
        b'{"issued_before":-1}',
        b'{"issued_before":1e300}',
        b'{"jti":"7","expires":1e300}',
        b'{"jti":"%b"}' % (b"x" * 1025),
        b'{"jti":"\\ud800"}',
    ],
)
def test_a_revocation_that_says_nothing_clear_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        Revocation.of_json(body)


def test_only_a_publisher_of_the_reserved_topic_may_revoke() -> None:
    Rights(publish=["*"]).check_publish((REVOKE_TOPIC,))
    Rights(publish=[REVOKE_TOPIC]).check_publish((REVOKE_TOPIC,))
    for publish in ([], ["a"], ["{x}"], ["{+x}"], ["{+x}/revoke"], ["$fastsse"]):
        assert not Rights(publish=publish).covers_publish((REVOKE_TOPIC,))
    with pytest.raises(BadRequest, match="reserved"):
        Event(REVOKE_TOPIC)


def test_a_revocation_of_nobody_costs_nothing() -> None:
    revocations = Revocations(LocalControl(DESKS, lambda events: None))
    assert not revocations.covers(Rights(subject="me", token_id="7"))


# --- Renewal


@pytest.mark.parametrize(
    ("fresh", "fits"),
    [
        (Rights(subscribe=["a", "b"], subject="me"), True),
        (Rights(subscribe=["a", "b", "c"], subject="me"), True),
        (Rights(subscribe=["*"], subject="me"), True),
        (Rights(subscribe=["a"], subject="me"), False),
        (Rights(subject="me"), False),
        (Rights(subscribe=["{x}"], subject="me"), False),
        (Rights(subscribe=["a", "b"], subject="you"), False),
        (Rights(subscribe=["a", "b"]), False),
    ],
    ids=str,
)
def test_a_fresh_token_must_be_the_same_subjects_and_grant_as_much(
    fresh: Rights, fits: bool
) -> None:
    held = Rights(subscribe=["a", "b"], subject="me")
    if fits:
        check_renewal(held, fresh)
    else:
        with pytest.raises(Forbidden):
            check_renewal(held, fresh)


def test_what_was_granted_everything_needs_everything_again() -> None:
    with pytest.raises(Forbidden):
        check_renewal(Rights(subscribe=["*"]), Rights(subscribe=["a"]))


def test_renewal_tells_the_core_the_new_end() -> None:
    rights = Rights(token_id="9", issued_s=5, expires_s=7.5)
    assert rights.renewal == (7500, claim_hash("9"), 5)


def test_a_worker_speaks_of_tickets_it_can_not_count() -> None:
    node = Node()
    assert isinstance(Tickets(node.control, 1.0), Tickets)
    assert isinstance(got(node.control.ask, "tickets", b"nonsense"), bytes)
