"""The cases of `make bench`, carried out on any peer, with fewer seconds each.

Numbers of clients and rates are those of `bench.cases`. Seconds and patience are shorter, because a
peer that is a hundred times too slow would otherwise take a hundred times as long; and the storm of
connections is the one whose memory is then measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.load import Load, Sample, connected, others_busy, punctual, sample_of
from bench.machine import busy_us
from bench.peers.peer import Peer
from bench.peers.process import PeerServer
from fastsse.swarm import Crew, OpenLoop, Plan, Refusal, Schedule, SwarmResults

TOPIC = "news"
TIMEOUT_S = 5
"""How long after the last event was due a peer may still deliver; what comes later is missing."""

WARM_UP_EVENTS = 3
WARM_UP_RATE = 10.0
WARM_UP_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Run:
    """How a comparison is carried out.

    Attributes:
        quick: everything small and short: shows that it works, measures nothing.
        retries: how often a sample that other processes disturbed is measured again.
        server_cpu, client_cpu: cores of the server and of all clients; below 0: any.
    """

    quick: bool = False
    repeats: int = 1
    retries: int = 0
    server_cpu: int = -1
    client_cpu: int = -1

    def count(self, full: int) -> int:
        return max(10, full // 100) if self.quick else full

    def seconds(self, full: float) -> float:
        return min(full, 0.3) if self.quick else full

    def server(self, peer: Peer) -> PeerServer:
        return PeerServer(peer, self.server_cpu)

    def plan(self, server: PeerServer, connections: int, topic: str = TOPIC) -> Plan:
        return Plan(
            url=server.peer.stream_url(server.url, topic),
            connections=connections,
            topics=(topic,),
            cpus=() if self.client_cpu < 0 else (self.client_cpu,),
        )


DISTURBED = 0.2
"""Of a core: when other processes took more during a sample, it says little."""

RETRY_WITHIN_S = 15
"""What took longer is not measured again, so that a comparison ends in minutes."""

Measure = Callable[[Run, Peer], Sample]


@dataclass(frozen=True, slots=True)
class Figure:
    """What a case is about: its name in a sample, and its unit in the table."""

    name: str
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is measured."""

    name: str
    title: str
    measure: Measure
    figures: tuple[Figure, ...]
    is_fan_out: bool = False


def fan_out(name: str, connections: int, rate: float, seconds: float) -> Case:
    """`connections` streams of one topic, `rate` events a second to all of them."""

    def measure(run: Run, peer: Peer) -> Sample:
        clients = run.count(connections)
        load = Load((TOPIC,), rate, run.seconds(seconds), clients)
        with run.server(peer) as server, connected(run.plan(server, clients)) as crew:
            _warm_up(server, crew, clients)
            return _measured(server, crew, load)

    return Case(
        name=name,
        title=f"{connections:,} clients x {rate:,.0f}/s",
        measure=measure,
        figures=(Figure("server_cpu_us", "µs CPU a delivery"),),
        is_fan_out=True,
    )


def _warm_up(server: PeerServer, crew: Crew, clients: int) -> None:
    """A few events, slowly; the measurement begins when all of them have arrived.

    Raises:
        RuntimeError: they did not arrive.
    """
    load = Load((TOPIC,), WARM_UP_RATE, WARM_UP_EVENTS / WARM_UP_RATE, clients)
    # Some peers answer a connect with an event.
    before = crew.figures()["events"]
    warm = _publish(server, load, WARM_UP_TIMEOUT_S)
    expected = before + warm["events_accepted"] * clients
    if not crew.wait_for_events(expected, WARM_UP_TIMEOUT_S):
        raise RuntimeError(f"{WARM_UP_EVENTS} events did not arrive in {WARM_UP_TIMEOUT_S} s")


def _publish(server: PeerServer, load: Load, patience_s: float) -> SwarmResults:
    schedule = Schedule(
        url=server.peer.publish_url(server.url, load.topics[0]),
        topics=load.topics,
        headers=server.peer.headers,
        envelope=server.peer.envelope(load.topics[0]),
        rate=load.rate,
        duration_s=load.duration_s,
        size_bytes=load.size_bytes,
        depth=8,
        patience_s=patience_s,
    )
    with punctual():
        return OpenLoop(schedule).run()


def _measured(server: PeerServer, crew: Crew, load: Load) -> Sample:
    """From the first publish to the last delivery, or to the end of patience.

    Expected is what was *due*: an event that a peer was too busy to accept is missing too.
    """
    before, cpu_before, busy_before = crew.figures(), server.cpu_us(), busy_us()
    began = time.monotonic()
    published = _publish(server, load, TIMEOUT_S)
    # A publisher also waits for its last answers: patience counts from the end of the schedule.
    left_s = load.duration_s + TIMEOUT_S - (time.monotonic() - began)
    due = round(load.rate * load.duration_s) * load.subscribers
    accepted = published["events_accepted"] * load.subscribers
    crew.wait_for_events(before["events"] + accepted, max(0.0, left_s))
    wall_s = time.monotonic() - began
    cpu_us, busy = server.cpu_us() - cpu_before, busy_us() - busy_before
    sample = sample_of(crew.figures() - before, published, due, cpu_us, wall_s)
    sample["deliveries_a_second"] = sample["delivered"] / wall_s
    sample["others_busy"] = others_busy(sample, busy, wall_s)
    return sample


def connect_storm(run: Run, peer: Peer) -> Sample:
    """Subscriptions as fast as they are answered, next to a few that are open already.

    Then, once they are idle, the user-space bytes of each: the slope between few and many.
    """
    few, more = run.count(2000), run.count(10_000)
    with run.server(peer) as server, connected(run.plan(server, few, "other")):
        time.sleep(run.seconds(1))
        memory_before = server.memory()["pss"]
        cpu_before, busy_before = server.cpu_us(), busy_us()
        with connected(run.plan(server, more)) as crew:
            cpu_us, busy = server.cpu_us() - cpu_before, busy_us() - busy_before
            figures, opening_s = crew.figures(), crew.opening_s()
            time.sleep(run.seconds(2))
            memory = server.memory()["pss"] - memory_before
    (p99,) = figures.measures["open"].percentiles_us(99)
    return _with_others(
        {
            "a_second": more / opening_s,
            "bytes_each": memory / more,
            "server_cpu_us": cpu_us / more,
            "server_busy": cpu_us / 1e6 / opening_s,
            "client_busy": figures["cpu_us"] / 1e6 / opening_s,
            "open_p99_ms": p99 / 1000,
            "connects_repeated": figures["connects"] - more,
        },
        busy,
        opening_s,
    )


def publish_speed(run: Run, peer: Peer) -> Sample:
    """A closed loop over 32 keep-alive connections, one event a request, without subscribers."""
    with run.server(peer) as server:
        cpu_before, busy_before = server.cpu_us(), busy_us()
        schedule = Schedule(
            url=peer.publish_url(server.url, TOPIC),
            topics=(TOPIC,),
            headers=peer.headers,
            envelope=peer.envelope(TOPIC),
            duration_s=run.seconds(2),
            connections=32,
        )
        figures = OpenLoop(schedule).run()
        cpu_us, busy = server.cpu_us() - cpu_before, busy_us() - busy_before
    taken_s = (figures["ended_at_us"] - figures["started_at_us"]) / 1e6
    p50, p99 = figures.measures["answer"].percentiles_us(50, 99)
    return _with_others(
        {
            "a_second": figures["events_accepted"] / taken_s,
            "refused": figures["refused"] + figures["unknown"],
            "answer_p50_ms": p50 / 1000,
            "answer_p99_ms": p99 / 1000,
            "server_cpu_us": cpu_us / max(1, figures["events_accepted"]),
            "server_busy": cpu_us / 1e6 / taken_s,
            "client_busy": figures["cpu_us"] / 1e6 / taken_s,
        },
        busy,
        taken_s,
    )


def _with_others(sample: Sample, machine_busy_us: int, wall_s: float) -> Sample:
    sample["others_busy"] = others_busy(sample, machine_busy_us, wall_s)
    return sample


STORM = "10,000 connects at once, 2,000 there already"

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        fan_out("steady", 5000, 10, 3),
        fan_out("saturation", 1000, 1000, 2),
        fan_out("wide", 5000, 100, 2),
        Case(
            name="connect",
            title=STORM,
            measure=connect_storm,
            figures=(Figure("a_second", "streams/s"), Figure("bytes_each", "B each, idle")),
        ),
        Case(
            name="publish",
            title="publish over 32 keep-alive connections, no subscribers",
            measure=publish_speed,
            figures=(Figure("a_second", "events/s"),),
        ),
    )
}


def measure(case: Case, run: Run, peer: Peer) -> Sample | str:
    """The sample that others disturbed least; or why there is none.

    It is measured again, and one chosen, by what *other* processes took of the machine and by
    nothing else. What a peer can't carry is a result too.
    """
    try:
        began = time.monotonic()
        sample = case.measure(run, peer)
        again = 0 if time.monotonic() - began > RETRY_WITHIN_S else run.retries
        while again and sample["others_busy"] > DISTURBED:
            again -= 1
            sample = min(sample, case.measure(run, peer), key=lambda each: each["others_busy"])
    except (RuntimeError, Refusal) as error:
        return str(error).strip().splitlines()[0]
    return sample
