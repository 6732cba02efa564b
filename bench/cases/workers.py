"""What a second worker costs: the same load on one process and on a service of two workers."""

from __future__ import annotations

from collections.abc import Callable

from bench.cases.case import Result, Setup
from bench.cases.publishing import closed_loop
from bench.load import Load, Sample, connected, fan_out
from bench.server import Server, UnderTest

_VALUE_MAX = 1.6
# What it took when one worker took 56 µs and the goal was a ratio. One worker takes a ninth of that
# now, and a publish still has to reach the hub process and come back.
_PUBLISH_MAX_US = 41
_TWO = ("--workers", "2")


def publishing(setup: Setup) -> Result:
    """Single publishes in a closed loop: the way to the hub process and back included."""

    def run(server: UnderTest) -> Sample:
        return closed_loop(setup, server, 64)

    result = _compared(setup, "workers-publish", "a publish over 64 connections", run)
    result.title = "a publish over 64 connections with two workers, CPU of all processes"
    result.figure, result.to_reach = ("server_cpu_us", "µs"), f"≤ {_PUBLISH_MAX_US} µs"
    result.met = result.median("server_cpu_us") <= _PUBLISH_MAX_US and not result.median("refused")
    return result


def delivering(setup: Setup) -> Result:
    """Half of the streams on each worker, which each take the whole log."""
    count, rate = setup.count(1000), 100
    load = Load(("news",), rate, setup.seconds(5), count, warm_up_s=setup.seconds(0.5))

    def run(server: UnderTest) -> Sample:
        with connected(setup.plan(server, count, "news")) as crew:
            return fan_out(server, crew, load)

    title = f"a delivery, {count:,} clients x {rate}/s"
    result = _compared(setup, "workers-deliver", title, run)
    result.is_fan_out = True
    result.met = result.sound() and result.median("ratio") <= _VALUE_MAX
    return result


def _compared(setup: Setup, name: str, title: str, run: Callable[[UnderTest], Sample]) -> Result:
    samples = []
    for _ in range(setup.repeats):
        with Server(setup.server_cpu) as server:
            one = run(server)
        with Server(setup.server_cpu, _TWO) as server:
            sample = run(server)
        sample["one_cpu_us"] = one["server_cpu_us"]
        sample["ratio"] = sample["server_cpu_us"] / max(1e-3, one["server_cpu_us"])
        samples.append(sample)
    title = f"CPU of {title}: two workers to one"
    result = Result(name, title, f"≤ {_VALUE_MAX}", samples, ("ratio", "x"))
    result.is_fan_out = False
    cpu_us, one_us = result.median("server_cpu_us"), result.median("one_cpu_us")
    result.notes = [f"{cpu_us:.1f} us to {one_us:.1f} us"]
    return result
