"""One measured fan-out: a crew that is connected, a publisher, and the server's CPU."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from bench.machine import busy_us
from bench.server import UnderTest
from fastsse.swarm import Crew, OpenLoop, Plan, Schedule, SwarmResults

SETTLE_TIMEOUT_S = 60
DELIVERY_TIMEOUT_S = 15
WARM_UP_S = 0.5

Sample = dict[str, float]


@contextmanager
def punctual(*processes: int) -> Iterator[bool]:
    """Lets this thread (and processes given) run as soon as they are due, where that is allowed.

    The publisher and a few small clients share a core with a busy swarm; what they wait for that
    core is not the server's doing. Yields whether it was allowed.
    """
    allowed = True
    try:
        for process in (0, *processes):
            os.sched_setscheduler(process, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        allowed = False
    try:
        yield allowed
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@dataclass(frozen=True, slots=True)
class Load:
    """What is published while a crew listens.

    Attributes:
        subscribers: connections that each event reaches (for the expected number).
        depth: publishes that may await their answers.
    """

    topics: Sequence[str]
    rate: float
    duration_s: float
    subscribers: int
    size_bytes: int = 128
    warm_up_s: float = WARM_UP_S
    depth: int = 8


def publish(url: str, load: Load, duration_s: float) -> SwarmResults:
    """Publishes punctually at the load's rate over one keep-alive connection."""
    schedule = Schedule(
        url=url,
        topics=load.topics,
        rate=load.rate,
        duration_s=duration_s,
        size_bytes=load.size_bytes,
        depth=load.depth,
    )
    with punctual():
        return OpenLoop(schedule).run()


def fan_out(server: UnderTest, crew: Crew, load: Load) -> Sample:
    """Warms up, then measures from the first publish to the last delivery."""
    start = crew.figures()["events"]
    if load.warm_up_s:
        warm = publish(server.url, load, load.warm_up_s)
        crew.wait_for_events(start + _expected(warm, load), DELIVERY_TIMEOUT_S)
    return measured(
        server, crew, lambda: publish(server.url, load, load.duration_s), load.subscribers
    )[0]


def measured(
    server: UnderTest, crew: Crew, run: Callable[[], SwarmResults], subscribers: int
) -> tuple[Sample, SwarmResults]:
    """Measures from the start of `run` to the last delivery of what it published.

    Args:
        run: publishes, and returns what a publisher measured.

    Returns:
        The sample, and all that the crew counted meanwhile.
    """
    before, cpu_before, metrics_before = crew.figures(), server.cpu_us(), server.metrics()
    began, busy_before = time.monotonic(), busy_us()
    published = run()
    expected = published["events_accepted"] * subscribers
    crew.wait_for_events(before["events"] + expected, DELIVERY_TIMEOUT_S)
    wall_s = time.monotonic() - began
    cpu_us = server.cpu_us() - cpu_before
    metrics = server.metrics()
    busy = busy_us() - busy_before
    got = crew.figures() - before
    sample = sample_of(got, published, expected, cpu_us, wall_s)
    sample["others_busy"] = others_busy(sample, busy, wall_s)
    for name in ("deliveries", "sends"):
        key = f"fastsse_{name}_total"
        sample[name] = metrics.get(key, 0) - metrics_before.get(key, 0)
    return sample, got


def others_busy(sample: Sample, machine_busy_us: int, wall_s: float) -> float:
    """Cores that neither the server nor the clients kept busy: what disturbed the run."""
    own = sample["server_busy"] + sample["client_busy"]
    return max(0.0, machine_busy_us / 1e6 / wall_s - own)


def _expected(published: SwarmResults, load: Load) -> int:
    return published["events_accepted"] * load.subscribers


def sample_of(
    got: SwarmResults, published: SwarmResults, expected: int, cpu_us: int, wall_s: float
) -> Sample:
    """The figures of one run, in milliseconds and microseconds."""
    deliveries = max(1, got["events"])
    p50, p90, p99, p999 = got.measures["latency"].percentiles_us(50, 90, 99, 99.9)
    done50, done99 = got.measures["completion"].percentiles_us(50, 99)
    answer50, answer99 = published.measures["answer"].percentiles_us(50, 99)
    return {
        "published": published["events_accepted"],
        "not_published": published["requests"] + published["unsent"] - published["accepted"],
        "expected": expected,
        "delivered": got["events"],
        "delivered_share": got["events"] / max(1, expected),
        "lost": got["lost"] + got["lost_announced"] - got["late"],
        "repeated": got["repeated"] + got["id_repeated"],
        "disordered": got["late"] + got["id_disordered"],
        "disconnects": sum(n for name, n in got.counters.items() if name.startswith("end_")),
        "p50_ms": p50 / 1000,
        "p90_ms": p90 / 1000,
        "p99_ms": p99 / 1000,
        "p99_9_ms": p999 / 1000,
        "max_ms": got.measures["latency"].max_us() / 1000,
        "last_client_p50_ms": done50 / 1000,
        "last_client_p99_ms": done99 / 1000,
        "answer_p50_ms": answer50 / 1000,
        "answer_p99_ms": answer99 / 1000,
        "publisher_late_p99_ms": published.measures["delay"].percentiles_us(99)[0] / 1000,
        "client_stall_p99_9_ms": got.measures["turn"].percentiles_us(99.9)[0] / 1000,
        "server_cpu_us": cpu_us / deliveries,
        "client_cpu_us": got["cpu_us"] / deliveries,
        "server_busy": cpu_us / 1e6 / wall_s,
        "client_busy": (got["cpu_us"] + published["cpu_us"]) / 1e6 / wall_s,
        "churned": got["churned"],
        "bytes_a_delivery": got["bytes"] / deliveries,
        "wall_s": wall_s,
    }


@contextmanager
def connected(plan: Plan) -> Iterator[Crew]:
    """A crew whose connections are all open.

    Raises:
        RuntimeError: some did not become streams.
    """
    with Crew(plan) as crew:
        crew.wait_until_settled(SETTLE_TIMEOUT_S)
        counters = crew.counters()
        opened = counters["stream"] + counters["slow"]
        if plan.churn_rate:  # some have left already, and others come
            opened = plan.connections - counters["over"]
        if opened < plan.connections:
            raise RuntimeError(f"only {opened:,} of {plan.connections:,} streams open")
        yield crew
