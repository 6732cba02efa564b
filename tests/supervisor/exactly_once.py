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
import random
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.loopback import held_port
from tests.supervisor.repeating import Figures, Repeating, kill_at_random
from tests.supervisor.service import Service

TOPIC = "orders"
AGAIN_SHARE = 0.1
BATCH_MAX = 8


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


class Publisher:
    """Publishes numbered events until each is answered."""

    def __init__(self, name: int, urls: list[str], seed: int, figures: Figures) -> None:
        self.published: list[str] = []
        self._name = name
        self._luck = random.Random(seed * 1000 + name)
        self._sending = Repeating(urls, self._luck, figures, (200,))

    async def run(self, count: int) -> None:
        """So many events, some single and some in batches."""
        n = 0
        while n < count:
            size = min(count - n, self._luck.choice((1, 1, self._luck.randint(2, BATCH_MAX))))
            names = [f"{self._name}-{index}" for index in range(n, n + size)]
            request = self._request(names)
            while await self._sending.until_answered(request):
                if self._luck.random() >= AGAIN_SHARE:
                    break
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


def _http(line: str, extra: str, body: bytes) -> bytes:
    head = f"{line}\r\nHost: localhost\r\nConnection: close\r\n{extra}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _victims(services: list[Service]) -> list[int]:
    children = [service.children() for service in services]
    return [pid for one in children for kind in ("hub", "worker") for pid in one[kind]]


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
        killing = group.create_task(
            kill_at_random(lambda: _victims(services), plan.kills, plan.pause_s, plan.seed, figures)
        )
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
