"""Several nodes on one Redis: from one to another, how fast, and how soon after an outage."""

from __future__ import annotations

import statistics
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from bench.cases.case import Result, Setup
from bench.cases.publishing import closed_loop, publish_speed
from bench.load import DELIVERY_TIMEOUT_S, Load, Sample, connected, measured, publish
from bench.redis import Redis
from bench.server import Server, UnderTest
from fastsse.swarm import Crew, SwarmResults

TOPIC = "news"
BACK_TIMEOUT_S = 60
# An answer comes when the event is back from Redis, behind all that the nodes' core is busy with;
# the publisher must not be what holds the rate up.
DEPTH = 256
# Nodes that read what one of them publishes.
READERS = (1, 3, 6)
# Redis has nothing to do for so long: all nodes have read everything.
SETTLE_S = 0.5


@contextmanager
def node(setup: Setup, redis: Redis) -> Iterator[Server]:
    """A server on a log."""
    with Server(setup.server_cpu, ("--store", redis.url)) as server:
        yield server


def publish_redis(setup: Setup) -> Result:
    """Each event came back down the log when its publisher is answered."""

    @contextmanager
    def alone() -> Iterator[UnderTest]:
        with Redis(setup.server_cpu) as redis, node(setup, redis) as server:
            yield server

    def start() -> AbstractContextManager[UnderTest]:
        return alone()

    return publish_speed(setup, "publish-redis", 1, 64, 8_000, start, ", Redis")


def ceiling(setup: Setup) -> Result:
    """What Redis itself needs for an event, and for each node that reads it."""
    few, _, many = READERS
    samples: list[Sample] = []
    for _ in range(setup.repeats):
        # What the nodes use counts as other programs: it would say nothing.
        sample: Sample = {"others_busy": 0.0}
        cost = {count: _redis_us(setup, count) for count in READERS}
        sample |= {f"nodes_{count}_us": cost[count] for count in READERS}
        each_us = (cost[many] - cost[few]) / (many - few)
        samples.append(sample | {"each_us": each_us, "store_us": cost[few] - few * each_us})
    title = "CPU of Redis to store an event that 64 connections publish at once"
    result = Result("redis-ceiling", title, "stated", samples, ("store_us", "µs"))
    result.is_fan_out = False
    each = sorted(sample["each_us"] for sample in samples)
    with_nodes = ", ".join(f"{result.median(f'nodes_{count}_us'):.1f}" for count in READERS)
    result.notes = [
        f"{statistics.median(each):.2f} µs more for each node that reads it ({each[0]:.2f} to "
        f"{each[-1]:.2f})",
        f"with {', '.join(map(str, READERS))} nodes {with_nodes} µs",
    ]
    return result


def _redis_us(setup: Setup, count: int) -> float:
    """CPU of Redis an event, until every node has read all."""
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(setup.server_cpu))
        nodes = [stack.enter_context(node(setup, redis)) for _ in range(count)]
        before_us, last_us = redis.cpu_us(), -1
        published = closed_loop(setup, nodes[0], 64, seconds=2)["accepted"]
        while last_us != (now_us := redis.cpu_us()):
            last_us = now_us
            time.sleep(SETTLE_S)
        return (last_us - before_us) / max(1, published)


def across(setup: Setup) -> Result:
    """At the rate at which one node is measured: more than two cores do, so its delay says only
    how far behind they fall."""
    return _across(setup, "nodes", 1000)


def across_in_reach(setup: Setup) -> Result:
    """At a rate that three nodes, Redis and all clients can carry on two cores."""
    return _across(setup, "nodes-in-reach", 250)


def _across(setup: Setup, name: str, rate: float) -> Result:
    """Published on one node, received on another, compared with one node alone."""
    connections, seconds = setup.count(1000), setup.seconds(5)
    samples = []
    for _ in range(setup.repeats):
        alone = _fan_out(setup, 1, connections, rate, seconds)
        sample = _fan_out(setup, 3, connections, rate, seconds)
        sample["alone_p50_ms"], sample["alone_p99_ms"] = alone["p50_ms"], alone["p99_ms"]
        samples.append(sample)
    title = f"three nodes, {connections:,} clients each x {rate:,}/s, from one to another"
    result = Result(name, title, "all delivered", samples, ("p99_ms", "ms p99"))
    result.met = result.sound()
    result.notes = [
        f"p50 {result.median('p50_ms'):.1f} ms",
        f"one node alone: p50 {result.median('alone_p50_ms'):.1f}, "
        f"p99 {result.median('alone_p99_ms'):.1f} ms",
    ]
    return result


def _fan_out(setup: Setup, count: int, connections: int, rate: float, seconds: float) -> Sample:
    """Publishes to the first node; the sample is what the last one's clients saw."""
    load = Load((TOPIC,), rate, seconds, connections, depth=DEPTH)
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(setup.server_cpu))
        nodes = [stack.enter_context(node(setup, redis)) for _ in range(count)]
        crews = [
            stack.enter_context(connected(setup.plan(server, connections, TOPIC)))
            for server in nodes
        ]

        def run() -> SwarmResults:
            before = [crew.figures()["events"] for crew in crews]
            figures = publish(nodes[0].url, load, seconds)
            expected = figures["events_accepted"] * connections
            for crew, had in zip(crews[:-1], before, strict=False):
                crew.wait_for_events(had + expected, DELIVERY_TIMEOUT_S)
            return figures

        return measured(nodes[-1], crews[-1], run, connections)[0]


def outage(setup: Setup) -> Result:
    """Redis is away for a while: how long after it is back events reach everybody again."""
    away_s, samples = setup.seconds(10), []
    for _ in range(setup.repeats):
        with ExitStack() as stack:
            redis = stack.enter_context(Redis())
            nodes = [stack.enter_context(node(setup, redis)) for _ in range(3)]
            plans = [setup.plan(server, setup.count(1000), TOPIC) for server in nodes]
            crews = [stack.enter_context(connected(plan)) for plan in plans]
            back_s = _back_s(redis, nodes, crews, away_s)
            samples.append({"back_s": back_s, "others_busy": 0.0})
    title = f"three nodes, Redis away for {away_s:g} s: back to all live"
    result = Result("redis-outage", title, "≤ 2 s", samples, ("back_s", "s"))
    result.is_fan_out = False
    result.met = result.median("back_s") <= 2
    return result


def _back_s(redis: Redis, nodes: list[Server], crews: list[Crew], away_s: float) -> float:
    """From Redis taking connections to an event of every node at every client."""
    redis.stop()
    time.sleep(away_s)
    before = [crew.figures()["events"] for crew in crews]
    redis.start()
    began = time.monotonic()
    for server in nodes:
        while not _publishes(server):
            if time.monotonic() > began + BACK_TIMEOUT_S:
                raise RuntimeError("a node did not come back")
            time.sleep(0.01)
    for crew, count in zip(crews, before, strict=True):
        opened = crew.counters()["stream"]
        crew.wait_for_events(count + len(nodes) * opened, DELIVERY_TIMEOUT_S)
    return time.monotonic() - began


def _publishes(server: Server) -> bool:
    try:
        address = f"{server.url}/events?topic={TOPIC}"
        urllib.request.urlopen(address, data=b"back", timeout=5).close()
    except urllib.error.HTTPError:
        return False
    return True
