"""Desks in the hub process, for all workers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from fastsse.bus.client import requests
from fastsse.control.service import Broadcast, ControlStore, MakeService, Publish
from fastsse.errors import Unavailable
from fastsse.events import Event
from tests.bus.onebus import Bus, a_bus, until


class Book:
    """A control service that writes down what it hears, counts in its store, and answers when it
    likes."""

    def __init__(self, broadcast: Broadcast, store: ControlStore, publish: Publish) -> None:
        self.broadcast = broadcast
        self.publish = publish
        self.store = store
        self.heard: list[tuple[int, bytes]] = []
        self.left_by: list[int] = []
        self.published: list[bool] = []
        self.unanswered: list[Callable[[bytes], None]] = []

    def on_request(self, worker: int, message: bytes, answer: Callable[[bytes], None]) -> None:
        self.heard.append((worker, message))
        if message == b"later":
            self.unanswered.append(answer)
        else:
            answer(b"%d: %b" % (worker, message))

    def on_message(self, worker: int, message: bytes) -> None:
        self.heard.append((worker, message))
        if message.startswith(b"all "):
            self.broadcast(message[4:])
        elif message.startswith(b"event "):
            self.publish([Event("a", message[6:])], self.published.append)

    def on_worker_gone(self, worker: int) -> None:
        self.left_by.append(worker)


def makers(*_: object) -> Mapping[str, MakeService]:
    return {"book": Book}


def book(bus: Bus) -> Book:
    assert bus.hub is not None
    service = bus.hub.broker.services["book"]
    assert isinstance(service, Book)
    return service


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with a_bus() as bus:
        await bus.start(makers=makers)
        yield bus


async def test_a_control_service_answers_the_asking_worker(bus: Bus) -> None:
    first, second = await bus.worker(), await bus.worker()
    answers = [end.ask("book", b"%d" % n) for n in range(20) for end in (first, second)]
    assert await asyncio.gather(*answers) == [
        b"%d: %d" % (worker, n) for n in range(20) for worker in (0, 1)
    ]


async def test_answers_find_their_questions_in_any_order(bus: Bus) -> None:
    end = await bus.worker()
    later = [end.ask("book", b"later") for _ in range(3)]
    assert await end.ask("book", b"now") == b"0: now"
    for index, answer in enumerate(reversed(book(bus).unanswered)):
        answer(b"%d" % index)
    assert await asyncio.gather(*later) == [b"2", b"1", b"0"]


async def test_more_questions_than_may_be_under_way_wait_for_their_turn(bus: Bus) -> None:
    end = await bus.worker()
    answers = [end.ask("book", b"x" * 1000) for _ in range(1_000)]
    assert len(set(await asyncio.gather(*answers))) == 1


async def test_a_subject_without_a_desk_is_an_error(bus: Bus) -> None:
    end = await bus.worker()
    with pytest.raises(Unavailable):
        await end.ask("unknown", b"?")


async def test_what_a_desk_broadcasts_is_heard_by_all_workers(bus: Bus) -> None:
    ends = [await bus.worker() for _ in range(3)]
    heard: list[list[bytes]] = [[], [], []]
    for end, to in zip(ends, heard, strict=True):
        end.control.listen("book", to.append)
        end.control.listen("other", lambda message: pytest.fail("not for this one"))
    ends[1].control.notify("book", b"all hear")
    ends[1].control.notify("book", b"all this")
    await until(lambda: all(len(to) == 2 for to in heard))
    assert heard == [[b"hear", b"this"]] * 3


async def test_a_desk_publishes(bus: Bus) -> None:
    ends = [await bus.worker() for _ in range(2)]
    ends[0].control.notify("book", b"event of a desk")
    await until(lambda: all(end.data == [b"of a desk"] for end in ends))
    assert book(bus).published == [True]


async def test_a_control_service_is_notified_of_a_lost_worker(bus: Bus) -> None:
    await bus.worker()
    end = await bus.worker()
    await end.backbone.close()
    await until(lambda: book(bus).left_by == [1])


async def test_without_a_hub_requests_wait_and_messages_are_not_lost(bus: Bus) -> None:
    end = await bus.worker()
    back = []
    end.control.on_back.append(lambda: back.append("back"))
    await bus.stop()
    answer = end.ask("book", b"asked")
    end.control.notify("book", b"sent")
    await bus.start(makers=makers, workers=1, restarted=True)
    assert await answer == b"0: asked"
    assert sorted(book(bus).heard) == [(0, b"asked"), (0, b"sent")]
    assert back == ["back"]


async def test_without_a_hub_for_long_questions_fail(bus: Bus) -> None:
    end = await bus.worker(timeout_s=0.1)
    await bus.stop()
    with pytest.raises(Unavailable):
        await end.ask("book", b"?")


async def test_a_question_that_a_dead_hub_may_have_heard_fails_at_once(bus: Bus) -> None:
    end = await bus.worker()
    answer = end.ask("book", b"later")
    await until(lambda: book(bus).unanswered)
    await bus.stop()
    with pytest.raises(Unavailable):
        await answer


async def test_questions_that_a_desk_never_answers_fail_in_time_each(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "ANSWER_S", 0.05)
    end = await bus.worker()
    for _ in range(3):
        unanswered = [end.ask("book", b"later") for _ in range(2)]
        for answer in unanswered:
            with pytest.raises(Unavailable):
                await answer
    # An answer that comes too late disturbs nothing.
    await until(lambda: len(book(bus).unanswered) == 6)
    for answer_late in book(bus).unanswered:
        answer_late(b"late")
    monkeypatch.setattr(requests, "ANSWER_S", 60.0)
    assert await end.ask("book", b"now") == b"0: now"


async def test_a_control_service_that_never_answers_blocks_no_other_request(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "QUESTIONS_MAX", 2)
    monkeypatch.setattr(requests, "ANSWER_S", 0.05)
    end = await bus.worker()
    unanswered = [end.ask("book", b"later") for _ in range(2)]
    await until(lambda: all(answer.done() for answer in unanswered))
    # The hub still has as many as it may have, so this one has to wait for its turn.
    end.control._requests._timeout_s = 0.05
    waiting = end.ask("book", b"waits")
    await until(waiting.done)
    for answer in (*unanswered, waiting):
        assert isinstance(answer.exception(), Unavailable)
    await until(lambda: len(book(bus).unanswered) == 2)
    for answer_late in book(bus).unanswered:
        answer_late(b"late")
    monkeypatch.setattr(requests, "ANSWER_S", 60.0)
    end.control._requests._timeout_s = 60.0
    assert await end.ask("book", b"now") == b"0: now"


async def test_a_message_that_is_too_long_is_refused(bus: Bus) -> None:
    end = await bus.worker()
    longest = bytes(1024 * 1024)
    assert len(await end.ask("book", longest)) == len(longest) + 3
    with pytest.raises(Unavailable):
        await end.ask("book", longest + b"x")
    with pytest.raises(ValueError, match="1048576"):
        end.control.notify("book", longest + b"x")
