"""Subscriptions that several nodes share: one node has them, and the others ask it.

The owner (`OwnedValues`) answers a request only after the result is stored under its mark. When the
owner dies, another node becomes the owner within a few seconds and continues from what was stored:
leases that a worker holds continue, and wakes that no worker holds are made again with a higher
generation. A request in between is refused, and may be sent again.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

import orjson

from fastsse.control.cluster import NodeMessaging, OwnedValues
from fastsse.control.service import Answer
from fastsse.errors import FastsseError, Unavailable
from fastsse.wakes.index import StreamRowsHere
from fastsse.wakes.parts import NAME_BYTES, Assembly, parts_of
from fastsse.wakes.service import WakeService

__all__ = ["SUBJECT", "SharedRows", "SharedWakes"]

SUBJECT: Final = "wakes"
# How long the owner may take to answer a request of another node.
ANSWER_S: Final = 5.0
# Requests of this node that the owner has not answered.
UNANSWERED_MAX: Final = 1_000
_QUESTION, _ANSWER = b"?", b"!"


class SharedRows(StreamRowsHere, Protocol):
    """The rows of all streams, at the node that owns the subscriptions."""

    is_loaded: bool

    async def load(self) -> None:
        """As `FollowedRows`."""

    async def catch_up(self) -> bool:
        """As `FollowedRows`."""

    def forget(self) -> None:
        """As `FollowedRows`."""


class _Asked(NamedTuple):
    answer: Answer
    timer: asyncio.TimerHandle


class SharedWakes:
    """The subscriptions at one node of several, as `Service`. Loop thread only.

    Arguments:
        rows: the streams.
        owned: where subscriptions are kept.
        messaging: the way to the node that owns them.
        make: makes the service of all subscriptions, at the node that owns them.
    """

    def __init__(
        self,
        rows: SharedRows,
        owned: OwnedValues,
        messaging: NodeMessaging,
        make: Callable[[], WakeService],
    ) -> None:
        self._rows: Final = rows
        self._owned: Final = owned
        self._messaging: Final = messaging
        self._make: Final = make
        self._service: WakeService | None = None
        self._asked: Final[dict[bytes, _Asked]] = {}
        self._assembly: Final = Assembly()
        self._loop: Final = asyncio.get_running_loop()
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._gaining: asyncio.Task[None] | None = None
        messaging.listen(SUBJECT, self._on_node_message, self._assembly.forget)
        owned.begin(self)

    async def end(self) -> None:
        """Ends the service, and what is under way."""
        self.on_lost()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for asked in self._asked.values():
            asked.timer.cancel()

    # -- owning -----------------------------------------------------------------------------------

    def on_gained(self) -> None:
        """As `OnOwned`."""
        self._gaining = self._spawn(self._gain())

    async def _gain(self) -> None:
        # Without subscriptions the rows are not needed, and cost nothing.
        if self._owned.items("s/"):
            await self._rows.load()
        self._service = self._make()

    def on_lost(self) -> None:
        """As `OnOwned`."""
        if self._gaining is not None:
            self._gaining.cancel()
        service, self._service = self._service, None
        if service is not None:
            self._spawn(service.end())
        self._rows.forget()

    # -- requests ---------------------------------------------------------------------------------

    def on_request(self, worker: int, message: bytes, answer: Answer) -> None:
        """As `Service`."""
        owner = self._owned.owner
        if owner == self._owned.own:
            self._spawn(self._serve(message, answer))
        elif not owner or len(self._asked) >= UNANSWERED_MAX:
            answer(_not_now())
        else:
            self._ask(owner, message, answer)

    def on_message(self, worker: int, message: bytes) -> None:
        """As `Service`; workers send no messages."""

    def on_worker_gone(self, worker: int) -> None:
        """As `Service`; nothing depends on workers."""

    async def _serve(self, message: bytes, answer: Answer) -> None:
        """Answers a request at the node that owns the subscriptions. It sees all that was
        acknowledged before at any node."""
        service = self._service
        if service is not None and not self._rows.is_loaded and _is_put(message):
            await self._rows.load()
        is_current = await self._rows.catch_up() and self._owned.is_owned
        if service is None or service is not self._service or not is_current:
            answer(_not_now())
        else:
            service.on_request(0, message, answer)

    # -- other nodes ------------------------------------------------------------------------------

    def _ask(self, owner: bytes, message: bytes, answer: Answer) -> None:
        name = secrets.token_bytes(NAME_BYTES)
        timer = self._loop.call_later(ANSWER_S, self._answered, name, _not_now())
        self._asked[name] = _Asked(answer, timer)
        if not self._send(owner, _QUESTION, name, message):
            self._answered(name, _not_now())

    def _answered(self, name: bytes, answer: bytes | FastsseError) -> None:
        asked = self._asked.pop(name, None)
        if asked is not None:
            asked.timer.cancel()
            asked.answer(answer)

    def _send(self, node: bytes, kind: bytes, name: bytes, message: bytes) -> bool:
        return all(
            self._messaging.send(SUBJECT, part, node) for part in parts_of(kind, name, message)
        )

    def _on_node_message(self, node: bytes, part: bytes) -> None:
        """A part of a message. Raises ValueError for a damaged one."""
        whole = self._assembly.add(node, part)
        if whole is None:
            return
        kind, name, message = whole
        if kind == _QUESTION:
            self._spawn(self._serve(message, partial(self._answer, node, name)))
        elif kind == _ANSWER:
            self._answered(name, message or _not_now())

    def _answer(self, node: bytes, name: bytes, answer: bytes | FastsseError) -> None:
        self._send(node, _ANSWER, name, b"" if isinstance(answer, FastsseError) else answer)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _not_now() -> Unavailable:
    return Unavailable("backbone", retry_after_s=1)


def _is_put(message: bytes) -> bool:
    return bool(orjson.loads(message)["op"] == "put")
