"""The log platform on two nodes, counted: lines of an application by way of the agent and Kafka,
while a third node is added and removed again and again. A viewer at each node must see each line
once, in one order.

    python -m tests.examples.logs_soak --lines 1000000 --rate 15000

The nodes have the configuration of `examples/logs` and one Redis. A node is removed by SIGTERM and
SIGKILL in turn. With FASTSSE_TEST_KAFKA (tests/sources/kraft.py) the broker is Apache Kafka and the
agent is rsyslog, where it is installed; else both are those that the example has without them.
Each minute a line to standard error says how far it is, and whether all is right until there.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import pathlib
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastsse.client.listener import Listener
from tests.examples.logs_demo import EXAMPLE, demo
from tests.redis.server import RedisServer
from tests.sources import kraft
from tests.sources.flows import SOURCES, metric
from tests.supervisor.service import Service

_TOPIC = "logs/{service}/{level}"
_NUMBER = re.compile(r'"n": ?(\d+)|n=(\d+)"')
# The lines of a file are in order: the application writes to them in turn.
_FILES = 3
_REPORTS_EACH_S = 60.0
# How long a node that was added reads before it is removed.
_STAY_S = 5.0
_QUIET_S = 60.0
_ASSIGNED = "Partitions were assigned to a source."


class Viewer:
    """Reads everything at one node, and reconnects as browsers do.

    Attributes:
        times: how often each line came.
        seen: how many came.
        digest: of the lines in their order.
        gaps: reasons of the gaps that it received.
    """

    def __init__(self, url: str, lines: int) -> None:
        self.times = bytearray(lines)
        self.seen = 0
        self.digest = hashlib.sha256()
        self.gaps: list[str] = []
        self._listener = Listener(url, _TOPIC, last_event_id="earliest")
        self._reading = asyncio.create_task(self._read())

    def holes(self) -> int:
        """Lines that did not come although later ones of their file did."""
        files = [self.times[at::_FILES].rstrip(b"\0") for at in range(_FILES)]
        return sum(file.count(0) for file in files)

    def doubled(self) -> int:
        return len(self.times) - self.times.count(1) - self.times.count(0)

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._listener.aclose()

    async def _read(self) -> None:
        async for event in self._listener:
            if event.gap is not None:
                self.gaps.append(event.gap.reason)
                continue
            found = _NUMBER.search(event.data)
            assert found is not None, event.data
            number = int(found[1] or found[2])
            self.times[number] = min(255, self.times[number] + 1)
            self.seen += 1
            self.digest.update(b"%d," % number)


@dataclass
class Plan:
    """What is counted."""

    lines: int
    rate: float
    stay_s: float = _STAY_S
    found: dict[str, Any] = field(default_factory=dict)


@asynccontextmanager
async def _node(config: pathlib.Path, redis: RedisServer) -> AsyncIterator[Service]:
    flags = ("--port", "0", "--config", str(config), "--store", redis.url)
    service = await Service.start(*flags, FASTSSE_DRAIN="0s", FASTSSE_ACCESS_LINES="0")
    try:
        yield await service.wait()
    finally:
        await service.stop()


async def soak(plan: Plan, folder: pathlib.Path) -> dict[str, Any]:
    """Runs it, and returns what was counted."""
    example, jars = demo(), kraft.jars()
    programs = example.Programs(folder)
    (folder / "logs").mkdir()
    with contextlib.ExitStack() as stack:
        stack.callback(programs.close)
        is_kafka = jars is not None
        if jars is not None:
            broker = example.start_kafka(programs, folder, jars.removesuffix("/*"))
        else:
            broker = example.start_broker(programs)
        await asyncio.to_thread(example.make_topics, broker)
        redis = RedisServer(folder / "redis")
        redis.start()
        stack.callback(redis.close)
        config = folder / "fastsse.toml"
        text = (EXAMPLE / "fastsse.toml").read_text()
        config.write_text(text.replace("127.0.0.1:9092", broker))

        def start() -> None:
            agent = example.start_agent(programs, folder, broker, is_kafka=is_kafka)
            given = (folder / "logs", plan.rate, plan.lines)
            programs.start("app", sys.executable, EXAMPLE / "app.py", *given)
            plan.found = {"broker": "Apache Kafka" if is_kafka else "Tansu", "agent": agent}

        async with _node(config, redis) as one, _node(config, redis) as two:
            return await _counted(plan, [one.url, two.url], lambda: _node(config, redis), start)


async def _counted(
    plan: Plan, urls: Sequence[str], another: Callable[[], Any], start: Callable[[], None]
) -> dict[str, Any]:
    viewers = [Viewer(url, plan.lines) for url in urls]
    reporting = asyncio.create_task(_report(viewers))
    try:
        start()
        begun_s = time.monotonic()
        changes = await _change_nodes(plan, viewers, another)
        await _until_quiet(plan, viewers)
        seconds = time.monotonic() - begun_s
        repeats = [int(await metric(url, f'{SOURCES}{{what="repeats"}}')) for url in urls]
        return plan.found | {
            "lines": plan.lines,
            "nodes that came and went": changes,
            "once at each node": [one.times.count(1) for one in viewers],
            "missing": [one.times.count(0) for one in viewers],
            "doubled": [one.doubled() for one in viewers],
            "gaps": [one.gaps for one in viewers],
            "the same order": len({one.digest.digest() for one in viewers}) == 1,
            "messages that came again, and the log knew": repeats,
            "seconds": round(seconds, 1),
        }
    finally:
        reporting.cancel()
        for viewer in viewers:
            await viewer.close()


async def _report(viewers: list[Viewer]) -> None:
    while True:
        await asyncio.sleep(_REPORTS_EACH_S)
        for one in viewers:
            wrong = f"{one.holes()} missing, {one.doubled()} doubled, gaps {one.gaps}"
            print(f"{one.seen} seen, {wrong}", file=sys.stderr, flush=True)


async def _change_nodes(plan: Plan, viewers: list[Viewer], another: Callable[[], Any]) -> int:
    """Adds and removes a node while lines come. Returns how often."""
    changes = 0
    ends = (signal.SIGTERM, signal.SIGKILL)
    while any(viewer.seen < plan.lines for viewer in viewers):
        async with another() as node:
            has_read = await _reads(node, plan, viewers)
            node.signal(ends[changes % 2])
            await node.ended()
        changes += has_read
        if not has_read and all(viewer.seen >= plan.lines for viewer in viewers):
            break
        await asyncio.sleep(1)
    return changes


async def _reads(node: Service, plan: Plan, viewers: list[Viewer]) -> bool:
    """Returns when the node has had partitions for a while; False: no line was left for it."""
    while not _partitions(node):
        if all(viewer.seen >= plan.lines for viewer in viewers):
            return False
        await asyncio.sleep(0.05)
    await asyncio.sleep(plan.stay_s)
    return True


def _partitions(node: Service) -> int:
    """How many the node was given last."""
    given = [one for one in node.log if one.get("event") == _ASSIGNED]
    return int(given[-1]["partitions"]) if given else 0


async def _until_quiet(plan: Plan, viewers: list[Viewer]) -> None:
    """Returns when all have come and nothing comes any more."""
    last, since_s = -1, time.monotonic()
    while True:
        seen = sum(viewer.seen for viewer in viewers)
        if seen != last:
            last, since_s = seen, time.monotonic()
        quiet_s = time.monotonic() - since_s
        if quiet_s > (2 if seen >= len(viewers) * plan.lines else _QUIET_S):
            return
        await asyncio.sleep(0.1)


def is_right(counted: dict[str, Any]) -> bool:
    """Whether nothing was lost, doubled, or in another order."""
    right = [counted["lines"]] * 2
    no_gaps: list[list[str]] = [[], []]
    return bool(
        counted["once at each node"] == right
        and counted["the same order"]
        and counted["gaps"] == no_gaps
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=15_000, help="lines a second")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counted = asyncio.run(soak(Plan(given.lines, given.rate), pathlib.Path(folder)))
    for name, value in counted.items():
        print(f"{name}: {json.dumps(value)}")
    if not is_right(counted):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
