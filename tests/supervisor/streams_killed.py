"""Appends of producers to durable streams, each repeated until it is answered, while requests are
cut and processes are killed: in the end each is stored exactly once, in order.

A reader that follows all the time, and a new one of each service at the end, count what they read:
the next number of each producer has to come next, whatever is killed.

    python -m tests.supervisor.streams_killed --appends 10000 --store sqlite
    python -m tests.supervisor.streams_killed --appends 10000 --store redis

Killed are workers and hub processes; with the memory store only hub processes, because the workers
have the only copies. With Redis two services share the log, and Redis itself is killed too.
"""

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.redis.server import RedisServer
from tests.supervisor.repeating import Figures, Repeating, kill_at_random
from tests.supervisor.service import Service

_ROOM = ("--streams-total", "2GiB")
# What a Redis with a million entries needs to start on a busy machine, and what waits for it.
_CALM_S = 900


@dataclass
class Plan:
    """How much of everything, and with what luck."""

    appends: int = 200
    store: str = "sqlite"
    ack: str = "written"
    kills: int = 3
    pause_s: float = 0.5
    producers: int = 4
    seed: int = 0


class StreamProducer:
    """Appends numbers, each until it is answered."""

    def __init__(self, name: int, urls: list[str], seed: int, figures: Figures) -> None:
        self._name = name
        luck = random.Random(seed * 1000 + name)
        self._sending = Repeating(urls, luck, figures, (200, 204), keeps=True, calm_s=_CALM_S)

    async def run(self, count: int) -> None:
        """So many appends."""
        for n in range(count):
            body = f"{self._name}-{n} ".encode()
            head = (
                f"POST /streams/log HTTP/1.1\r\nHost: localhost\r\n"
                f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
                f"Producer-Id: p{self._name}\r\nProducer-Epoch: 0\r\nProducer-Seq: {n}\r\n\r\n"
            ).encode()
            if not await self._sending.until_answered(head + body):
                break
        self._sending.close()


def _victims(
    services: list[Service], redis: RedisServer | None, store: str
) -> Sequence[int | Callable[[], None]]:
    found: list[int | Callable[[], None]] = []
    for service in services:
        children = service.children()
        found += [*children["hub"], *(children["worker"] if store != "memory" else ())]
    if redis is not None:
        found.append(lambda: _restart(redis))
    return found


def _restart(redis: RedisServer) -> None:
    redis.kill()
    redis.start()


class ContentReader:
    """Reads the stream from its beginning on, by the offsets that it is given, and counts.

    Arguments:
        urls: of the services; one is chosen for each page.
        luck: chooses.
        producers: how many there are.

    Attributes:
        counts: how many appends of each producer were read.
        fault: what is wrong; empty: nothing.
    """

    def __init__(self, urls: Sequence[str], luck: random.Random, producers: int) -> None:
        self.counts = [0] * producers
        self.fault = ""
        self._urls = urls
        self._luck = luck
        self._offset = "-1"

    async def run(self, is_last: Callable[[], bool] = lambda: True) -> None:
        """Reads to the end, from when on `is_last`; requests without an answer are repeated."""
        deadline_s = time.monotonic() + _CALM_S
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            while not self.fault:
                is_end = is_last()
                if await self._page(client):
                    deadline_s = time.monotonic() + _CALM_S
                    if is_end and self._is_up_to_date:
                        return
                if self._is_up_to_date:
                    await asyncio.sleep(0.05)
                assert time.monotonic() < deadline_s, "never read"

    async def _page(self, client: httpx.AsyncClient) -> bool:
        """Whether a page was read."""
        self._is_up_to_date = True
        url = f"{self._luck.choice(self._urls)}/streams/log"
        try:
            answer = await client.get(url, params={"offset": self._offset})
        except httpx.HTTPError:
            return False
        if answer.status_code == 503:
            return False
        if answer.status_code != 200:
            self.fault = f"{answer.status_code} for {self._offset}: {answer.text}"
            return False
        for one in answer.text.split():
            producer, _, n = one.partition("-")
            self._take(one, int(producer), int(n))
        offset = answer.headers["stream-next-offset"]
        if self._offset != "-1" and offset < self._offset:
            self.fault = f"{offset} after {self._offset}"
        self._offset = offset
        self._is_up_to_date = "stream-up-to-date" in answer.headers
        return True

    def _take(self, one: str, producer: int, n: int) -> None:
        if n == self.counts[producer]:
            self.counts[producer] += 1
        elif not self.fault:
            self.fault = f"{one} in place of {producer}-{self.counts[producer]}"


async def run(plan: Plan) -> Figures:
    """Runs it, and says what is wrong in `faults`."""
    figures, services = Figures(), []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        redis, store = None, "memory"
        if plan.store == "sqlite":
            store = f"sqlite:{folder}/h.db"
        elif plan.store == "redis":
            redis = RedisServer(Path(folder) / "r", _CALM_S, appendonly="yes", appendfsync="always")
            stack.callback(redis.close)
            redis.start()
            store = redis.url
        options = ["--port", "0", "--workers", "2", "--store", store, *_ROOM]
        if plan.store == "sqlite":
            options += ["--ack", plan.ack]
        try:
            for _ in range(1 if redis is None else 2):
                services.append(await Service.start(*options))
            for service in services:
                await service.wait()
            await _append(plan, services, redis, figures)
        finally:
            for service in services:
                service.signal(signal.SIGTERM)
            for service in services:
                await service.ended()
    return figures


async def _append(
    plan: Plan, services: list[Service], redis: RedisServer | None, figures: Figures
) -> None:
    urls = [service.url for service in services]
    async with httpx.AsyncClient(trust_env=False) as client:
        headers = {"Content-Type": "text/plain"}
        answer = await client.put(f"{urls[0]}/streams/log", headers=headers)
        assert answer.status_code == 201
    count, luck = plan.appends // plan.producers, random.Random(plan.seed)
    follower, is_over = ContentReader(urls, luck, plan.producers), asyncio.Event()
    async with asyncio.TaskGroup() as group:  # An exception of one ends the run.
        group.create_task(
            kill_at_random(
                lambda: _victims(services, redis, plan.store),
                plan.kills,
                plan.pause_s,
                plan.seed,
                figures,
                is_over.is_set,
            )
        )
        group.create_task(follower.run(is_over.is_set))
        names = range(plan.producers)
        writers = [StreamProducer(name, urls, plan.seed, figures) for name in names]
        await asyncio.gather(*(writer.run(count) for writer in writers))
        is_over.set()
    readers = [ContentReader([url], luck, plan.producers) for url in urls]
    for reader in readers:
        await reader.run()
    for name, reader in zip(("follower", *urls), (follower, *readers), strict=True):
        figures.read.append(sum(reader.counts))
        if reader.fault:
            figures.faults.append(f"{name}: {reader.fault}")
        elif reader.counts != [count] * plan.producers:
            figures.faults.append(f"{name} read {reader.counts} of {count} each")


def main() -> int:
    """The long run as a command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--appends", type=int, default=10_000)
    parser.add_argument("--store", choices=("sqlite", "memory", "redis"), default="sqlite")
    parser.add_argument("--ack", choices=("written", "synced"), default="written")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between kills")
    parser.add_argument("--producers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    plan = Plan(
        appends=given.appends,
        store=given.store,
        ack=given.ack,
        kills=given.kills,
        pause_s=given.pause,
        producers=given.producers,
        seed=given.seed,
    )
    began_s = time.monotonic()
    figures = asyncio.run(run(plan))
    print(plan, figures, f"{time.monotonic() - began_s:.0f} s", sep="\n")
    return 1 if figures.faults else 0


if __name__ == "__main__":
    sys.exit(main())
