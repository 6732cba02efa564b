"""A stream is renewed by any worker, and no request waits for ever."""

import asyncio
from typing import Any

import pytest

from fastsse.auth.renewal import Held, Renewals, check_renewal
from fastsse.auth.rights import Rights, claim_hash
from fastsse.control.service import LocalControlClient
from fastsse.control.stream_lookup import SUBJECT, StreamLookup, StreamLookupService
from fastsse.errors import FastsseError, Forbidden, Unavailable

HELD = Rights(subscribe=["a"], subject="me", expires_s=10)
FRESH = Rights(subscribe=["a", "b"], subject="me", token_id="9", expires_s=20)


def held(rights: Rights) -> Held:
    return Held(claim_hash(rights.subject), rights.subscribe)


class Worker:
    """One worker's streams, and its way to those of the others."""

    def __init__(self, control: LocalControlClient, *stream_ids: bytes, **options: Any) -> None:
        self.streams: dict[int, Rights | None] = {n + 1: HELD for n in range(len(stream_ids))}
        self.handles = {stream_id: n + 1 for n, stream_id in enumerate(stream_ids)}
        self.renewals = Renewals(StreamLookup(control, **options), self)

    def find(self, stream_id: bytes) -> int:
        return self.handles.get(stream_id, 0)

    def held_by(self, handle: int) -> Held | None:
        rights = self.streams[handle]
        return None if rights is None else held(rights)

    def renew(self, handle: int, rights: Rights) -> bool:
        self.streams[handle] = rights
        return True

    async def ask(self, stream_id: bytes, fresh: Rights = FRESH) -> bool | FastsseError:
        answered: asyncio.Future[bool | FastsseError] = asyncio.get_running_loop().create_future()
        self.renewals.renew(stream_id, fresh, answered.set_result)
        return await asyncio.wait_for(answered, 30)


def node() -> LocalControlClient:
    return LocalControlClient({SUBJECT: StreamLookupService}, lambda events, done: done(True))


async def test_a_stream_is_renewed_where_it_is_and_from_any_other_worker() -> None:
    control = node()
    one, other = Worker(control, b"here"), Worker(control, b"there", timeout_s=0.01)
    assert await one.ask(b"here") is True
    assert await one.ask(b"there") is True
    for renewed in (one.streams[1], other.streams[1]):
        assert renewed is not None
        assert (renewed.subscribe, renewed.claims) == (FRESH.subscribe, FRESH.claims)


async def test_a_token_that_does_not_fit_changes_nothing_anywhere() -> None:
    control = node()
    one, other = Worker(control, b"here"), Worker(control, b"there")
    for stream_id in (b"here", b"there"):
        for fresh in (Rights(subscribe=["a"], subject="you"), Rights(subject="me")):
            outcome = await one.ask(stream_id, fresh)
            assert isinstance(outcome, Forbidden)
            assert "new token" in outcome.detail
    assert (one.streams[1], other.streams[1]) == (HELD, HELD)


async def test_renewing_an_unknown_stream_is_answered_soon() -> None:
    control = node()
    one, _ = Worker(control, timeout_s=0.01), Worker(control, b"there")
    for stream_id in (b"gone", b"", b"x" * 256, b"\0" * 255):
        assert await one.ask(stream_id) is False
    assert await Worker(node(), b"x", is_alone=True).ask(b"gone") is False


async def test_a_stream_without_a_token_is_not_renewed() -> None:
    alone = Worker(node(), b"x", is_alone=True)
    alone.streams[1] = None
    assert await alone.ask(b"x") is False


async def test_a_desk_that_is_away_is_an_error() -> None:
    control = node()
    worker = Worker(control)
    control.ask = lambda subject, message, done: done(Unavailable("bus", 1))  # type: ignore[method-assign]
    assert isinstance(await worker.ask(b"x"), Unavailable)


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
    before = held(Rights(subscribe=["a", "b"], subject="me"))
    if fits:
        check_renewal(before, fresh)
    else:
        with pytest.raises(Forbidden):
            check_renewal(before, fresh)


def test_what_was_granted_everything_needs_everything_again() -> None:
    with pytest.raises(Forbidden):
        check_renewal(held(Rights(subscribe=["*"])), Rights(subscribe=["a"]))


def test_renewal_tells_the_core_the_new_end() -> None:
    rights = Rights(token_id="9", issued_s=5, expires_s=7.5)
    assert rights.renewal == (7500, claim_hash("9"), 5)
