"""A revocation is answered when every worker of the node refuses what it names."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from fastsse.auth import revocations as revocations_module
from fastsse.auth.guard import SERVICES
from fastsse.auth.revocations import Revocation, Revocations
from fastsse.auth.rights import Rights
from fastsse.control.service import MakeService
from fastsse.errors import FastsseError, Unavailable
from tests.bus.onebus import Bus, a_bus, until

FOR_GOOD_S = 4e9
RIGHTS = Rights(("*",), ("*",), subject="ann")


def makers(*_: object) -> Mapping[str, MakeService]:
    return SERVICES


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with a_bus() as bus:
        await bus.start(makers=makers)
        yield bus


async def workers(bus: Bus, count: int) -> list[Revocations]:
    known = [Revocations((await bus.worker()).control) for _ in range(count)]
    await until(lambda: all(one.known for one in known))
    return known


def revoke(at: Revocations, subject: str = "ann") -> "asyncio.Future[FastsseError | None]":
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    at.revoke(Revocation(None, subject, None, FOR_GOOD_S), answer.set_result)
    return answer


async def test_all_workers_refuse_before_a_revocation_is_answered(bus: Bus) -> None:
    known = await workers(bus, 4)
    for n, one in enumerate(known):
        answer = revoke(one, f"user {n}")
        covered: list[bool] = []
        rights = Rights(("*",), ("*",), subject=f"user {n}")
        answer.add_done_callback(
            lambda _, to=covered, what=rights: to.extend(other.covers(what) for other in known)
        )
        assert await answer is None
        await asyncio.sleep(0)
        assert covered == [True] * 4


async def test_a_worker_that_ended_is_not_waited_for(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations_module, "CONFIRM_S", 60.0)
    one = (await workers(bus, 1))[0]
    deaf = await bus.worker()
    stuck = Revocations(deaf.control)
    await until(lambda: stuck.known)
    deaf.control._listeners.clear()
    answer = revoke(one)
    await until(lambda: one.covers(RIGHTS))
    assert not answer.done()
    await deaf.backbone.close()
    assert await answer is None


async def test_a_worker_that_is_stuck_makes_the_answer_a_refusal(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations_module, "CONFIRM_S", 0.05)
    one = (await workers(bus, 1))[0]
    deaf = await bus.worker()
    stuck = Revocations(deaf.control)
    await until(lambda: stuck.known)
    deaf.control._listeners.clear()
    assert isinstance(await revoke(one), Unavailable)
    # It holds all the same, and a later try is answered when the worker is gone.
    assert one.covers(RIGHTS)
    await deaf.backbone.close()
    await until(lambda: bus.hub is not None and len(bus.hub.broker.sessions) == 1)
    assert await revoke(one) is None
