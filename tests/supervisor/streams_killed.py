"""Appends of producers to durable streams, each repeated until it is answered, while requests are
cut and processes are killed: in the end each is stored exactly once, in order.

    python -m tests.supervisor.streams_killed --appends 10000 --store sqlite
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from tests.supervisor.service import Service

CUT_SHARE = 0.2
CALM_S = 180


@dataclass
class Plan:
    """How much of everything, and with what luck."""

    appends: int = 200
    store: str = "sqlite"
    kills: int = 3
    pause_s: float = 0.5
    producers: int = 4
    seed: int = 0


@dataclass
class Figures:
    """What happened."""

    cut: int = 0
    kills: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class StreamProducer:
    """Appends numbers, each until it is answered."""

    def __init__(self, name: int, url: str, seed: int, figures: Figures) -> None:
        self._name = name
        self._url = urlsplit(url)
        self._luck = random.Random(seed * 1000 + name)
        self._figures = figures

    async def run(self, count: int) -> None:
        """So many appends."""
        for n in range(count):
            await self._until_answered(n)

    async def _until_answered(self, n: int) -> None:
        body = f"{self._name}-{n} ".encode()
        head = (
            f"POST /streams/log HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
            f"Producer-Id: p{self._name}\r\nProducer-Epoch: 0\r\nProducer-Seq: {n}\r\n\r\n"
        ).encode()
        deadline_s = time.monotonic() + CALM_S
        while True:
            assert time.monotonic() < deadline_s, "never answered"
            is_cut = self._luck.random() < CUT_SHARE
            status = await self._send(head + body, is_cut=is_cut)
            if status in (200, 204):
                return
            if status not in (0, 503):
                self._figures.faults.append(f"{self._name}-{n}: status {status}")
                return
            if not is_cut:
                await asyncio.sleep(0.02)

    async def _send(self, request: bytes, *, is_cut: bool) -> int:
        """The status of an answer; 0 where there is none."""
        writer = None
        try:
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection(self._url.hostname, self._url.port)
                writer.write(request)
                await writer.drain()
                if is_cut:
                    await asyncio.sleep(self._luck.random() * 0.004)
                    self._figures.cut += 1
                    return 0
                status = int((await reader.readline()).split()[1])
                self._figures.statuses[status] += 1
                return status
        except (OSError, TimeoutError, IndexError, ValueError):
            return 0
        finally:
            if writer is not None:
                writer.transport.abort()


async def _kill(service: Service, plan: Plan, figures: Figures) -> None:
    """Kills processes one at a time; of the memory store's none that holds the only copy."""
    luck = random.Random(plan.seed)
    while figures.kills < plan.kills:
        await asyncio.sleep(plan.pause_s * (0.5 + luck.random()))
        children = service.children()
        pids = [*children["hub"], *(children["worker"] if plan.store == "sqlite" else ())]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(luck.choice(pids), signal.SIGKILL)
                figures.kills += 1


async def _read(url: str) -> list[str]:
    """All content of the stream, page by page."""
    text, offset = "", "-1"
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        while True:
            answer = await client.get(f"{url}/streams/log", params={"offset": offset})
            answer.raise_for_status()
            text += answer.text
            offset = answer.headers["stream-next-offset"]
            if "stream-up-to-date" in answer.headers:
                return text.split()


async def run(plan: Plan) -> Figures:
    """Runs it, and says what is wrong in `faults`."""
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        store = "memory" if plan.store == "memory" else f"sqlite:{folder}/h.db"
        service = await Service.start("--port", "0", "--workers", "2", "--store", store)
        try:
            await service.wait()
            async with httpx.AsyncClient(trust_env=False) as client:
                headers = {"Content-Type": "text/plain"}
                answer = await client.put(f"{service.url}/streams/log", headers=headers)
                assert answer.status_code == 201
            count = plan.appends // plan.producers
            async with asyncio.TaskGroup() as group:
                killing = group.create_task(_kill(service, plan, figures))
                writers = [
                    StreamProducer(name, service.url, plan.seed, figures)
                    for name in range(plan.producers)
                ]
                await asyncio.gather(*(writer.run(count) for writer in writers))
                killing.cancel()
            stored = await _read(service.url)
            for name in range(plan.producers):
                mine = [one for one in stored if one.startswith(f"{name}-")]
                if mine != [f"{name}-{n}" for n in range(count)]:
                    figures.faults.append(
                        f"producer {name}: {len(mine)} of {count}, or in disorder"
                    )
        finally:
            service.signal(signal.SIGTERM)
            await service.ended()
    return figures


def main() -> int:
    """The long run as a command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--appends", type=int, default=10_000)
    parser.add_argument("--store", choices=("sqlite", "memory"), default="sqlite")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    figures = asyncio.run(run(Plan(given.appends, given.store, given.kills, seed=given.seed)))
    print(figures)
    return 1 if figures.faults else 0


if __name__ == "__main__":
    sys.exit(main())
