"""Ids of streams that do not exist must not cost the clients of those that do."""

import asyncio
from typing import Any

import pytest

from fastsse.api import endpoints
from fastsse.bus.client.requests import QUESTIONS_MAX
from fastsse.control.stream_lookup import UNANSWERED_MAX, StreamLookup
from fastsse.errors import Unavailable
from fastsse.services import service_makers
from tests.attack.conftest import Start
from tests.bus.onebus import a_bus, until
from tests.mercure.client import KEY, ask, bearer


async def test_made_up_ids_take_no_questions_from_the_worker_that_is_asked() -> None:
    async with a_bus() as bus:
        await bus.start(makers=service_makers)
        worker, other = await bus.worker(), await bus.worker()
        here, there = (StreamLookup(end.control, timeout_s=0.01) for end in (worker, other))
        here.teach(b"p", lambda stream_id, what: None)
        there.teach(b"p", lambda stream_id, what: b"yes" if stream_id == b"there" else None)
        for _ in range(3):
            answers: list[object] = []
            for number in range(QUESTIONS_MAX):
                here.reach(b"p", b"made up %d" % number, b"", answers.append)
            await until(lambda: len(answers) == QUESTIONS_MAX)  # noqa: B023
            assert answers == [None] * QUESTIONS_MAX
        assert (await asyncio.wait_for(worker.ask("tickets", b"r" + bytes(16)), 30)) == b"-"
        found: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        patient = StreamLookup(worker.control, timeout_s=30)
        patient.teach(b"p", lambda stream_id, what: None)
        patient.reach(b"p", b"there", b"", found.set_result)
        assert await found == b"yes"


class Nobody:
    """A lookup of streams that must not be used."""

    def teach(self, name: bytes, act: object) -> None: ...

    def reach(self, name: bytes, stream_id: bytes, what: bytes, done: Any) -> None:
        raise AssertionError(f"{stream_id!r} was looked for")


@pytest.mark.parametrize("made_up", ["x", "f" * 31, "f" * 33, "F" * 32, "g" * 32, "%00" * 32])
async def test_an_impossible_stream_id_is_not_searched(
    start: Start, monkeypatch: pytest.MonkeyPatch, made_up: str
) -> None:
    monkeypatch.setattr(endpoints, "StreamLookup", lambda control, is_alone: Nobody())
    server = await start(ping="1s", jwt_key=KEY)
    assert (await ask(server, "POST", f"/pong?stream={made_up}")).status == 404
    by = bearer(subscribe=["a"])
    assert (await ask(server, "POST", f"/renew?stream={made_up}", by)).status == 404
    assert (await ask(server, "POST", f"/renew?stream={made_up}")).status == 401


async def test_questions_about_streams_are_bounded() -> None:
    async with a_bus() as bus:
        await bus.start(makers=service_makers)
        worker = await bus.worker()
        reach = StreamLookup(worker.control, timeout_s=0.1)
        reach.teach(b"p", lambda stream_id, what: None)
        answers: list[object] = []
        for number in range(UNANSWERED_MAX + 5):
            reach.reach(b"p", b"%d" % number, b"", answers.append)
        assert len(answers) == 5
        assert all(isinstance(answer, Unavailable) for answer in answers)
