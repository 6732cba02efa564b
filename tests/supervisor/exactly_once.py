"""Publishes with keys, each repeated until it is answered, while requests are cut and processes are
killed at random: in the end each is stored exactly once.

    python -m tests.supervisor.exactly_once --publishes 10000 --store sqlite
    python -m tests.supervisor.exactly_once --publishes 10000 --store redis

With sqlite one service has two workers; with Redis two services share the log. Singles have a key
in the query, batches a key a line or one for the request. One request in five is cut after it was
sent, before its answer is read, and repeated then; one in ten is repeated though it was answered.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.loopback import held_port
from tests.supervisor.service import Service

TOPIC = "orders"
CUT_SHARE = 0.2
AGAIN_SHARE = 0.1
BATCH_MAX = 8
CALM_S = 180


@dataclass
class Plan:
    """How much of everything, and with what luck."""

    publishes: int = 300
    store: str = "sqlite"
    redis_url: str = ""
    kills: int = 3
    pause_s: float = 0.5
    publishers: int = 4
    seed: int = 0


@dataclass
class Figures:
    """What happened."""

    sent: int = 0
    cut: int = 0
    kills: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Publisher:
    """Publishes numbered events until each is answered."""

    def __init__(self, name: int, urls: list[str], seed: int, figures: Figures) -> None:
        self.published: list[str] = []
        self._name = name
        self._urls = urls
        self._luck = random.Random(seed * 1000 + name)
        self._figures = figures

    async def run(self, count: int) -> None:
        """So many events, some single and some in batches."""
        n = 0
        while n < count:
            size = min(count - n, self._luck.choice((1, 1, self._luck.randint(2, BATCH_MAX))))
            names = [f"{self._name}-{index}" for index in range(n, n + size)]
            await self._until_answered(self._request(names))
            self.published += names
            n += size

    def _request(self, names: list[str]) -> bytes:
        if len(names) == 1:
            head = f"POST /events?topic={TOPIC}&key={names[0]} HTTP/1.1"
            return _http(head, "", names[0].encode())
        way = self._luck.random() < 0.5
        lines = [{"topic": TOPIC, "data": name} | ({"key": name} if way else {}) for name in names]
        key = "" if way else f'Idempotency-Key: "{names[0]}+"\r\n'
        body = "\n".join(map(json.dumps, lines)).encode()
        extra = f"Content-Type: application/x-ndjson\r\n{key}"
        return _http("POST /events HTTP/1.1", extra, body)

    async def _until_answered(self, request: bytes) -> None:
        deadline_s = time.monotonic() + CALM_S
        is_done = False
        while not is_done:
            assert time.monotonic() < deadline_s, "never answered"
            is_cut = self._luck.random() < CUT_SHARE
            status = await self._send(request, is_cut=is_cut)
            is_done = status == 200
            if status not in (0, 200, 503):
                self._figures.faults.append(f"status {status}")
                return
            if status != 200 and not is_cut:
                await asyncio.sleep(0.02)
            if is_done and self._luck.random() < AGAIN_SHARE:
                await self._send(request, is_cut=False)

    async def _send(self, request: bytes, *, is_cut: bool) -> int:
        """The status of an answer; 0 where there is none."""
        url = urlsplit(self._luck.choice(self._urls))
        self._figures.sent += 1
        writer = None
        try:
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection(url.hostname, url.port)
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


def _http(line: str, extra: str, body: bytes) -> bytes:
    head = f"{line}\r\nHost: localhost\r\nConnection: close\r\n{extra}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _kill(services: list[Service], plan: Plan, figures: Figures) -> None:
    luck = random.Random(plan.seed)
    while True:
        await asyncio.sleep(plan.pause_s * (0.5 + luck.random()))
        if figures.kills >= plan.kills:
            return
        children = luck.choice(services).children()
        pids = [*children["hub"], *children["worker"]]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(luck.choice(pids), signal.SIGKILL)
                figures.kills += 1


async def _stored(url: str, last: str) -> list[str]:
    """All data of the topic, in order, up to a mark."""
    data: list[str] = []
    timeout = httpx.Timeout(10, read=60)
    async with httpx.AsyncClient(trust_env=False, timeout=timeout) as client:
        query = f"/events?topic={TOPIC}&last_event_id=earliest"
        async with client.stream("GET", url + query) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("event: fastsse.gap"):
                    raise AssertionError("history has a gap")
                if line.startswith("data: "):
                    data.append(line[6:])
                    if data[-1] == last:
                        return data[:-1]
    raise AssertionError("the stream ended")


async def run(plan: Plan) -> Figures:
    """Runs it, and says what is wrong in `faults`."""
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ports:
        kept = ["--history-events", "1000000", "--history-bytes", "1GiB", "--key-window", "1h"]
        store = plan.redis_url if plan.store == "redis" else f"sqlite:{folder}/h.db"
        services = []
        for _ in range(2 if plan.store == "redis" else 1):
            held = ports.enter_context(contextlib.closing(held_port()))
            port = held.getsockname()[1]
            options = ["--port", str(port), "--workers", "2", "--store", store, *kept]
            services.append(await Service.start(*options))
        try:
            for service in services:
                await service.wait()
            await _publish(services, plan, figures)
        finally:
            for service in services:
                service.signal(signal.SIGTERM)
            for service in services:
                await service.ended()
    return figures


async def _publish(services: list[Service], plan: Plan, figures: Figures) -> None:
    urls = [service.url for service in services]
    publishers = [Publisher(name, urls, plan.seed, figures) for name in range(plan.publishers)]
    async with asyncio.TaskGroup() as group:  # An exception of who kills ends the run.
        killing = group.create_task(_kill(services, plan, figures))
        count = plan.publishes // plan.publishers
        await asyncio.gather(*(publisher.run(count) for publisher in publishers))
        killing.cancel()
    mark = Publisher(99, urls, plan.seed, figures)
    await mark.run(1)
    stored = Counter(await _stored(urls[0], mark.published[0]))
    wanted = Counter(name for publisher in publishers for name in publisher.published)
    lost, more = wanted - stored, stored - wanted
    figures.faults += [f"{name} is not stored" for name in sorted(lost)]
    figures.faults += [f"{name} is stored {count + 1} times" for name, count in more.items()]


def main() -> int:
    """The long run as a command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--publishes", type=int, default=10_000)
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = ""
        if given.store == "redis":
            from tests.redis.server import running

            folder = stack.enter_context(tempfile.TemporaryDirectory())
            url = stack.enter_context(running(Path(folder))).url
        plan = Plan(given.publishes, given.store, url, given.kills, seed=given.seed)
        figures = asyncio.run(run(plan))
    print(figures)
    return 1 if figures.faults else 0


if __name__ == "__main__":
    sys.exit(main())
