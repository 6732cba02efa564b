"""Sends what is in an outbox: in order, again and again, until the server has it."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from fastsse.client.errors import ClientError, Refused
from fastsse.client.gathering import BATCH_BYTES, BATCH_EVENTS
from fastsse.client.outbox import Outbox, Row
from fastsse.client.receipts import Receipt

__all__ = ["OutboxSender"]

log = logging.getLogger("fastsse.client")
# Refusals that may be different later: a token may be renewed, a server upgraded.
_MAY_CHANGE: Final = frozenset({401, 403, 404, 405, 407})

T = TypeVar("T")
Post = Callable[[bytes], Awaitable[Receipt]]


class OutboxSender:
    """One task that sends the events of an outbox, several in a request when several wait. Use it
    in one event loop.

    Arguments:
        outbox: the events.
        post: publishes lines of NDJSON, all or none.
        wait: waits before the next try; called with the number of failures in a row.
    """

    def __init__(self, outbox: Outbox, post: Post, wait: Callable[[int], Awaitable[None]]) -> None:
        self._outbox = outbox
        self._post = post
        self._wait = wait
        self._asking: dict[int, asyncio.Future[Receipt]] = {}
        self._changed = asyncio.Event()
        self._emptied = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def add(self, line: bytes) -> "asyncio.Future[Receipt]":
        """Stores an event, and returns a future with its receipt, or with Refused; its id is empty
        when it was sent together with others."""
        number = await self._run(self._outbox.add, line)
        answer: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._asking[number] = answer
        self._changed.set()
        self.start()
        return answer

    def start(self) -> None:
        """Starts to send the events that are there."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._send_for_ever())

    async def flush(self) -> None:
        """Returns when the outbox is empty."""
        self.start()
        while len(self._outbox):
            self._emptied.clear()
            await self._emptied.wait()

    async def close(self) -> None:
        """Stops. Waiting events stay in the outbox."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for answer in self._asking.values():
            answer.cancel()
        self._asking.clear()

    async def _send_for_ever(self) -> None:
        failures = 0
        single = False
        while True:
            self._changed.clear()
            rows = await self._run(self._outbox.oldest, 1 if single else BATCH_EVENTS, BATCH_BYTES)
            if not rows:
                self._emptied.set()
                await self._changed.wait()
                continue
            try:
                receipt = await self._post(b"\n".join(row.line for row in rows))
            except Refused as refused:
                if _may_change(refused):
                    failures += 1
                    await self._pause(failures, refused)
                    continue
                # The answer names the refused event, or each is sent alone to find it.
                wrong = self._wrong(rows, refused)
                single = wrong is None
                if wrong is not None:
                    await self._drop(wrong, refused)
            except ClientError as error:
                failures += 1
                await self._pause(failures, error)
            else:
                failures, single = 0, False
                await self._acknowledge(rows, receipt)

    def _wrong(self, rows: list[Row], refused: Refused) -> Row | None:
        if len(rows) == 1:
            return rows[0]
        line = refused.line
        return rows[line - 1] if line is not None and 1 <= line <= len(rows) else None

    async def _pause(self, failures: int, error: ClientError) -> None:
        log.warning("The outbox could not be sent; %d events wait: %s", len(self._outbox), error)
        await self._wait(failures)

    async def _drop(self, row: Row, refused: Refused) -> None:
        await self._run(self._outbox.remove, [row])
        answer = self._asking.pop(row.number, None)
        if answer is None or answer.done():
            log.error("An event of the outbox was refused and dropped: %s", refused)
        else:
            answer.set_exception(refused)

    async def _acknowledge(self, rows: list[Row], receipt: Receipt) -> None:
        await self._run(self._outbox.remove, rows)
        id = receipt.id if len(rows) == 1 else ""
        for row in rows:
            answer = self._asking.pop(row.number, None)
            if answer is not None and not answer.done():
                answer.set_result(Receipt(1, id, id))

    async def _run(self, call: Callable[..., T], *args: object) -> T:
        """Runs a call of the outbox; one that waits for a disk does not block the loop."""
        if self._outbox.is_durable:
            return await asyncio.to_thread(call, *args)
        return call(*args)


def _may_change(refused: Refused) -> bool:
    """Whether the same event may be taken later. A page with 200 or a redirect is an answer of a
    proxy, not of the server."""
    return refused.status < 400 or refused.is_passing or refused.status in _MAY_CHANGE
