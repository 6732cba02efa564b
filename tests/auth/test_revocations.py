"""What was revoked is refused by every worker, and stays so."""

import time
from typing import Any

import orjson
import pytest

from fastsse.auth import revocations as revocations_module
from fastsse.auth.guard import SERVICES, make_guard
from fastsse.auth.revocations import Revocation, Revocations, RevocationService
from fastsse.auth.rights import REVOKE_TOPIC, Rights
from fastsse.config import Config
from fastsse.control.service import LocalControlClient, MemoryControlStore
from fastsse.errors import BadRequest, Unauthorised, Unavailable
from fastsse.events import Event
from tests.auth.minting import SECRET, grants, mint
from tests.auth.onenode import Node, bearer, got

NOW = int(time.time())


def token(**claims: Any) -> bytes:
    return mint({**grants(), "iat": NOW - 100, **claims})


@pytest.mark.parametrize(
    ("body", "ended", "kept"),
    [
        ({"jti": "7"}, [{"jti": "7"}], [{"jti": "8"}, {}]),
        (
            {"sub": "me"},
            [{"sub": "me"}, {"sub": "me", "iat": NOW}, {"sub": "me", "jti": "7"}],
            [{"sub": "you"}, {}],
        ),
        (
            {"issued_before": NOW - 50},
            [{}, {"sub": "x"}, {"sub": "x", "jti": "7"}],
            [{"iat": NOW - 50}, {"iat": NOW - 10}],
        ),
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
    ids=["token", "subject", "time", "subject and time", "subject and token"],
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
    store = MemoryControlStore()
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


def test_a_token_is_refused_until_the_end_of_its_revocation() -> None:
    node = Node()
    end_s = node.clock() + 10
    got(node.one.revocations.revoke, Revocation("7", None, None, end_s))
    node.clock.now_s = end_s - 0.1
    with pytest.raises(Unauthorised, match="revoked"):
        node.one.subscriber(bearer(token(jti="7")), ())
    node.clock.now_s = end_s
    assert node.one.subscriber(bearer(token(jti="7")), ())


def test_a_worker_learns_very_many_revocations_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations_module, "_PAGE", 7)
    store = MemoryControlStore()
    node = Node(store)
    for number in range(50):
        got(node.one.revocations.revoke, Revocation(str(number), None, None, 1e11))
    fresh = Node(store).one.revocations
    assert len(fresh._by_token) == 50
    answer = got(node.control.ask, "revocations", b"?")
    assert len(orjson.loads(answer)[1]) == 7


async def test_a_new_control_service_receives_all_revocations() -> None:
    node = Node()
    got(node.one.revocations.revoke, Revocation("7", None, None, 1e11))
    calls: list[tuple[int, int, int]] = []
    node.one.revocations.on_revoked = lambda *call: calls.append(call)
    service = RevocationService(
        lambda message: None, MemoryControlStore(), lambda events, done: done(True)
    )
    node.control.services._services["revocations"] = service
    for back in node.control.on_back:
        back()
    assert [one.jti for one in service._kept.values()] == ["7"]
    assert not calls, "what is known ends nothing again"


def test_a_repeated_revocation_is_one_and_lasts_longest() -> None:
    node = Node()
    for end_s in (20, 10, 15):
        got(node.one.revocations.revoke, Revocation("7", None, None, node.clock() + end_s))
    assert len(node.store.items()) == 1
    node.clock.now_s += 16
    with pytest.raises(Unauthorised, match="revoked"):
        node.one.subscriber(bearer(token(jti="7")), ())


def test_revocations_are_bounded_and_dropped_ones_are_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node()
    monkeypatch.setattr(revocations_module, "REVOCATIONS_MAX", 3)
    answers = [
        got(node.one.revocations.revoke, Revocation(str(n), None, None, node.clock() + 10))
        for n in range(4)
    ]
    assert answers[:3] == [None] * 3
    assert isinstance(answers[3], Unavailable)
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


def test_a_revocation_without_streams_costs_nothing() -> None:
    revocations = Revocations(LocalControlClient(SERVICES, lambda events, done: done(True)))
    assert not revocations.covers(Rights(subject="me", token_id="7"))


def test_a_revocation_of_tokens_that_have_ended_takes_no_memory() -> None:
    node = Node()
    for number in range(10):
        got(node.one.revocations.revoke, Revocation(str(number), None, None, node.clock()))
        got(node.one.revocations.revoke, Revocation(None, str(number), None, node.clock() - 1))
    assert not node.one.revocations._by_token
    assert not node.one.revocations._by_subject
