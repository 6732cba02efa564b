"""Questions of operators that every worker answers: who is connected, which topics there are.

A worker asks the control service, which asks all workers of the node and, where nodes share a
store, the other nodes. Each worker answers for itself. The control service waits for a bounded time
and then returns what came, with the names of those that did not answer. It knows nothing of
questions and answers but their bytes, and bounds them. What the control service's own process knows
(sources run there) is answered by it.
"""

import asyncio
import inspect
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from struct import Struct
from typing import Any, Final, NamedTuple

import orjson

from fastsse.control.service import Answer, Broadcast, ControlClient, ControlStore, Publish
from fastsse.errors import FastsseError, Unavailable
from fastsse.log import get_logger

__all__ = [
    "ANSWER_BYTES_MAX",
    "LETTERS",
    "SOURCES",
    "SUBJECT",
    "GatherClient",
    "GatherService",
    "Gathered",
    "OwnFacts",
]

log = get_logger("admin")
SUBJECT: Final = "gather"
#: The question about sources, which the process of the control services answers.
SOURCES: Final = "sources"
#: The same about their dead letters.
LETTERS: Final = "letters"
#: Bytes of one worker's answer: a message between nodes has at most 256 KiB.
ANSWER_BYTES_MAX: Final = 192 * 1024
# Bytes of all answers together: a message between processes of a node has at most 1 MiB.
_TOTAL_BYTES_MAX: Final = 768 * 1024
_TIMEOUT_S: Final = 1.0
# Dead letters may be in another system.
_TIMEOUTS_S: Final = {LETTERS: 10.0}
# Questions under way at once; the console asks one at a time.
_UNDER_WAY_MAX: Final = 64
_NAME_BYTES: Final = 8
_HELLO: Final = b"h"
_QUESTION: Final = b"?"
_ANSWER: Final = b"!"
_END: Final = b"."
_NUMBER: Final = Struct("<i")
#: The number in place of a worker's: the process of the control services.
SERVICES: Final = -1

OwnFacts = Mapping[str, Callable[[Mapping[str, Any]], object]]
"""What the process of the control services answers in place of workers, by the question's name:
gets the question's members; JSON values, or what can be awaited for one."""
Act = Callable[[Mapping[str, Any]], object]
"""What the process of the control services does in addition to the workers; gives a JSON value."""
Handler = Callable[[Mapping[str, Any], Callable[[object], None]], None]
"""Answers a question for its worker: gets the question's members, and in `own` the worker's node
and number, and calls back once with a JSON value."""


class Gathered(NamedTuple):
    """Who answered: node (empty where there can be only one), worker, JSON value. In the order of
    node and worker."""

    answers: Sequence[tuple[str, int, Any]]
    missing: Sequence[str]
    #: Answers were left out, because all together are too long.
    is_cut: bool


class _Gathering:
    """Answers that come to one question."""

    def __init__(self, done: Callable[["_Gathering"], None]) -> None:
        self._done = done
        self.answers: list[tuple[str, int, bytes]] = []
        self.workers: set[int] = set()
        self.nodes: set[bytes] = set()
        self.is_ended = False

    def end_if_complete(self) -> None:
        """Ends it when all have answered."""
        if not self.workers and not self.nodes:
            self.end()

    def end(self) -> None:
        """Ends it with what came."""
        if not self.is_ended:
            self.is_ended = True
            self._done(self)


class GatherService:
    """Asks all workers, and collects their answers. Made by `service.Services`.

    A worker's messages are `h` (it is here), or `!`, the name of the question and its answer. A
    broadcast is `?`, the name, the node's name behind its length, and the question. Between nodes:
    `?`, the name and the question; `!`, the name, a worker's number and its answer; `.` and the
    name behind the last.
    """

    def __init__(
        self,
        broadcast: Broadcast,
        store: ControlStore,
        publish: Publish,
        own: OwnFacts,
        acts: Mapping[str, Act],
    ) -> None:
        self._broadcast = broadcast
        self._own = own
        self._acts = acts
        self._workers: set[int] = set()
        self._under_way: dict[bytes, _Gathering] = {}
        self._answering: set[asyncio.Future[None]] = set()
        self._messaging = store.messaging
        if self._messaging is not None:
            self._messaging.listen(SUBJECT, self._on_node_message)

    def on_request(self, worker: int, message: bytes, answer: Answer) -> None:
        """Asks everyone; the answer is JSON: answers, missing ones, whether it was cut."""
        if len(self._under_way) >= _UNDER_WAY_MAX:
            answer(Unavailable("queue", retry_after_s=1))
            return
        name, gathering = self._begin(message, lambda ended: answer(_packed(ended)))
        nodes = self._messaging
        if nodes is not None and not _is_for_node(message):
            gathering.nodes = set(nodes.others)
            if gathering.nodes:
                nodes.send(SUBJECT, _QUESTION + name + message)
        self._ask(name, message, gathering)

    def on_message(self, worker: int, message: bytes) -> None:
        """A worker is here, or answers."""
        if message[:1] == _HELLO:
            self._workers.add(worker)
            return
        gathering = self._under_way.get(message[1 : 1 + _NAME_BYTES])
        if gathering is not None and worker in gathering.workers:
            gathering.workers.remove(worker)
            gathering.answers.append((self._node, worker, message[1 + _NAME_BYTES :]))
            gathering.end_if_complete()

    @property
    def _node(self) -> str:
        return "" if self._messaging is None else self._messaging.own.decode()

    def on_worker_gone(self, worker: int) -> None:
        """Nothing is to be waited for from this worker."""
        self._workers.discard(worker)
        for gathering in list(self._under_way.values()):
            gathering.workers.discard(worker)
            gathering.end_if_complete()

    def _begin(
        self, question: bytes, done: Callable[[_Gathering], None]
    ) -> tuple[bytes, _Gathering]:
        name = secrets.token_bytes(_NAME_BYTES)

        def ended(gathering: _Gathering) -> None:
            timer.cancel()
            del self._under_way[name]
            done(gathering)

        gathering = self._under_way[name] = _Gathering(ended)
        gathering.workers = set(self._workers)
        timeout_s = _TIMEOUTS_S.get(_what(question), _TIMEOUT_S)
        timer = asyncio.get_running_loop().call_later(timeout_s, gathering.end)
        return name, gathering

    def _ask(self, name: bytes, question: bytes, gathering: _Gathering) -> None:
        """Asks the workers of this node, or answers in their place."""
        own, act = self._own.get(_what(question)), self._acts.get(_what(question))
        if act is not None:
            answer = orjson.dumps(act(orjson.loads(question)))
            gathering.answers.append((self._node, SERVICES, answer))
        if own is None:
            node = self._node.encode()
            self._broadcast(b"%b%b%c%b%b" % (_QUESTION, name, len(node), node, question))
        else:
            gathering.workers = {SERVICES}
            task = asyncio.ensure_future(
                self._answer_itself(own(orjson.loads(question)), gathering)
            )
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        gathering.end_if_complete()

    async def _answer_itself(self, value: object, gathering: _Gathering) -> None:
        try:
            found = await value if inspect.isawaitable(value) else value
        except Exception:
            log.exception("A question could not be answered.", what="")
            found = None
        gathering.answers.append((self._node, SERVICES, orjson.dumps(found)))
        gathering.workers.discard(SERVICES)
        gathering.end_if_complete()

    def _on_node_message(self, node: bytes, message: bytes) -> None:
        mark, name = message[:1], message[1 : 1 + _NAME_BYTES]
        rest = message[1 + _NAME_BYTES :]
        if len(name) != _NAME_BYTES:
            raise ValueError("a message without a name")
        if mark == _QUESTION:
            here, gathering = self._begin(rest, partial(self._reply, node, name))
            self._ask(here, rest, gathering)
            return
        asked = self._under_way.get(name)
        if asked is None or node not in asked.nodes:
            return
        if mark == _ANSWER and len(rest) >= _NUMBER.size:
            (worker,) = _NUMBER.unpack_from(rest)
            asked.answers.append((node.decode(), worker, rest[_NUMBER.size :]))
        elif mark == _END:
            asked.nodes.remove(node)
            asked.end_if_complete()

    def _reply(self, node: bytes, name: bytes, ended: _Gathering) -> None:
        nodes = self._messaging
        assert nodes is not None
        for _, worker, answer in ended.answers:
            if len(answer) <= ANSWER_BYTES_MAX:
                nodes.send(SUBJECT, _ANSWER + name + _NUMBER.pack(worker) + answer, node)
        nodes.send(SUBJECT, _END + name, node)


def _what(question: bytes) -> str:
    """The name of a question; empty for one that is none."""
    try:
        return str(orjson.loads(question)["what"])
    except (ValueError, TypeError, KeyError):
        return ""


def _is_for_node(question: bytes) -> bool:
    """Whether a question is for this node alone."""
    return bool(orjson.loads(question).get("here"))


def _packed(ended: _Gathering) -> bytes:
    """JSON, from answers that are JSON."""
    parts: list[bytes] = []
    left_bytes, is_cut = _TOTAL_BYTES_MAX, False
    for node, worker, answer in sorted(ended.answers, key=lambda one: one[:2]):
        part = b"[%b,%d,%b]" % (orjson.dumps(node), worker, answer)
        left_bytes -= len(part)
        if left_bytes < 0 or is_cut:
            is_cut = True
        else:
            parts.append(part)
    missing = [f"worker {worker}" for worker in sorted(ended.workers)]
    missing += [f"node {node.decode()}" for node in sorted(ended.nodes)]
    return b"[[%b],%b,%b]" % (
        b",".join(parts),
        orjson.dumps(missing),
        b"true" if is_cut else b"false",
    )


class GatherClient:
    """A worker's side: asks all, and answers for itself. Loop thread only.

    Arguments:
        control: the way to the control service.
    """

    def __init__(self, control: ControlClient) -> None:
        self._control = control
        self._handlers: dict[str, Handler] = {}
        control.listen(SUBJECT, self._on_broadcast)
        control.on_back.append(self._hello)
        self._hello()

    def teach(self, what: str, handler: Handler) -> None:
        """Sets what answers the questions of this name."""
        self._handlers[what] = handler

    def ask(
        self, what: str, done: Callable[[Gathered | FastsseError], None], **members: object
    ) -> None:
        """Asks every worker of every node. `members` are JSON; `here=True` asks this node only."""

        def answered(answer: bytes | FastsseError) -> None:
            if isinstance(answer, FastsseError):
                done(answer)
                return
            answers, missing, is_cut = orjson.loads(answer)
            done(Gathered([tuple(one) for one in answers], missing, is_cut))

        self._control.ask(SUBJECT, orjson.dumps({"what": what, **members}), answered)

    def _hello(self) -> None:
        self._control.notify(SUBJECT, _HELLO)

    def _on_broadcast(self, message: bytes) -> None:
        name, rest = message[1 : 1 + _NAME_BYTES], message[1 + _NAME_BYTES :]
        node, question = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]

        def reply(answer: object) -> None:
            packed = orjson.dumps(answer)
            if len(packed) > ANSWER_BYTES_MAX:
                log.error("An answer is too long.", size=len(packed), what=_what(question))
                packed = b"null"
            self._control.notify(SUBJECT, _ANSWER + name + packed)

        try:
            members = orjson.loads(question)
            members["own"] = [node.decode(), self._control.worker]
            self._handlers[members["what"]](members, reply)
        except Exception:
            # A question of a newer node, or a fault here: the asker gets an answer all the same.
            log.exception("A question could not be answered.", what=_what(question))
            reply(None)
