"""Reaching a stream in whatever worker holds it.

A stream's public id says nothing of where it is, and a request about it (a pong, a renewal) comes
to any worker. The worker looks among its own streams first; then the desk has all of them look,
and the one that holds the stream answers. Nobody answers for a stream that is gone, so whoever
asks waits for a bounded time.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from fastsse.control import Broadcast, Control, Publish, Store
from fastsse.errors import FastsseError

__all__ = ["SUBJECT", "Act", "Reach", "ReachDesk"]

SUBJECT: Final = "reach"
# Questions that nobody answered yet; the oldest go when there are more.
UNANSWERED_MAX: Final = 10_000
PATIENCE_S: Final = 2.0
_NUMBER_BYTES: Final = 8
_FOUND: Final = b"+"
_NOT_FOUND: Final = b"-"

Act = Callable[[bytes, bytes], bytes | None]
"""Does something to the stream with this id, told more by the second argument; its answer, or
None when the stream is not here."""
Reached = Callable[[bytes | FastsseError | None], None]


class ReachDesk:
    """Passes questions about streams on to all workers, and the answer back. Made by
    `control.Desks`. What is broadcast is a number and a question; what is told, the same number
    and its answer."""

    def __init__(self, broadcast: Broadcast, store: Store, publish: Publish) -> None:
        self._broadcast = broadcast
        self._last = 0
        self._unanswered: dict[int, Callable[[bytes], None]] = {}

    def asked(self, worker: int, message: bytes, answer: Callable[[bytes], None]) -> None:
        """Has every worker look."""
        self._last += 1
        self._unanswered[self._last] = answer
        if len(self._unanswered) > UNANSWERED_MAX:
            self._unanswered.pop(next(iter(self._unanswered)))(_NOT_FOUND)
        self._broadcast(self._last.to_bytes(_NUMBER_BYTES) + message)

    def told(self, worker: int, message: bytes) -> None:
        """A worker has the stream."""
        answer = self._unanswered.pop(int.from_bytes(message[:_NUMBER_BYTES]), None)
        if answer is not None:
            answer(_FOUND + message[_NUMBER_BYTES:])

    def left(self, worker: int) -> None:
        """Whoever asked about its streams has waited in vain."""


class Reach:
    """A worker's way to every stream of its node. Loop thread only.

    Arguments:
        control: the worker's.
        is_alone: whether there is no other worker, and so nobody else to ask.
        patience_s: how long others are waited for.
    """

    def __init__(
        self, control: Control, *, is_alone: bool = False, patience_s: float = PATIENCE_S
    ) -> None:
        self._control = control
        self._is_alone = is_alone
        self._patience_s = patience_s
        self._acts: dict[int, Act] = {}
        control.listen(SUBJECT, self._heard)

    def teach(self, name: bytes, act: Act) -> None:
        """What `reach` does under a name, a single byte."""
        self._acts[name[0]] = act

    def reach(self, name: bytes, stream_id: bytes, what: bytes, done: Reached) -> None:
        """Does something to a stream; `done` gets the act's answer, None when there is no such
        stream, or an error when the others can't be asked. `stream_id` is at most 255 bytes."""
        if not 0 < len(stream_id) < 256:
            done(None)
            return
        answer = self._acts[name[0]](stream_id, what)
        if answer is not None or self._is_alone:
            done(answer)
            return
        question = b"%b%c%b%b" % (name, len(stream_id), stream_id, what)
        self._ask(question, done)

    def _ask(self, question: bytes, done: Reached) -> None:
        waiting = [done]

        def finish(outcome: bytes | FastsseError | None) -> None:
            timer.cancel()
            if waiting:
                waiting.pop()(outcome)

        def answered(answer: bytes | FastsseError) -> None:
            if isinstance(answer, FastsseError):
                finish(answer)
            else:
                finish(answer[1:] if answer[:1] == _FOUND else None)

        timer = asyncio.get_running_loop().call_later(self._patience_s, finish, None)
        self._control.ask(SUBJECT, question, answered)

    def _heard(self, message: bytes) -> None:
        number, question = message[:_NUMBER_BYTES], message[_NUMBER_BYTES:]
        act = self._acts.get(question[0])
        if act is None:
            return
        end = 2 + question[1]
        answer = act(question[2:end], question[end:])
        if answer is not None:
            self._control.tell(SUBJECT, number + answer)
