"""Streams that come and go: all at once, all again after a cut, and ever a few."""

from __future__ import annotations

import threading
import time

from bench.cases.case import FAULTS, Result, Setup
from bench.cases.pairs import pairs_of
from bench.load import Load, Sample, connected, measured, others_busy, publish
from bench.machine import busy_us
from bench.server import UnderTest
from fastsse.swarm import Crew, Plan, SwarmResults


def connect_storm(setup: Setup) -> Result:
    """As many subscriptions as are answered."""
    connections = setup.count(15_000)
    samples = []
    for _ in range(setup.repeats):
        with setup.server() as server:
            cpu_before, busy_before = server.cpu_us(), busy_us()
            with connected(setup.plan(server, connections, "news")) as crew:
                busy = busy_us() - busy_before
                cpu_us = server.cpu_us() - cpu_before
                samples.append(_connect_sample(crew, cpu_us, busy))
    title = f"connect storm, {connections:,} at once"
    result = Result("connect", title, "≥ 20,000/s", samples, ("a_second", "streams/s"))
    result.is_fan_out = False
    result.met = result.median("a_second") >= 20_000
    result.notes = [f"open p99 {result.median('open_p99_ms'):.1f} ms"]
    return result


def _connect_sample(crew: Crew, cpu_us: int, busy: int) -> Sample:
    figures, opening_s, connections = crew.figures(), crew.opening_s(), crew.plan.connections
    (p99,) = figures.measures["open"].percentiles_us(99)
    sample = {
        "a_second": connections / opening_s,
        "server_cpu_us": cpu_us / connections,
        "server_busy": cpu_us / 1e6 / opening_s,
        "client_cpu_us": figures["cpu_us"] / connections,
        "client_busy": figures["cpu_us"] / 1e6 / opening_s,
        "open_p99_ms": p99 / 1000,
        "connects_repeated": figures["connects"] - connections,
    }
    sample["others_busy"] = others_busy(sample, busy, opening_s)
    return sample


def resume_storm(setup: Setup) -> Result:
    """Every stream is cut while events flow; all come back at once and get what they lack."""
    connections, rate = setup.count(10_000), 10.0
    seconds = max(1.0, setup.seconds(5))
    samples = []
    for _ in range(setup.repeats):
        with setup.server() as server, connected(setup.plan(server, connections, "news")) as crew:
            sample = _resume_run(server, crew, rate, seconds)
        samples.append(setup.set_beside_bare(sample, connections, rate, setup.seconds(seconds)))
    title = f"resume storm, {connections:,} cut at once, {rate:.0f}/s meanwhile"
    reach = "nothing lost or twice"
    result = Result("resume", title, reach, samples, ("resumes_a_second", "streams/s"))
    result.met = result.sound() and all(s["resumed"] == connections for s in samples)
    result.notes = [
        f"cut to stream again p99 {result.median('reconnect_p99_ms'):,.0f} ms, "
        f"{result.median('replayed'):,.0f} events from history; percentiles: of live events"
    ]
    return result


def _resume_run(server: UnderTest, crew: Crew, rate: float, seconds: float) -> Sample:
    connections = crew.plan.connections
    load = Load(("news",), rate, seconds, connections)
    took: list[float] = []

    def cut() -> None:
        time.sleep(seconds / 4)
        began = time.monotonic()
        crew.cut(connections)
        crew.wait_for(lambda: crew.counters()["resumed"] >= connections, 30)
        took.append(time.monotonic() - began)

    cutter = threading.Thread(target=cut)

    def run() -> SwarmResults:
        cutter.start()
        published = publish(server.url, load, seconds)
        cutter.join()
        return published

    sample, got = measured(server, crew, run, connections)
    sample["resumed"] = got["resumed"]
    sample["replayed"] = got["replayed"]
    sample["resumes_a_second"] = got["resumed"] / took[0]
    sample["reconnect_p99_ms"] = got.measures["reconnect"].percentiles_us(99)[0] / 1000
    return sample


def churn(setup: Setup) -> Result:
    """Visitors come and go while events flow, in pairs of runs with and without."""
    connections, rate = setup.count(5000), 10.0
    load = Load(("news",), rate, setup.seconds(4), connections, warm_up_s=setup.seconds(0.5))
    churn_rate = connections / 5

    def plan_of(server: UnderTest, churning: bool) -> Plan:
        return setup.plan(server, connections, "news", churn_rate=churn_rate if churning else 0)

    samples = pairs_of(setup, load, plan_of)
    title = f"{connections:,} clients x {rate:.0f}/s, {churn_rate:,.0f} a second replaced"
    result = Result("churn", title, "none lost or twice", samples, ("ratio", "x p99"))
    result.met = not any(sample[fault] for sample in samples for fault in FAULTS)
    result.notes = [
        f"p99 without {result.median('p99_without_ms'):.1f} ms; {result.median('churned'):,.0f} "
        "left in a run; who is between two streams when an event goes out does not get it, so "
        "somewhat less than all is delivered"
    ]
    return result
