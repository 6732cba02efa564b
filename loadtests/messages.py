"""The messages between the processes of a run, in addition to Locust's own.

A single process sends them to itself, so that all kinds of run use the same code.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from gevent.event import AsyncResult, Event
from locust.runners import MasterRunner, Runner

_ASK, _ANSWER, _RETURN = "fastsse-number?", "fastsse-number", "fastsse-number-back"
_STRIKE, _ABORT = "fastsse-strike", "fastsse-abort"
_FINISH, _FINISHED = "fastsse-finish", "fastsse-finished"
_SETTLED, _ALL_SETTLED = "fastsse-settled", "fastsse-all-settled"
_PUBLISHED = "fastsse-published"
ANSWER_TIMEOUT_S = 30
FINISH_TIMEOUT_S = 60


class Numbers:
    """Gives each user of a kind the lowest free number of the whole run."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._free: dict[str, list[int]] = defaultdict(list)
        self._next: dict[str, int] = defaultdict(int)
        self._waiting: dict[int, AsyncResult[int]] = {}
        self._asked = itertools.count()
        runner.register_message(_ASK, self._on_ask)
        runner.register_message(_ANSWER, self._on_answer)
        runner.register_message(_RETURN, self._on_return)

    def clear(self) -> None:
        """A new run begins."""
        self._free.clear()
        self._next.clear()

    def take(self, kind: str) -> int:
        """Waits for the master's answer."""
        request = next(self._asked)
        answer: AsyncResult[int] = AsyncResult()
        self._waiting[request] = answer
        self._runner.send_message(_ASK, {"kind": kind, "request": request})
        try:
            number = answer.get(timeout=ANSWER_TIMEOUT_S)
            assert number is not None
            return number
        finally:
            del self._waiting[request]

    def give_back(self, kind: str, number: int) -> None:
        """Releases the number of an ended user."""
        self._runner.send_message(_RETURN, {"kind": kind, "number": number})

    def _on_ask(self, msg: Any, **_: Any) -> None:
        kind = msg.data["kind"]
        if self._free[kind]:
            number = heapq.heappop(self._free[kind])
        else:
            number = self._next[kind]
            self._next[kind] += 1
        answer = {"request": msg.data["request"], "number": number}
        self._runner.send_message(_ANSWER, answer, client_id=msg.node_id)

    def _on_answer(self, msg: Any, **_: Any) -> None:
        waiting = self._waiting.get(msg.data["request"])
        if waiting is not None:
            waiting.set(msg.data["number"])

    def _on_return(self, msg: Any, **_: Any) -> None:
        heapq.heappush(self._free[msg.data["kind"]], msg.data["number"])


class Orders:
    """Orders of the master, and decisions that need all workers.

    Arguments:
        strike: cuts every stream of this process.
        finish: ends every reader of this process, with its figures; waits for it.
        abort: ends the run; called on the master, must return at once.

    Attributes:
        all_settled: set once every process has said that its readers are settled.
        published: the number of publishers that have finished their schedule; on the master.
    """

    def __init__(
        self,
        runner: Runner,
        strike: Callable[[], None],
        finish: Callable[[], None],
        abort: Callable[[str], None],
    ) -> None:
        self._runner = runner
        self._settled: set[str] = set()
        self._finished: set[str] = set()
        self.all_settled = Event()
        self.published = 0
        self._all_finished = Event()
        runner.register_message(_STRIKE, lambda **_: strike())
        runner.register_message(_ABORT, lambda msg, **_: abort(msg.data["says"]))
        runner.register_message(_FINISH, lambda **_: self._on_finish(finish), concurrent=True)
        runner.register_message(_FINISHED, self._on_finished)
        runner.register_message(_SETTLED, self._on_settled)
        runner.register_message(_ALL_SETTLED, lambda **_: self.all_settled.set())
        runner.register_message(_PUBLISHED, self._on_published)

    def clear(self) -> None:
        """A new run begins."""
        self._settled.clear()
        self.all_settled.clear()
        self.published = 0

    def strike(self) -> None:
        """Cuts every stream of the run."""
        self._runner.send_message(_STRIKE, {})

    def abort(self, says: str) -> None:
        """Aborts the run."""
        self._runner.send_message(_ABORT, {"says": says})

    def say_settled(self) -> None:
        """Reports to the master that this process's readers are settled."""
        self._runner.send_message(_SETTLED, {})

    def say_published(self) -> None:
        """Reports to the master that one publisher has finished its schedule."""
        self._runner.send_message(_PUBLISHED, {})

    def finish(self) -> None:
        """Ends all readers of the run, and waits for them. Idempotent.

        Locust's own order to quit waits half a second for last reports; ending tens of thousands
        of streams takes longer, and their last figures would be missing.
        """
        if isinstance(self._runner, MasterRunner) and not self._runner.clients:
            return
        self._finished.clear()
        self._all_finished.clear()
        self._runner.send_message(_FINISH, {})
        self._all_finished.wait(timeout=FINISH_TIMEOUT_S)

    def _on_finish(self, finish: Callable[[], None]) -> None:
        finish()
        self._runner.send_message(_FINISHED, {})

    def _on_finished(self, msg: Any, **_: Any) -> None:
        self._finished.add(msg.node_id)
        if self._have_all(self._finished):
            self._all_finished.set()

    def _on_settled(self, msg: Any, **_: Any) -> None:
        self._settled.add(msg.node_id)
        if self._have_all(self._settled):
            self._runner.send_message(_ALL_SETTLED, {})
            self.all_settled.set()  # here too

    def _on_published(self, **_: Any) -> None:
        self.published += 1

    def _have_all(self, nodes: set[str]) -> bool:
        """Whether every worker is among them; a process without a master is all there is."""
        return not isinstance(self._runner, MasterRunner) or nodes >= set(self._runner.clients)
