"""A revocation is answered when every worker that verifies tokens has confirmed it."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from fastsse.auth import revocations
from fastsse.auth.claims import TIME_S_MAX
from fastsse.auth.revocations import Revocation, Revocations, RevocationService
from fastsse.errors import BadRequest, FastsseError, Unavailable

NOW_S = 1_000_000.0
DONE, NOT_DONE = b"+", b"-"


def revocation(number: int, expires: float = NOW_S + 100) -> Revocation:
    return Revocation(f"t{number}", None, None, expires)


class Store:
    """As a store that other nodes write to as well."""

    def __init__(self, *kept: Revocation) -> None:
        self.kept = {one.name: one.pack() for one in kept}
        self.listeners: list[Callable[[str, bytes], None]] = []

    def items(self) -> Any:
        return self.kept.items()

    def put(self, name: str, packed: bytes | None) -> None:
        if packed is None:
            del self.kept[name]
        else:
            self.kept[name] = packed

    def listen(self, prefix: str, on_put: Callable[[str, bytes], None]) -> None:
        assert prefix == ""
        self.listeners.append(on_put)


class Service:
    """The service of a node, and what it has sent and answered."""

    def __init__(self, *kept: Revocation) -> None:
        self.sent: list[bytes] = []
        self.answers: list[bytes] = []
        self.now_s = NOW_S
        self.store: Any = Store(*kept)
        self.it = RevocationService(
            lambda packed: self.sent.append(bytes(packed)),
            self.store,
            lambda *event: None,  # type: ignore[arg-type, return-value]
            lambda: self.now_s,
        )

    def page(self, worker: int, after: str = "") -> tuple[str, list[Revocation]]:
        found: list[bytes] = []
        self.it.on_request(worker, b"?" + after.encode(), found.append)
        more, members = orjson.loads(found[0])
        return more, [Revocation(*each) for each in members]

    def revoke(self, worker: int, one: Revocation) -> None:
        self.it.on_request(worker, one.pack(), self.answers.append)

    def confirm(self, worker: int, one: Revocation) -> None:
        self.it.on_message(worker, one.name.encode())


async def test_it_is_answered_when_the_last_worker_has_confirmed() -> None:
    service, one = Service(), revocation(1)
    service.page(1)
    service.page(2)
    service.revoke(3, one)  # A worker that revokes verifies too.
    assert service.sent == [one.pack()]
    for worker in (1, 2):
        service.confirm(worker, one)
        service.confirm(worker, revocation(9))
        assert service.answers == []
    service.confirm(3, one)
    assert service.answers == [DONE]
    service.confirm(3, one)
    assert service.answers == [DONE]
    assert service.it._unconfirmed == {}


async def test_a_worker_that_has_gone_is_not_waited_for() -> None:
    service, one, other = Service(), revocation(1), revocation(2)
    service.page(1)
    service.page(2)
    service.revoke(1, one)
    service.confirm(1, one)
    assert service.answers == []
    service.it.on_worker_gone(2)
    assert service.answers == [DONE]
    service.revoke(1, other)
    service.confirm(1, other)
    assert service.answers == [DONE, DONE]


async def test_a_worker_that_does_not_confirm_in_time_is_an_answer_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(revocations, "CONFIRM_S", 0.01)
    service, one = Service(), revocation(1)
    service.page(1)
    service.revoke(1, one)
    async with asyncio.timeout(30):
        while not service.answers:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert service.answers == [NOT_DONE]
    service.confirm(1, one)
    assert service.answers == [NOT_DONE]
    assert service.page(1)[1] == [one], "it holds all the same"


async def test_each_request_is_answered_once_and_its_timer_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(revocations, "CONFIRM_S", 0.05)
    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, fault: faults.append(fault))
    service, one = Service(), revocation(1)
    service.page(1)
    service.revoke(1, one)
    service.revoke(1, one)
    assert len(service.it._unconfirmed[one.name]) == 2
    service.confirm(1, one)
    assert service.answers == [DONE, DONE]
    await asyncio.sleep(0.1)
    assert service.answers == [DONE, DONE]
    assert faults == []


def test_what_another_node_has_stored_is_sent_to_the_workers() -> None:
    kept, other = revocation(1), revocation(2)
    service = Service(kept)
    (on_put,) = service.store.listeners
    on_put(other.name, other.pack())
    assert service.sent == [other.pack()]
    on_put("x", b"no revocation")
    on_put("x", b"[1]")
    assert service.sent == [other.pack()]
    assert sorted(service.page(1)[1]) == sorted([kept, other])


@pytest.mark.parametrize("count", [1, 249, 250, 251, 500])
def test_pages_end_with_the_last_revocation(count: int) -> None:
    all_of_them = [revocation(number) for number in range(count)]
    service = Service(*all_of_them)
    found, after, pages = [], "", 0
    while True:
        after, page = service.page(1, after)
        found += page
        pages += 1
        if not after:
            break
    assert sorted(found) == sorted(all_of_them)
    assert pages == -(-count // 250)


def test_a_revocation_that_comes_between_two_pages_is_in_the_next() -> None:
    all_of_them = sorted((revocation(number) for number in range(400)), key=lambda one: one.name)
    early, *others, late = all_of_them
    service = Service(*others)
    more, first = service.page(1)
    for one in (early, late):
        (on_put,) = service.store.listeners
        on_put(one.name, one.pack())
    _, second = service.page(1, more)
    assert first + second == [*others, late]


def test_a_revocation_that_is_repeated_with_an_earlier_end_keeps_its_own() -> None:
    service = Service(revocation(1, NOW_S + 20))
    (on_put,) = service.store.listeners
    on_put("", revocation(1, NOW_S + 10).pack())
    assert service.page(1)[1] == [revocation(1, NOW_S + 20)]
    assert service.store.kept == {revocation(1).name: revocation(1, NOW_S + 20).pack()}
    assert service.sent == [revocation(1, NOW_S + 20).pack()]


def test_a_revocation_ends_with_its_second_and_leaves_the_store() -> None:
    service = Service(revocation(1, NOW_S + 1), revocation(2, NOW_S + 2))
    service.now_s = NOW_S + 1
    assert service.page(1)[1] == [revocation(2, NOW_S + 2)]
    assert len(service.store.kept) == 1


async def test_room_for_a_new_one_is_made_by_what_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(revocations, "REVOCATIONS_MAX", 2)
    service = Service(revocation(1, NOW_S), revocation(2))
    service.it.on_worker_gone(1)
    service.revoke(1, revocation(3))
    service.confirm(1, revocation(3))
    assert service.answers == [DONE]
    service.revoke(1, revocation(4))
    assert service.answers == [DONE, NOT_DONE]
    service.revoke(1, revocation(3, NOW_S + 200))
    service.confirm(1, revocation(3))
    assert service.answers == [DONE, NOT_DONE, DONE], "one that is there needs no room"
    assert revocation(3, NOW_S + 200) in service.page(1)[1]


@pytest.mark.parametrize("value", [0.5, 1, TIME_S_MAX])
def test_times_are_taken_up_to_their_bounds(value: float) -> None:
    body = orjson.dumps({"issued_before": value, "expires": value})
    assert Revocation.of_json(body)[2:] == (value, value)


@pytest.mark.parametrize("value", [0, -1, TIME_S_MAX + 1, True, "1"])
def test_a_time_out_of_bounds_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest, match="unix seconds"):
        Revocation.of_json(orjson.dumps({"issued_before": value}))


def test_texts_are_taken_up_to_1024_bytes() -> None:
    most = "é" * 512
    assert Revocation.of_json(orjson.dumps({"jti": most})).jti == most
    for text in ("", most + "x"):
        with pytest.raises(BadRequest, match="1 to 1024 bytes"):
            Revocation.of_json(orjson.dumps({"sub": text}))


# --- The side of a worker


class Control:
    """A control client whose questions a test answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, Callable[[Any], None]]] = []
        self.notified: list[bytes] = []
        self.on_back: list[Callable[[], None]] = []

    def ask(self, subject: str, message: bytes, answered: Callable[[Any], None]) -> None:
        assert subject == "revocations"
        self.asked.append((bytes(message), answered))

    def listen(self, subject: str, on_broadcast: Callable[[bytes], None]) -> None:
        self.broadcast = on_broadcast

    def notify(self, subject: str, message: bytes) -> None:
        self.notified.append(message)

    def answer(self, *page: Revocation, more: str = "") -> bytes:
        message, answered = self.asked.pop(0)
        answered(orjson.dumps([more, [[*one] for one in page]]))
        return message


def worker_of(control: Any) -> Revocations:
    return Revocations(control, lambda: NOW_S)


def test_nothing_is_known_before_the_last_page() -> None:
    control = Control()
    worker = worker_of(control)
    assert not worker.known
    assert worker.generation == 0
    assert control.answer(revocation(1), more="a") == b"?"
    assert not worker.known
    assert control.answer(revocation(2)) == b"?a"
    assert worker.known
    assert worker.generation == 2
    assert control.asked == [], "what is listed is not sent back"


def test_a_request_for_the_revocations_is_answered_once() -> None:
    control, answers = Control(), list[FastsseError | None]()
    worker = worker_of(control)
    worker.learn(answers.append)
    control.asked.pop(0)
    _, answered = control.asked.pop(0)
    answered(Unavailable("bus", 9))
    (refused,) = answers
    assert isinstance(refused, Unavailable)
    assert refused.retry_after_s == 1
    assert not worker.known
    worker.learn(answers.append)
    control.answer(more="a")
    control.answer()
    assert answers == [refused, None]


def test_a_service_that_has_lost_revocations_receives_them_again() -> None:
    control = Control()
    worker = worker_of(control)
    control.answer(*(revocation(number) for number in (1, 2, 3)))
    (back,) = control.on_back
    back()
    control.answer(revocation(2))
    assert [message for message, _ in control.asked] == [revocation(n).pack() for n in (1, 3)]
    assert worker.generation == 3


@pytest.mark.parametrize("answer", [NOT_DONE, Unavailable("bus", 9)])
def test_a_revocation_that_is_not_confirmed_is_reported(answer: object) -> None:
    control, answers = Control(), list[FastsseError | None]()
    worker = worker_of(control)
    control.asked.clear()
    worker.revoke(revocation(1), answers.append)
    worker.revoke(revocation(2), answers.append)
    control.asked.pop(0)[1](DONE)
    control.asked.pop(0)[1](answer)
    assert answers[0] is None
    assert isinstance(answers[1], Unavailable)
    assert answers[1].retry_after_s == 1


def test_a_broadcast_is_confirmed_by_its_name() -> None:
    control = Control()
    worker = worker_of(control)
    control.broadcast(revocation(1).pack())
    assert control.notified == [revocation(1).name.encode()]
    assert worker.generation == 1
    control.broadcast(revocation(1).pack())
    assert len(control.notified) == 2, "a repeat is confirmed too"
    assert worker.generation == 1


def test_a_revocation_of_more_tokens_takes_the_place_of_one_of_fewer() -> None:
    control = Control()
    worker = worker_of(control)
    early, late = (Revocation(None, "me", before, NOW_S + 100) for before in (100.0, 200.0))
    short = Revocation(None, "me", 300.0, NOW_S + 1)
    for one in (early, late, short):
        control.broadcast(one.pack())
    assert worker._by_subject["me"] == [late, short], "the short one ends before the late one"
    whole = Revocation(None, "me", None, NOW_S + 100)
    control.broadcast(whole.pack())
    assert worker._by_subject["me"] == [whole]


@pytest.mark.parametrize(
    ("new", "old", "outdone"),
    [
        ((None, "me", None, 2.0), (None, "me", None, 2.0), True),
        ((None, "me", None, 2.0), (None, "me", 5.0, 1.0), True),
        ((None, "me", 5.0, 2.0), (None, "me", 5.0, 2.0), True),
        ((None, "me", 6.0, 2.0), (None, "me", 5.0, 2.0), True),
        ((None, "me", 5.0, 2.0), (None, "me", 6.0, 2.0), False),
        ((None, "me", 5.0, 2.0), (None, "me", None, 2.0), False),
        ((None, "me", None, 1.0), (None, "me", None, 2.0), False),
        ((None, "me", None, 2.0), (None, "you", None, 2.0), False),
        (("7", "me", None, 2.0), ("7", None, None, 2.0), False),
    ],
)
def test_a_revocation_outdoes_those_of_the_same_that_end_no_later(
    new: Any, old: Any, outdone: bool
) -> None:
    assert revocations._outdoes(Revocation(*new), Revocation(*old)) is outdone


def test_a_revocation_of_any_place_leaves_in_its_last_second() -> None:
    control: Any = Control()
    clock = [NOW_S]
    worker = Revocations(control, lambda: clock[0])
    for ends in (NOW_S + 1, NOW_S + 2):
        for what in (("7", None, 9.0), (None, "me", 9.0), (None, None, 9.0)):
            control.broadcast(Revocation(*what, ends).pack())
            control.broadcast(Revocation(*what[:2], 8.0 - ends + NOW_S, ends).pack())
    clock[0] += 1
    worker.forget_ended()
    places = (worker._by_token["7"], worker._by_subject["me"], worker._by_time)
    assert all({one.expires for one in place} == {NOW_S + 2} for place in places)
    clock[0] += 1
    worker.forget_ended()
    assert (worker._by_token, worker._by_subject, worker._by_time) == ({}, {}, [])


def test_ended_revocations_leave_after_so_many_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "_ADDED_UNTIL_TIDY", 3)
    control: Any = Control()
    clock = [NOW_S]
    worker = Revocations(control, lambda: clock[0])
    control.broadcast(revocation(1, NOW_S + 1).pack())
    clock[0] += 1
    control.broadcast(revocation(2).pack())
    assert list(worker._by_token) == ["t1", "t2"]
    control.broadcast(revocation(3).pack())
    assert list(worker._by_token) == ["t2", "t3"]
