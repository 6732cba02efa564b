"""Kills processes at random while publishers and resuming subscribers run, and checks every
subscriber's sequence against what was acknowledged.

    python -m tests.supervisor.harness --kills 1000 --store sqlite
    python -m tests.supervisor.harness --kills 1000 --store memory
    python -m tests.supervisor.harness --kills 1000 --store redis

With a store in a file any process is killed, the supervisor too (all are started again then, on the
same port), and in any order. The memory store promises to survive one loss at a time, so there the
next kill waits until all are back and have what is kept, and the supervisor is spared.

Promised, and checked: no acknowledged event is lost, no position is used twice, nothing is seen
twice, all see the same order; whatever is missing was announced by a gap before it.
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
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from tests.eventstream import EventStream
from tests.loopback import held_port
from tests.redis.server import running
from tests.supervisor.ledger import Ledger, Seen
from tests.supervisor.service import Service, gone

TOPICS = ("a", "b", "c")
FEEDS = (("*",), ("a",), ("b", "c"), ("a", "b", "c"))
# For what must come back in the end, however busy the machine.
CALM_S = 180
# Requests of one run of a pipelining publisher.
PIPELINED = 16


@dataclass
class Plan:
    """How long, how many of everything, and with what luck."""

    kills: int = 20
    store: str = "sqlite"
    workers: int = 3
    publishers: int = 2
    pipeliners: int = 2
    subscribers: int = 12
    pause_s: float = 0.4
    seed: int = 0
    targets: dict[str, int] = field(default_factory=dict)


class Publisher:
    """Publishes numbered events one after another; what has no answer is not tried again."""

    def __init__(self, url: str, name: str, ledger: Ledger) -> None:
        self.url, self.name, self.ledger = url, name, ledger
        self.is_over = False

    async def run(self) -> None:
        number = 0
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            while not self.is_over:
                number += 1
                topic = TOPICS[number % len(TOPICS)]
                await self.publish(client, topic, f"{self.name}-{number}")
                await asyncio.sleep(0.005)

    async def publish(self, client: httpx.AsyncClient, topic: str, data: str) -> bool:
        """One event; whether it was acknowledged."""
        try:
            answer = await client.post(f"{self.url}/events?topic={topic}", content=data)
        except httpx.ConnectError:
            await asyncio.sleep(0.02)
            return False
        except httpx.HTTPError:
            self.ledger.unknown.add(data)
            return False
        if answer.status_code != 200:
            # Refused, and perhaps under way all the same: the hub was lost before it could say.
            self.ledger.unknown.add(data)
            return False
        self.ledger.acknowledge(answer.json()["id"], topic, data)
        return True


class Pipeliner(Publisher):
    """Publishes as fast as it is answered, a run of requests at a time on one connection: what the
    intake takes in batches."""

    async def run(self) -> None:
        number = 0
        while not self.is_over:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            try:
                while not self.is_over:
                    sent = {f"{self.name}-{number + n}": TOPICS[n % 3] for n in range(PIPELINED)}
                    number += PIPELINED
                    await self._publish_run(reader, writer, sent)
                    await asyncio.sleep(0.01)
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

    @property
    def _port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def _publish_run(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: dict[str, str]
    ) -> None:
        """What has no answer, or a refusal, may be published or not."""
        self.ledger.unknown.update(sent)
        writer.write(b"".join(_request(topic, data.encode()) for data, topic in sent.items()))
        for data, topic in sent.items():
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
            body = await reader.readexactly(int(length))
            if head.startswith(b"HTTP/1.1 200 "):
                self.ledger.unknown.discard(data)
                self.ledger.acknowledge(json.loads(body)["id"], topic, data)


def _request(topic: str, data: bytes) -> bytes:
    head = f"POST /events?topic={topic} HTTP/1.1\r\nHost: localhost\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(data) + data


class Subscriber:
    """An EventSource: reconnects with the last id that it has, for as long as it is let. Only the
    loss of a connection is met with another one: any other exception ends the run.

    Attributes:
        connects: connections that were made.
        resumes: connections that ended.
    """

    def __init__(self, address: tuple[str, int], topics: Sequence[str], begin: str = "") -> None:
        self.address = address
        self.seen = Seen(tuple(topics), last_id=begin)
        self.connects = self.resumes = 0
        self.is_over = False
        self.opened = asyncio.Event()

    async def run(self) -> None:
        while not self.is_over:
            try:
                await self._follow()
                self.resumes += 1
            except ConnectionRefusedError:
                await asyncio.sleep(0.1)  # The supervisor was killed.
            except (OSError, asyncio.IncompleteReadError):
                self.resumes += 1
            await asyncio.sleep(0.01)

    async def _follow(self) -> None:
        reader, writer = await asyncio.open_connection(*self.address)
        self.connects += 1
        try:
            query = "&".join(f"topic={topic}" for topic in self.seen.topics)
            last = f"Last-Event-ID: {self.seen.last_id}\r\n" if self.seen.last_id else ""
            # HTTP/1.0: no chunks to take apart.
            writer.write(f"GET /events?{query} HTTP/1.0\r\nHost: localhost\r\n{last}\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                self.seen.refused.append(head.split(b"\r\n", 1)[0].decode())
                return
            parsed, given = EventStream(), 0
            while data := await reader.read(65536):
                parsed.feed(data)
                for event in parsed.events[given:]:
                    self.seen.take(event)
                given = len(parsed.events)
                # The opening's id counts before any event: from there it goes on.
                if parsed.last_event_id:
                    self.seen.last_id = parsed.last_event_id
                    self.seen.begin(parsed.last_event_id)
                    self.opened.set()
        finally:
            writer.close()


class Harness:
    """One run."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.luck = random.Random(plan.seed)
        self.ledger = Ledger()
        self.killed: Counter[str] = Counter()
        self.slowest_s: Counter[str] = Counter()
        # No other process gets it while one supervisor is dead and the next not there yet.
        self._held = held_port()
        self.port: int = self._held.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        stores = {"memory": "memory", "sqlite": f"sqlite:{folder / 'history.db'}"}
        store = stores.get(plan.store, plan.store)
        self.arguments = (
            *("--port", str(self.port), "--workers", str(plan.workers), "--store", store),
            *("--retry", "10ms", "--drain", "100ms", "--access-lines", "0"),
            *("--history-events", "1000000", "--history-bytes", "200MiB"),
        )

    async def run(self) -> dict[str, object]:
        """All of it; the figures of the run, faults among them."""
        began_s = time.monotonic()
        await self._start()
        publishers = [
            Publisher(self.url, f"p{n}", self.ledger) for n in range(self.plan.publishers)
        ]
        publishers += [
            Pipeliner(self.url, f"q{n}", self.ledger) for n in range(self.plan.pipeliners)
        ]
        feeds = [FEEDS[n % len(FEEDS)] for n in range(self.plan.subscribers)]
        subscribers = [Subscriber(("127.0.0.1", self.port), topics) for topics in feeds]
        replay = Subscriber(subscribers[0].address, ("*",), "earliest")
        replay.seen.begin("0-0")
        try:
            batched = await self._ordeal(publishers, subscribers, replay)
        finally:
            await self.service.stop()
            self._held.close()
        seen = [one.seen for one in subscribers]
        return {
            "store": self.plan.store,
            "workers": self.plan.workers,
            "seed": self.plan.seed,
            "seconds": round(time.monotonic() - began_s, 1),
            "killed": dict(self.killed),
            "slowest_return_s": {name: round(s, 2) for name, s in self.slowest_s.items()},
            "batched": batched,
            "acknowledged": len(self.ledger.acknowledged),
            "unknown": len(self.ledger.unknown),
            "seen": sum(len(one.events) for one in seen),
            "connects": [one.connects for one in subscribers],
            "resumes": sum(one.resumes for one in subscribers),
            "gaps": dict(sum((one.gaps for one in seen), Counter())),
            "turned_away": dict(sum((one.turned_away for one in seen), Counter())),
            "replayed": len(replay.seen.events),
            # The last of them is who asked for everything after the run: it tells an event that is
            # lost from one that a subscriber missed.
            "faults": self.ledger.faults([*seen, replay.seen]),
        }

    async def _ordeal(
        self, publishers: Sequence[Publisher], subscribers: Sequence[Subscriber], replay: Subscriber
    ) -> int:
        """All that happens while the service is there; how many publishes were taken in batches. An
        exception of any task ends the others and is raised."""
        async with asyncio.TaskGroup() as group:
            following = [group.create_task(one.run()) for one in subscribers]
            publishing = [group.create_task(one.run()) for one in publishers]
            async with asyncio.timeout(CALM_S):
                await asyncio.gather(*(one.opened.wait() for one in subscribers))
            while sum(self.killed.values()) < self.plan.kills:
                await self._kill_one()
            for one in publishers:
                one.is_over = True
            await asyncio.wait(publishing)
            following.append(group.create_task(replay.run()))
            await self._settle(publishers[0], [*subscribers, replay])
            batched = await self._batched()
            for task in following:
                task.cancel()
        return batched

    async def _start(self) -> None:
        for _ in range(20):  # The port may still be held by workers that drain.
            self.service = await Service.start(*self.arguments)
            with contextlib.suppress(AssertionError):
                await self.service.wait(CALM_S)
                return
            await self.service.ended()
            await asyncio.sleep(0.2)
        raise RuntimeError(f"It does not start: {self.service.log[-3:]}")

    async def _kill_one(self) -> None:
        await asyncio.sleep(self.luck.uniform(0, 2 * self.plan.pause_s))
        children = self.service.children()
        choices = ["worker"] * 6 + ["hub"] * 3
        if self.plan.store != "memory":
            choices.append("supervisor")
        what = self.luck.choice(choices)
        pids = [self.service.process.pid] if what == "supervisor" else children[what]
        if not pids:
            return
        victim = self.luck.choice(pids)
        os.kill(victim, signal.SIGKILL)
        self.killed[what] += 1
        began_s = time.monotonic()
        if what == "supervisor":
            for pid in (*children["hub"], *children["worker"]):
                await gone(pid)
            await self.service.ended()
            await self._start()
            self._note(what, began_s)
        elif self.plan.store == "memory":
            await self._whole()
            self._note(what, began_s)

    async def _batched(self) -> int:
        """Publishes that the intakes of the present workers took."""
        async with httpx.AsyncClient(trust_env=False) as client:
            lines = (await client.get(f"{self.url}/metrics")).text.splitlines()
        name = "fastsse_publishes_batched_total"
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith(name))

    def _note(self, what: str, began_s: float) -> None:
        self.slowest_s[what] = max(self.slowest_s[what], time.monotonic() - began_s)

    async def _whole(self) -> None:
        """Returns when every worker serves, and all processes have what is kept."""
        await self.service.until(
            lambda stats: (
                len(stats["processes"]) == self.plan.workers
                and all(one["state"] == "ready" for one in stats["processes"])
            )
        )
        await self.service.handed_over()

    async def _settle(self, publisher: Publisher, subscribers: Sequence[Subscriber]) -> None:
        """A last event on every topic, until everybody has it."""
        last = {}
        async with asyncio.timeout(CALM_S), httpx.AsyncClient(trust_env=False) as client:
            for topic in TOPICS:
                tries = 0
                while not await publisher.publish(client, topic, f"last-{topic}-{tries}"):
                    tries += 1
                    await asyncio.sleep(0.1)
                last[topic] = f"last-{topic}-{tries}"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CALM_S):
                for one in subscribers:
                    wanted = {
                        last[t] for t in (TOPICS if one.seen.topics == ("*",) else one.seen.topics)
                    }
                    while not wanted <= one.seen.data:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)


async def run(plan: Plan) -> dict[str, object]:
    """One run in a folder of its own; `redis` is a Redis of its own, which is not killed."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as closing:
        if plan.store == "redis":
            redis = closing.enter_context(running(Path(folder), appendonly="yes"))
            plan = replace(plan, store=redis.url)
        return await Harness(plan, Path(folder)).run()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--store", choices=("sqlite", "memory", "redis"), default="sqlite")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument(
        "--pause", type=float, default=0.4, help="seconds between kills, on average"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    given = parser.parse_args()
    plan = Plan(given.kills, given.store, given.workers, pause_s=given.pause, seed=given.seed)
    figures = asyncio.run(run(plan))
    print(json.dumps(figures, indent=2))
    return 1 if figures["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
