"""What an idle stream costs in memory."""

from __future__ import annotations

import time
from contextlib import ExitStack

from bench.cases.case import Result, Setup
from bench.load import Sample, connected
from bench.machine import kernel_bytes

STEPS = 5


def _fill(setup: Setup, more: int, topic: str) -> list[Sample]:
    """Memory as streams are added to a fresh server process, from before the first one on.

    Nothing closes meanwhile: pages that a closed stream touched would take a new one for nothing.
    """
    points = []
    with setup.server() as server, ExitStack() as streams:
        time.sleep(setup.seconds(1))
        start, kernel_start = server.memory(), kernel_bytes()
        for step in range(STEPS + 1):
            if step:
                own = topic.replace("{n}", f"{step}-{{n}}")
                streams.enter_context(connected(setup.plan(server, more // STEPS, own)))
                time.sleep(setup.seconds(1))
            grown = {key: float(value - start[key]) for key, value in server.memory().items()}
            kernel = float(kernel_bytes() - kernel_start)
            points.append(
                {"connections": float(step * (more // STEPS)), **grown, "kernel_both_ends": kernel}
            )
    return points


def idle_memory(setup: Setup, name: str, topic: str, most: int) -> Result:
    """Private user-space bytes a connection, all that 10,000 streams made the server grow by."""
    more = setup.count(10_000)
    samples, curve = [], []
    for repeat in range(setup.repeats):
        points = _fill(setup, more, topic)
        curve += [{**point, "repeat": float(repeat)} for point in points]
        last = points[-1]
        samples.append(
            {key: value / last["connections"] for key, value in last.items()} | {"others_busy": 0.0}
        )
    kind = "one channel" if name == "idle-shared" else "a topic each"
    title = f"idle memory, {more:,} connections in a fresh server, {kind}"
    result = Result(name, title, "", samples, ("private", "B each"), curve=curve)
    result.is_fan_out = False
    result.to_reach = f"≤ {most:,} B in user space"
    result.met = result.median("private") <= most
    result.notes = [f"kernel, both ends: {result.median('kernel_both_ends'):,.0f} B each"]
    return result


def idle_shared(setup: Setup) -> Result:
    return idle_memory(setup, "idle-shared", "news", 160)


def idle_own(setup: Setup) -> Result:
    return idle_memory(setup, "idle-own", "user/{n}", 1024)
