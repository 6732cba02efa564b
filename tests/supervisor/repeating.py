"""Requests that are repeated until they are answered. Some are cut, and processes are killed."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

CUT_SHARE = 0.2
CALM_S = 180
ANSWER_S = 10


@dataclass
class Figures:
    """What happened. `sent` counts requests, `cut` those whose answer was not read, `read` what
    each reader read."""

    sent: int = 0
    cut: int = 0
    kills: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    read: list[int] = field(default_factory=list)


class Repeating:
    """Sends one request after the other, each until it is answered.

    Arguments:
        urls: of the services; one is chosen for each connection.
        luck: decides which requests are cut after they were sent.
        accepted: the statuses of an answer that ends a request. 503 and no answer repeat it, any
            other status is a fault.
        keeps: whether a connection is used again after an answer.
        calm_s: how long a request may be repeated before it counts as never answered.
    """

    def __init__(
        self,
        urls: Sequence[str],
        luck: random.Random,
        figures: Figures,
        accepted: Sequence[int],
        *,
        keeps: bool = False,
        calm_s: float = CALM_S,
    ) -> None:
        self._places = [(url.hostname, url.port) for url in map(urlsplit, urls)]
        self._luck = luck
        self._figures = figures
        self._accepted = accepted
        self._keeps = keeps
        self._calm_s = calm_s
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def until_answered(self, request: bytes) -> bool:
        """Whether it was accepted in the end."""
        deadline_s = time.monotonic() + self._calm_s
        while True:
            assert time.monotonic() < deadline_s, "never answered"
            is_cut = self._luck.random() < CUT_SHARE
            status = await self.send(request, is_cut=is_cut)
            if status in self._accepted:
                return True
            if status not in (0, 503):
                self._figures.faults.append(f"status {status} for {request[-80:]!r}")
                return False
            if not is_cut:
                await asyncio.sleep(0.02)

    async def send(self, request: bytes, *, is_cut: bool) -> int:
        """The status of an answer; 0 where there is none."""
        self._figures.sent += 1
        status = 0
        try:
            async with asyncio.timeout(ANSWER_S):
                if self._open is None:
                    self._open = await asyncio.open_connection(*self._luck.choice(self._places))
                reader, writer = self._open
                writer.write(request)
                await writer.drain()
                if is_cut:
                    await asyncio.sleep(self._luck.random() * 0.004)
                    self._figures.cut += 1
                else:
                    status = await _status(reader)
                    self._figures.statuses[status] += 1
        except (OSError, EOFError, TimeoutError, ValueError):
            status = 0
        if status not in self._accepted or not self._keeps:
            self.close()
        return status

    def close(self) -> None:
        """Drops its connection."""
        opened, self._open = self._open, None
        if opened is not None:
            opened[1].transport.abort()


async def _status(reader: asyncio.StreamReader) -> int:
    """Reads a whole answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line.partition(b":")[2]))
    return int(head.split(b" ", 2)[1])


async def kill_at_random(
    victims: Callable[[], Sequence[int | Callable[[], None]]],
    kills: int,
    pause_s: float,
    seed: int,
    figures: Figures,
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Kills so many, one at a time.

    Arguments:
        victims: what may be killed now: ids of processes, and functions that kill something.
        is_over: whether no more are to be killed.
    """
    luck = random.Random(seed)
    while figures.kills < kills and not is_over():
        await asyncio.sleep(pause_s * (0.5 + luck.random()))
        found = victims()
        if found:
            victim = luck.choice(found)
            with contextlib.suppress(ProcessLookupError):
                if isinstance(victim, int):
                    os.kill(victim, signal.SIGKILL)
                else:
                    await asyncio.to_thread(victim)
                figures.kills += 1
