"""The hub process: it serves the workers, and ends after the last of them."""

import asyncio
import os
import signal
import socket

from fastsse.bus import HubProcess, run_hub
from fastsse.config import Config
from fastsse.log import configure
from fastsse.services import service_makers
from fastsse.supervisor.board import ConfigBoard
from fastsse.supervisor.process_link import (
    ALIVE,
    ALIVE_EVERY_S,
    APPLIED,
    APPLY,
    READY,
    ProcessLink,
)
from fastsse.supervisor.process_setup import settle_memory

__all__ = ["LifeLine", "serve_hub"]


class LifeLine:
    """A pipe that the supervisor and every worker hold open.

    It closes when the last of them ends. The hub gets no signal when the supervisor dies; it serves
    until all workers have drained.
    """

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC)

    def watch(self) -> int:
        """In the hub process: the descriptor that becomes readable when all other processes
        ended."""
        os.close(self._write_fd)
        return self._read_fd

    def close(self) -> None:
        """Closes both ends."""
        os.close(self._read_fd)
        os.close(self._write_fd)


def serve_hub(
    config: Config,
    board: ConfigBoard,
    listening: socket.socket,
    workers: int,
    restarted: bool,
    life: LifeLine,
    link: ProcessLink,
) -> int:
    """Runs the hub until SIGTERM, or until no worker is left; returns the exit status.

    Arguments:
        board: has options to take over while it serves.
        listening: the socket for workers; the supervisor keeps it open.
        workers: their number.
        restarted: whether they had a hub before.
        life: closes when all other processes ended.
        link: to the supervisor.

    Raises FastsseError when it can't start.
    """

    def ready(hub: HubProcess) -> None:
        loop = asyncio.get_running_loop()
        settle_memory()
        loop.add_reader(link.fileno(), hear, loop, hub)
        # Nothing is ever written, so readable means closed.
        watched = life.watch()
        loop.add_reader(watched, all_ended, loop, watched)
        report_alive(loop)
        link.send(READY)

    def hear(loop: asyncio.AbstractEventLoop, hub: HubProcess) -> None:
        while (packet := link.receive()) is not None:
            if packet.word == APPLY:
                config = board.read()
                configure(config)
                hub.apply_rules(config)
                link.send(APPLIED)
        if not link.is_open:
            loop.remove_reader(link.fileno())

    def all_ended(loop: asyncio.AbstractEventLoop, watched: int) -> None:
        # Once: a closed pipe stays readable while the hub ends.
        loop.remove_reader(watched)
        os.kill(os.getpid(), signal.SIGTERM)

    def report_alive(loop: asyncio.AbstractEventLoop) -> None:
        link.send(ALIVE, "0")
        loop.call_later(ALIVE_EVERY_S, report_alive, loop)

    return run_hub(
        config, listening, ready, workers=workers, restarted=restarted, makers=service_makers
    )
