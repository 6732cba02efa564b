"""Latency at rising rates, up to the first one that the server can't keep up with."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from bench.cases.case import Result, Setup, is_sound
from bench.load import Load, Sample, connected, fan_out
from bench.server import UnderTest
from fastsse.swarm import Crew

CONNECTIONS = 1000
FIRST_RATE = 50
STEP = 2
RATES = 9
BEHIND = 1.1
"""A step whose deliveries take this many times as long as its publishing is past the knee."""


def _rates(setup: Setup) -> Iterator[float]:
    rates = (float(FIRST_RATE * STEP**step) for step in range(RATES))
    return itertools.islice(rates, 2 if setup.quick else RATES)


def _climb(setup: Setup, server: UnderTest, crew: Crew) -> Iterator[Sample]:
    """One sample a rate; the last is the first that is past the knee."""
    for rate in _rates(setup):
        seconds = setup.seconds(3)
        connections = crew.plan.connections
        load = Load(("news",), rate, seconds, connections, warm_up_s=setup.seconds(0.5))
        sample = fan_out(server, crew, load)
        sample["rate"] = rate
        sample["offered_a_second"] = rate * connections
        sample["delivered_a_second"] = sample["delivered"] / sample["wall_s"]
        sample["held"] = float(
            is_sound(sample) and (setup.quick or sample["wall_s"] <= seconds * BEHIND + 0.1)
        )
        yield sample
        if not sample["held"]:
            return


def ladder(setup: Setup) -> Result:
    """The highest rate held, and the whole curve. The bare loop sends without pause."""
    connections = setup.count(CONNECTIONS)
    samples, curve = [], []
    for repeat in range(setup.repeats):
        with setup.server() as server, connected(setup.plan(server, connections, "news")) as crew:
            steps = [{**step, "repeat": float(repeat)} for step in _climb(setup, server, crew)]
        curve += steps
        held = [step for step in steps if step["held"]] or steps[:1]
        sample = dict(held[-1])
        sample["held_rate"] = sample["rate"] if sample["held"] else 0.0
        floor = setup.bare(connections, 1e6, setup.seconds(2), sample["bytes_a_delivery"])
        sample["bare_cpu_us"] = floor["cpu_us_a_send"]
        sample["bare_a_second"] = floor["sends"] / floor["wall_s"]
        sample["ratio"] = sample["server_cpu_us"] / floor["cpu_us_a_send"]
        samples.append(sample)
    result = Result(
        "ladder",
        f"{connections:,} clients, rising rates: the highest held",
        "",
        samples,
        ("held_rate", "events/s"),
        curve=curve,
    )
    result.notes = [
        f"{result.median('delivered_a_second'):,.0f} deliveries/s at the highest rate held; the "
        f"bare loop, without pause, {result.median('bare_a_second'):,.0f} sends/s"
    ]
    return result
