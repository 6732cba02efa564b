"""Runs with and without a disturbance, in turn first, so that drift falls on both."""

from __future__ import annotations

from collections.abc import Callable

from bench.cases.case import Setup
from bench.load import Load, Sample, connected, fan_out
from bench.server import UnderTest
from fastsse.swarm import Plan

PAIRS = 7


def pairs_of(
    setup: Setup, load: Load, plan_of: Callable[[UnderTest, bool], Plan], pairs: int = 0
) -> list[Sample]:
    """One sample a pair, that of the disturbed run with `…_without…` of the other; one server,
    and the bare loop once after it.

    Args:
        plan_of: the clients' plan, disturbed or not.
        pairs: how many; 0: as many as repeats.
    """
    samples = []
    with setup.server() as server:
        for pair in range(1 if setup.quick else pairs or setup.repeats):
            found = {}
            for disturbed in (False, True)[:: -1 if pair % 2 else 1]:
                with connected(plan_of(server, disturbed)) as crew:
                    before = server.memory()["pss"]
                    found[disturbed] = fan_out(server, crew, load)
                    found[disturbed]["grown_bytes"] = server.memory()["pss"] - before
            sample, plain = found[True], found[False]
            sample["p99_without_ms"] = plain["p99_ms"]
            sample["grown_without_bytes"] = plain["grown_bytes"]
            sample["server_cpu_without_us"] = plain["server_cpu_us"]
            sample["ratio"] = sample["p99_ms"] / max(1e-3, plain["p99_ms"])
            samples.append(sample)
    floor = setup.bare(
        load.subscribers, load.rate, setup.seconds(2), samples[0]["bytes_a_delivery"]
    )
    for sample in samples:
        sample["bare_cpu_us"] = floor["cpu_us_a_send"]
    return samples
