"""A worker process: from its fork to its end."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import uvloop

from fastsse.api.bound_sockets import Sockets
from fastsse.bus import connect
from fastsse.config import Config, ConfigError
from fastsse.errors import FastsseError
from fastsse.interceptors import interrupt_interceptors
from fastsse.log import configure, get_logger, name_worker
from fastsse.stores import OpenedStores
from fastsse.supervisor.board import ConfigBoard
from fastsse.supervisor.orders import Orders
from fastsse.supervisor.process_link import (
    ALIVE,
    ALIVE_EVERY_S,
    END,
    FAILED,
    READY,
    REPLACED,
    ProcessLink,
)
from fastsse.supervisor.process_setup import settle_memory
from fastsse.worker import DRAIN_GRACE_S, Worker

__all__ = ["GIVEN_UP", "serve_worker", "start_failed"]

log = get_logger("supervisor")
#: The exit status of a worker that lost the hub for good (sysexits.h: EX_TEMPFAIL).
GIVEN_UP: Final = 75
# Time after the drain before a worker without a supervisor ends itself.
ORPHAN_GRACE_S: Final = 5.0
_T = TypeVar("_T")


def start_failed(link: ProcessLink, error: FastsseError, origin_of: Callable[[str], str]) -> int:
    """Reports to the supervisor why a child can't start; returns the child's exit status."""
    if isinstance(error, ConfigError):
        error = error.with_origins(origin_of)
    status = int(getattr(error, "exit_status", 1))
    link.send(FAILED, f"{status} {error}")
    return status


def serve_worker(
    config: Config,
    board: ConfigBoard,
    sockets: Sockets,
    number: int,
    address: str | bytes,
    link: ProcessLink,
) -> int:
    """Runs a worker until it gets an order to end, or until its supervisor or hub is lost for good.

    Arguments:
        config: the options; `max_connections` are this worker's alone.
        board: has options to take over while it serves, with the same `max_connections`.
        sockets: what it listens on.
        number: unique among all workers of this supervisor, also ended ones.
        address: where the hub process is.
        link: to the supervisor.

    Returns the exit status. Raises FastsseError when it can't start.
    """
    name_worker(number)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_live(config, board, sockets, number, address, link))


async def _live(
    config: Config,
    board: ConfigBoard,
    sockets: Sockets,
    number: int,
    address: str | bytes,
    link: ProcessLink,
) -> int:
    orders = Orders(link, config.drain + DRAIN_GRACE_S + ORPHAN_GRACE_S)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(orders.close)
        met = await _unless_ordered(orders, connect(address, worker=number, key=os.urandom(8)))
        if met is None:
            return 0
        backbone, control = met
        stack.push_async_callback(backbone.close)
        interrupt_interceptors()
        stores = OpenedStores(backbone, None)
        worker = Worker(config, sockets=sockets, stores=stores, control=control, number=number)
        stack.push_async_callback(worker.close)
        orders.apply_with(lambda: _take_over(board.read(), worker))
        settle_memory()
        link.send(READY)
        stack.callback(_report_alive(link, worker))
        return await _until_ended(worker, orders, backbone.ended, config.drain)


def _take_over(config: Config, worker: Worker) -> None:
    configure(config)
    worker.take_over(config)


async def _unless_ordered(orders: Orders, awaited: Awaitable[_T]) -> _T | None:
    """The result of `awaitable`; None if an order comes first, which can only be an end while the
    worker starts."""
    task = asyncio.ensure_future(awaited)
    order = asyncio.ensure_future(orders.next())
    done, pending = await asyncio.wait((task, order), return_when=asyncio.FIRST_COMPLETED)
    for one in pending:
        one.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    return task.result() if task in done else None


def _report_alive(link: ProcessLink, worker: Worker) -> Callable[[], None]:
    """Reports once a second that the loop runs; returns a function that stops this."""
    loop = asyncio.get_running_loop()
    timer: list[asyncio.TimerHandle] = []

    def report() -> None:
        link.send(ALIVE, str(worker.stream_count))
        timer[:] = [loop.call_later(ALIVE_EVERY_S, report)]

    report()
    return lambda: timer[0].cancel()


async def _until_ended(
    worker: Worker, orders: Orders, given_up: "asyncio.Future[str]", window_s: float
) -> int:
    """Serves, drains, and returns the exit status. During the drain only an order to end at once is
    obeyed."""
    order = asyncio.ensure_future(orders.next())
    await asyncio.wait((order, given_up), return_when=asyncio.FIRST_COMPLETED)
    if not order.done():
        order.cancel()
        log.error("The hub process disconnected this worker.", reason=str(given_up.result()))
        return GIVEN_UP
    word = order.result()
    if word == END:
        return 0
    draining = asyncio.ensure_future(worker.drain(window_s, replaced=word == REPLACED))
    at_once = asyncio.ensure_future(_ordered_to_end(orders))
    await asyncio.wait((draining, at_once), return_when=asyncio.FIRST_COMPLETED)
    for one in (draining, at_once):
        one.cancel()
    await asyncio.gather(draining, at_once, return_exceptions=True)
    return 0


async def _ordered_to_end(orders: Orders) -> None:
    while await orders.next() != END:
        pass
