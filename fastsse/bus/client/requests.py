"""Requests to the hub: sent, answered by number, sent again to the next hub or given up."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from struct import Struct
from typing import Final

from fastsse.bus.client.outbox import TICK_S, TIMEOUT_S
from fastsse.bus.frames import Fields, FrameError, FrameKind, frame
from fastsse.errors import FastsseError, Unavailable
from fastsse.refusal_reasons import read_reason

__all__ = ["ANSWER_S", "QUESTIONS_MAX", "PendingRequests"]

# Under way at once; the hub disconnects a worker that asks more.
QUESTIONS_MAX: Final = 256
# What questions without an answer may hold, and what each takes in addition to its bytes.
QUEUE_BYTES_MAX: Final = 64 * 1024 * 1024
_QUESTION_COST_BYTES: Final = 512
# A hub that is there answers within this, or the question is given up.
ANSWER_S: Final = 10.0

_NUMBER: Final = Struct("<Q")

# Given the answer's fields, or why there is none.
Answered = Callable[[Fields | FastsseError], None]


class _Request:
    __slots__ = ("answered", "body", "deadline_s", "kind", "may_repeat", "number")

    def __init__(
        self, number: int, kind: FrameKind, body: bytes, may_repeat: bool, answered: Answered
    ) -> None:
        self.number = number
        self.kind = kind
        self.body = body
        self.may_repeat = may_repeat
        self.answered = answered
        self.deadline_s = 0.0

    @property
    def bytes(self) -> int:
        """What it holds, about."""
        return len(self.body) + _QUESTION_COST_BYTES


class PendingRequests:
    """Questions under way, in order. Loop thread only.

    Arguments:
        send: sends a frame; only called while the hub is up.
        timeout_s: how long a question waits for a hub.
    """

    def __init__(self, send: Callable[[bytes], None], timeout_s: float = TIMEOUT_S) -> None:
        self._send = send
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._numbers = count(1)
        self._is_up = False
        self._waiting: deque[_Request] = deque()
        self._bytes = 0
        self._under_way: dict[int, _Request] = {}
        # Sent and given up: an answer that still comes is not an error.
        self._given_up: set[int] = set()
        self._ticking: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._under_way) + len(self._waiting)

    def ask(self, kind: FrameKind, body: bytes, answered: Answered, *, may_repeat: bool) -> None:
        """Asks; `answered` is called once. One that may not be repeated, and was sent to a hub
        that died, has an error for its answer, though that hub may have received it."""
        if self._bytes + len(body) > QUEUE_BYTES_MAX:
            answered(Unavailable("queue", retry_after_s=1))
            return
        question = _Request(next(self._numbers), kind, body, may_repeat, answered)
        self._bytes += question.bytes
        question.deadline_s = time.monotonic() + self._timeout_s
        self._waiting.append(question)
        self._go_on()
        if self._ticking is None:
            self._ticking = self._loop.call_later(TICK_S, self._tick)

    def on_up(self) -> None:
        """A hub is there."""
        self._is_up = True
        self._go_on()

    def on_down(self) -> None:
        """The hub is lost: what may be repeated waits for the next."""
        self._is_up = False
        self._given_up.clear()
        under_way, self._under_way = self._under_way, {}
        again = [question for question in under_way.values() if question.may_repeat]
        deadline_s = time.monotonic() + self._timeout_s
        for question in again:
            question.deadline_s = deadline_s
        self._waiting.extendleft(reversed(again))
        for question in under_way.values():
            if not question.may_repeat:
                self._give_up(question)

    def on_answer(self, body: bytes) -> None:
        """An answer arrived. Raises FrameError when there was no such question."""
        fields = Fields(body)
        question = self._take(fields)
        if question is None:
            return
        self._bytes -= question.bytes
        try:
            question.answered(fields)
        except FrameError:
            question.answered(_away())
            raise
        self._go_on()

    def on_failure(self, body: bytes) -> None:
        """A question can't be answered."""
        fields = Fields(body)
        question = self._take(fields)
        if question is None:
            return
        self._bytes -= question.bytes
        question.answered(Unavailable(read_reason(fields.text()), retry_after_s=1))
        self._go_on()

    def close(self) -> None:
        """Gives everything up."""
        self._is_up = False
        if self._ticking is not None:
            self._ticking.cancel()
        given_up = [*self._under_way.values(), *self._waiting]
        self._under_way.clear()
        self._waiting.clear()
        for question in given_up:
            self._give_up(question)

    def _give_up(self, question: _Request) -> None:
        self._bytes -= question.bytes
        question.answered(_away())

    def _take(self, fields: Fields) -> _Request | None:
        """The question that an answer is for; None when it was given up."""
        number = fields.u64()
        question = self._under_way.pop(number, None)
        if question is None:
            if number not in self._given_up:
                raise FrameError("an answer without a question")
            self._given_up.remove(number)
            self._go_on()
        return question

    @property
    def _at_the_hub(self) -> int:
        """Questions that the hub has, also those whose caller gave up."""
        return len(self._under_way) + len(self._given_up)

    def _go_on(self) -> None:
        waiting = self._waiting
        while self._is_up and waiting and self._at_the_hub < QUESTIONS_MAX:
            question = waiting.popleft()
            question.deadline_s = time.monotonic() + ANSWER_S
            self._under_way[question.number] = question
            self._send(frame(question.kind, _NUMBER.pack(question.number), question.body))

    def _tick(self) -> None:
        """Gives up what has waited too long; both kinds stand in the order of their deadlines."""
        self._ticking = None
        now = time.monotonic()
        while self._waiting and self._waiting[0].deadline_s <= now:
            self._give_up(self._waiting.popleft())
        late = [one for one in self._under_way.values() if one.deadline_s <= now]
        for question in late:
            del self._under_way[question.number]
            self._given_up.add(question.number)
            self._give_up(question)
        if self._waiting or self._under_way:
            self._ticking = self._loop.call_later(TICK_S, self._tick)


def _away() -> Unavailable:
    return Unavailable("backbone", retry_after_s=1)
