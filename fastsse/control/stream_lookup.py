"""Finds a stream in the worker that holds it.

A stream's public id does not say where the stream is, and a request about it (a pong, a renewal)
comes to any worker. The worker searches its own streams first. Then the control service asks all
workers, and the worker with the stream answers. A stream that is gone has no answer, so the
asking worker waits for a bounded time. The control service does not wait and keeps nothing:
unknown ids can't use up the requests that a worker may have under way. The control services of
other nodes are asked too; a request names its node.
"""

import asyncio
import secrets
from collections.abc import Callable
from typing import Final

from fastsse.control.service import Broadcast, ControlClient, ControlStore, Publish
from fastsse.errors import FastsseError, Unavailable

__all__ = ["SUBJECT", "Act", "StreamLookup", "StreamLookupService"]

SUBJECT: Final = "reach"
# Most requests of one worker without an answer yet.
UNANSWERED_MAX: Final = 10_000
TIMEOUT_S: Final = 2.0
#: Bytes of a node's name.
NODE_BYTES: Final = 12
_NAME_BYTES: Final = 16
_HEAD_BYTES: Final = NODE_BYTES + _NAME_BYTES
_HERE: Final = bytes(NODE_BYTES)
_NOT_ALL: Final = b"-"
_QUESTION: Final = b"?"
_ANSWER: Final = b"!"

Act = Callable[[bytes, bytes], bytes | None]
"""Acts on the stream with this id, as the second argument says, and returns an answer, or None if
the stream is not here."""
Answered = Callable[[bytes | FastsseError | None], None]


class StreamLookupService:
    """Passes requests about streams to all workers, and passes the answers back. Made by
    `service.Services`. A broadcast is `?`, the name of the requesting node, the name of the request
    and the request; or `!`, the name of the request and the answer. A worker sends its answer with
    the name of the requesting node in place of `!`. Between nodes a message is `?` or `!`, the name
    and the rest."""

    def __init__(self, broadcast: Broadcast, store: ControlStore, publish: Publish) -> None:
        self._broadcast = broadcast
        self._messaging = store.messaging
        if self._messaging is not None:
            self._messaging.listen(SUBJECT, self._on_node_message)

    def on_request(self, worker: int, message: bytes, answer: Callable[[bytes], None]) -> None:
        """Has every worker search. Answers `+` if all could be asked, else `-`."""
        nodes = self._messaging
        is_whole = nodes is None or nodes.send(SUBJECT, _QUESTION + message)
        self._broadcast(_QUESTION + _HERE + message)
        answer(b"+" if is_whole else _NOT_ALL)

    def on_message(self, worker: int, message: bytes) -> None:
        """A worker has the stream and sends the answer."""
        node, answer = message[:NODE_BYTES], message[NODE_BYTES:]
        if node == _HERE:
            self._broadcast(_ANSWER + answer)
        elif self._messaging is not None:
            self._messaging.send(SUBJECT, _ANSWER + answer, node)

    def on_worker_gone(self, worker: int) -> None:
        """A request about the streams of this worker gets no answer."""

    def _on_node_message(self, node: bytes, message: bytes) -> None:
        mark, rest = message[:1], message[1:]
        if mark == _ANSWER:
            self._broadcast(message)
        elif mark == _QUESTION and len(node) == NODE_BYTES and _is_question(rest):
            self._broadcast(_QUESTION + node + rest)
        else:
            raise ValueError("neither question nor answer")


def _is_question(message: bytes) -> bool:
    """Whether a message has all parts that a worker's `_on_broadcast` reads."""
    said = message[_NAME_BYTES:]
    return len(said) > 2 and len(said) >= 2 + said[1]


class StreamLookup:
    """A worker's way to every stream of the service. Loop thread only.

    Arguments:
        control: the worker's.
        is_alone: whether there is no other worker at any node to ask.
        timeout_s: how long to wait for others.
    """

    def __init__(
        self, control: ControlClient, *, is_alone: bool = False, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._control = control
        self._is_alone = is_alone
        self._timeout_s = timeout_s
        self._acts: dict[int, Act] = {}
        # Requests by their names, which are unique among all workers.
        self._asked: dict[bytes, Callable[[bytes | FastsseError | None], None]] = {}
        control.listen(SUBJECT, self._on_broadcast)

    def teach(self, name: bytes, act: Act) -> None:
        """Sets the act that `reach` performs under a name, which is a single byte."""
        self._acts[name[0]] = act

    def reach(self, name: bytes, stream_id: bytes, what: bytes, done: Answered) -> None:
        """Acts on a stream. `done` gets the act's answer, None if there is no such stream, or an
        error if the other workers can't be asked. `stream_id` has at most 255 bytes."""
        if not 0 < len(stream_id) < 256:
            done(None)
            return
        answer = self._acts[name[0]](stream_id, what)
        if answer is not None or self._is_alone:
            done(answer)
            return
        question = b"%b%c%b%b" % (name, len(stream_id), stream_id, what)
        self._ask(question, done)

    def _ask(self, question: bytes, done: Answered) -> None:
        if len(self._asked) >= UNANSWERED_MAX:
            done(Unavailable("queue", retry_after_s=1))
            return
        name = secrets.token_bytes(_NAME_BYTES)
        silence: FastsseError | None = None  # The result if no answer comes.

        def finish(outcome: bytes | FastsseError | None) -> None:
            if self._asked.pop(name, None) is not None:
                timer.cancel()
                done(outcome)

        def passed_on(answer: bytes | FastsseError) -> None:
            nonlocal silence
            if isinstance(answer, FastsseError):
                finish(answer)
            elif answer == _NOT_ALL:
                silence = Unavailable("backbone", retry_after_s=1)

        timer = asyncio.get_running_loop().call_later(self._timeout_s, lambda: finish(silence))
        self._asked[name] = finish
        self._control.ask(SUBJECT, name + question, passed_on)

    def _on_broadcast(self, message: bytes) -> None:
        mark, message = message[:1], message[1:]
        if mark == _ANSWER:
            finish = self._asked.get(message[:_NAME_BYTES])
            if finish is not None:
                finish(message[_NAME_BYTES:])
            return
        whose, said = message[:_HEAD_BYTES], message[_HEAD_BYTES:]
        act = self._acts.get(said[0])
        if act is None:
            return
        end = 2 + said[1]
        answer = act(said[2:end], said[end:])
        if answer is not None:
            self._control.notify(SUBJECT, whose + answer)
