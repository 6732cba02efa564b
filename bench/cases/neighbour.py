"""A small channel while a large one takes all that the server has."""

from __future__ import annotations

import threading
import time

from bench.cases.case import Result, Setup
from bench.load import Load, Sample, connected, others_busy, publish, punctual, sample_of
from bench.machine import busy_us
from bench.server import UnderTest
from fastsse.swarm import Crew


def neighbour(setup: Setup) -> Result:
    """A small channel while a large one takes all that the server has."""
    large, small, rate = setup.count(10_000), 10, 100.0
    seconds = setup.seconds(5)
    samples = []
    for _ in range(setup.repeats):
        with (
            setup.server() as server,
            connected(setup.plan(server, large, "large")) as crowd,
            connected(setup.plan(server, small, "small")) as few,
        ):
            sample = _neighbour_run(server, crowd, few, rate, seconds)
        samples.append(setup.set_beside_bare(sample, large, rate, seconds))
    title = f"{small} clients x 20/s next to {large:,} x {rate:.0f}/s"
    result = Result("neighbour", title, "p99 ≤ 30 ms", samples, ("p99_ms", "ms p99"))
    result.met = result.sound() and result.median("p99_ms") <= 30
    result.notes = [
        f"the large channel: {result.median('large_delivered'):.1%} delivered, "
        f"p99 {result.median('large_p99_ms'):.0f} ms",
        f"server {result.median('server_busy'):.0%} busy",
    ]
    return result


def _neighbour_run(
    server: UnderTest, crowd: Crew, few: Crew, rate: float, seconds: float
) -> Sample:
    heavy = Load(("large",), rate, seconds + 1, crowd.plan.connections)
    light = Load(("small",), 20, seconds, few.plan.connections)
    crowd_before, few_before, cpu_before = crowd.figures(), few.figures(), server.cpu_us()
    began, busy_before = time.monotonic(), busy_us()
    found = []
    thread = threading.Thread(target=lambda: found.append(publish(server.url, heavy, seconds + 1)))
    with punctual(*few.process_ids):
        thread.start()
        time.sleep(min(0.5, seconds))
        published = publish(server.url, light, seconds)
        thread.join()
    expected = published["events_accepted"] * few.plan.connections
    few.wait_for_events(few_before["events"] + expected, 10)
    crowd_expected = found[0]["events_accepted"] * crowd.plan.connections
    crowd.wait_for_events(crowd_before["events"] + crowd_expected, 20)
    wall_s, cpu_us = time.monotonic() - began, server.cpu_us() - cpu_before
    busy = busy_us() - busy_before
    crowd_got = crowd.figures() - crowd_before
    sample = sample_of(few.figures() - few_before, published, expected, cpu_us, wall_s)
    sample["large_delivered"] = crowd_got["events"] / max(1, crowd_expected)
    sample["large_p99_ms"] = crowd_got.measures["latency"].percentiles_us(99)[0] / 1000
    sample["server_cpu_us"] = cpu_us / max(1, crowd_got["events"])
    sample["client_busy"] += (crowd_got["cpu_us"] + found[0]["cpu_us"]) / 1e6 / wall_s
    sample["others_busy"] = others_busy(sample, busy, wall_s)
    return sample
