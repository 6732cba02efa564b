"""Appends of producers to durable streams, each repeated until it is answered, while requests are
cut and processes are killed: in the end each is stored exactly once, in order.

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
        self._sending = Repeating(urls, luck, figures, (200, 204), keeps=True)

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


async def _read(url: str) -> list[str]:
    """All content of the stream, page by page."""
    pages, offset = [], "-1"
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        while True:
            answer = await client.get(f"{url}/streams/log", params={"offset": offset})
            answer.raise_for_status()
            pages.append(answer.text)
            offset = answer.headers["stream-next-offset"]
            if "stream-up-to-date" in answer.headers:
                return "".join(pages).split()


async def run(plan: Plan) -> Figures:
    """Runs it, and says what is wrong in `faults`."""
    figures, services = Figures(), []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        redis, store = None, "memory"
        if plan.store == "sqlite":
            store = f"sqlite:{folder}/h.db"
        elif plan.store == "redis":
            redis = RedisServer(Path(folder) / "r", appendonly="yes", appendfsync="always")
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
    count = plan.appends // plan.producers
    async with asyncio.TaskGroup() as group:  # An exception of who kills ends the run.
        killing = group.create_task(
            kill_at_random(
                lambda: _victims(services, redis, plan.store),
                plan.kills,
                plan.pause_s,
                plan.seed,
                figures,
            )
        )
        names = range(plan.producers)
        writers = [StreamProducer(name, urls, plan.seed, figures) for name in names]
        await asyncio.gather(*(writer.run(count) for writer in writers))
        killing.cancel()
    for url in urls:
        stored = await _read(url)
        for name in names:
            mine = [one for one in stored if one.startswith(f"{name}-")]
            if mine != [f"{name}-{n}" for n in range(count)]:
                figures.faults.append(f"producer {name}: {len(mine)} of {count}, or in disorder")


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
