"""The cases of `make bench`: what the README promises, measured."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bench import bare
from bench.load import Load, Sample, connected, fan_out, others_busy, publish, punctual, sample_of
from bench.machine import busy_us, read
from bench.server import Server
from fastsse.swarm import Crew, OpenLoop, Plan, Schedule


@dataclass(frozen=True, slots=True)
class Setup:
    """How a run of the benchmarks is carried out.

    Attributes:
        quick: everything small and short: shows that it works, measures nothing.
        repeats: of each case.
        server_cpu, client_cpu: cores of the server and of all clients; below 0: any.
    """

    quick: bool = False
    repeats: int = 3
    server_cpu: int = -1
    client_cpu: int = -1

    def count(self, full: int) -> int:
        return max(10, full // 100) if self.quick else full

    def seconds(self, full: float) -> float:
        return min(full, 0.3) if self.quick else full

    def server(self, *options: str) -> Server:
        return Server(self.server_cpu, options)

    def plan(self, server: Server, connections: int, *topics: str, slow_share: float = 0) -> Plan:
        return Plan(
            url=server.url,
            connections=connections,
            topics=topics,
            slow_share=slow_share,
            cpus=() if self.client_cpu < 0 else (self.client_cpu,),
        )

    def bare(self, connections: int, rate: float, seconds: float, frame_bytes: float) -> Sample:
        cpus = (self.server_cpu, self.client_cpu)
        return bare.run(connections, rate, seconds, round(frame_bytes), cpus)


@dataclass(slots=True)
class Result:
    """What a case came to.

    Attributes:
        samples: one for each repeat.
        figure: the name of the sample's value that the case is about, and its unit.
        met: whether the median reaches what is to be reached; None: nothing is promised.
    """

    name: str
    title: str
    to_reach: str
    samples: list[Sample]
    figure: tuple[str, str]
    met: bool | None = None
    is_fan_out: bool = True
    notes: list[str] = field(default_factory=list)

    def median(self, name: str) -> float:
        return statistics.median(sample[name] for sample in self.samples)

    def sound(self) -> bool:
        """Whether everything published reached everyone once."""
        faults = ("lost", "repeated", "disordered", "disconnects", "not_published")
        return all(
            sample["delivered"] == sample["expected"] and not any(sample[f] for f in faults)
            for sample in self.samples
        )


def fan_out_case(
    setup: Setup, name: str, connections: int, rate: float, seconds: float, topics: tuple[str, ...]
) -> Result:
    """`connections` streams, `rate` events a second to all of them, the bare loop beside."""
    connections, seconds = setup.count(connections), setup.seconds(seconds)
    load = Load(topics[-1:], rate, seconds, connections, warm_up_s=setup.seconds(0.5))
    samples = []
    for _ in range(setup.repeats):
        with setup.server() as server, connected(setup.plan(server, connections, *topics)) as crew:
            sample = fan_out(server, crew, load)
        floor = setup.bare(connections, rate, min(seconds, 3), sample["bytes_a_delivery"])
        sample["bare_cpu_us"] = floor["cpu_us_a_send"]
        sample["ratio"] = sample["server_cpu_us"] / floor["cpu_us_a_send"]
        samples.append(sample)
    title = f"{connections:,} clients x {rate:,.0f}/s"
    return Result(name, title, "", samples, ("ratio", "x bare"))


def steady(setup: Setup) -> Result:
    result = fan_out_case(setup, "steady", 5000, 10, 5, ("news",))
    result.to_reach = "all delivered, CPU a delivery ≤ 1.15 x bare"
    result.met = result.sound() and result.median("ratio") <= 1.15
    return result


def saturation(setup: Setup) -> Result:
    result = fan_out_case(setup, "saturation", 1000, 1000, 5, ("news",))
    result.to_reach = "all delivered, p99 ≤ 60 ms"
    result.figure = ("p99_ms", "ms p99")
    result.met = result.sound() and result.median("p99_ms") <= 60
    return result


def wide(setup: Setup) -> Result:
    result = fan_out_case(setup, "wide", 5000, 100, 5, ("news",))
    result.to_reach = "all delivered, p99 ≤ 100 ms"
    result.figure = ("p99_ms", "ms p99")
    result.met = result.sound() and result.median("p99_ms") <= 100
    return result


def own_topics(setup: Setup) -> Result:
    result = fan_out_case(setup, "own-topics", 10_000, 10, 5, ("user/{n}", "news"))
    result.title += ", each with a topic of its own"
    result.to_reach = "all delivered, CPU ≤ 1.3 x bare, publish answers < 2 ms"
    result.met = (
        result.sound() and result.median("ratio") <= 1.3 and result.median("answer_p99_ms") < 2
    )
    result.notes = [f"publish answer p99 {result.median('answer_p99_ms'):.2f} ms"]
    return result


def idle_memory(setup: Setup, name: str, topics: tuple[str, ...], most: int) -> Result:
    """User-space bytes a connection: the slope between few and many."""
    few, more = setup.count(2000), setup.count(10_000)
    samples = []
    for _ in range(setup.repeats):
        with setup.server() as server, connected(setup.plan(server, few, "other")):
            time.sleep(setup.seconds(1))
            before, kernel_before = server.memory(), kernel_bytes()
            with connected(setup.plan(server, more, *topics)):
                time.sleep(setup.seconds(2))
                after, kernel_after = server.memory(), kernel_bytes()
        sample = {key: (after[key] - before[key]) / more for key in after}
        sample["kernel_both_ends"] = (kernel_after - kernel_before) / more
        sample["others_busy"] = 0.0
        samples.append(sample)
    kind = "one channel" if name == "idle-shared" else "a topic each"
    title = f"idle memory, {more:,} more connections, {kind}"
    result = Result(name, title, "", samples, ("pss", "B each"))
    result.is_fan_out = False
    result.to_reach = f"≤ {most:,} B in user space"
    result.met = result.median("pss") <= most
    result.notes = [f"kernel, both ends: {result.median('kernel_both_ends'):,.0f} B each"]
    return result


def kernel_bytes() -> int:
    """Slab and TCP buffer memory of the whole machine."""
    slab = next(
        int(line.split()[1]) * 1024
        for line in read("/proc/meminfo").splitlines()
        if line.startswith("Slab:")
    )
    pages = read("/proc/net/sockstat").split("TCP:")[1].split("mem ")[1].split()[0]
    return slab + int(pages) * 4096


def idle_shared(setup: Setup) -> Result:
    return idle_memory(setup, "idle-shared", ("news",), 160)


def idle_own(setup: Setup) -> Result:
    return idle_memory(setup, "idle-own", ("user/{n}",), 1024)


def connect_storm(setup: Setup) -> Result:
    connections = setup.count(15_000)
    samples = []
    for _ in range(setup.repeats):
        with setup.server() as server:
            cpu_before, busy_before = server.cpu_us(), busy_us()
            with connected(setup.plan(server, connections, "news")) as crew:
                busy = busy_us() - busy_before
                figures, opening_s = crew.figures(), crew.opening_s()
                cpu_us = server.cpu_us() - cpu_before
        (p99,) = figures.measures["open"].percentiles_us(99)
        samples.append(
            {
                "a_second": connections / opening_s,
                "server_cpu_us": cpu_us / connections,
                "server_busy": cpu_us / 1e6 / opening_s,
                "client_cpu_us": figures["cpu_us"] / connections,
                "client_busy": figures["cpu_us"] / 1e6 / opening_s,
                "open_p99_ms": p99 / 1000,
                "connects_repeated": figures["connects"] - connections,
            }
        )
        samples[-1]["others_busy"] = others_busy(samples[-1], busy, opening_s)
    title = f"connect storm, {connections:,} at once"
    result = Result("connect", title, "≥ 20,000/s", samples, ("a_second", "streams/s"))
    result.is_fan_out = False
    result.met = result.median("a_second") >= 20_000
    result.notes = [f"open p99 {result.median('open_p99_ms'):.1f} ms"]
    return result


def publish_speed(setup: Setup, name: str, batch: int, connections: int, least: int) -> Result:
    """A closed loop over keep-alive connections, nobody subscribed."""
    samples = []
    seconds = setup.seconds(4)
    for _ in range(setup.repeats):
        with setup.server() as server:
            cpu_before, busy_before = server.cpu_us(), busy_us()
            figures = OpenLoop(
                Schedule(
                    url=server.url,
                    topics=("news",),
                    duration_s=seconds,
                    batch=batch,
                    connections=connections,
                )
            ).run()
            cpu_us, busy = server.cpu_us() - cpu_before, busy_us() - busy_before
        taken_s = (figures["ended_at_us"] - figures["started_at_us"]) / 1e6
        p50, p99 = figures.measures["answer"].percentiles_us(50, 99)
        accepted = max(1, figures["events_accepted"])
        samples.append(
            {
                "a_second": figures["events_accepted"] / taken_s,
                "refused": figures["refused"] + figures["unknown"],
                "answer_p50_ms": p50 / 1000,
                "answer_p99_ms": p99 / 1000,
                "server_cpu_us": cpu_us / accepted,
                "server_busy": cpu_us / 1e6 / taken_s,
                "client_cpu_us": figures["cpu_us"] / accepted,
                "client_busy": figures["cpu_us"] / 1e6 / taken_s,
            }
        )
        samples[-1]["others_busy"] = others_busy(samples[-1], busy, taken_s)
    kind = "single" if batch == 1 else f"NDJSON, {batch} a batch"
    title = f"publish over {connections} keep-alive connections, {kind}"
    result = Result(name, title, f"≥ {least:,}/s", samples, ("a_second", "events/s"))
    result.is_fan_out = False
    result.met = result.median("a_second") >= least and not result.median("refused")
    result.notes = [f"answer p99 {result.median('answer_p99_ms'):.2f} ms"]
    return result


def publish_single(setup: Setup) -> Result:
    return publish_speed(setup, "publish", 1, 32, 30_000)


def publish_batch(setup: Setup) -> Result:
    return publish_speed(setup, "publish-ndjson", 200, 8, 150_000)


def slow_clients(setup: Setup) -> Result:
    """Pairs of runs in one server, with and without clients that never read, in turn first."""
    fast, rate = setup.count(1800), 100.0
    slow = fast // 9
    pairs = 1 if setup.quick else max(7, setup.repeats)
    load = Load(("news",), rate, setup.seconds(4), fast, warm_up_s=setup.seconds(0.5))
    samples = []
    with setup.server() as server:
        for pair in range(pairs):
            found = {}
            for share in (0.0, slow / (fast + slow))[:: -1 if pair % 2 else 1]:
                plan = setup.plan(server, fast + (slow if share else 0), "news", slow_share=share)
                with connected(plan) as crew:
                    memory_before = server.memory()["pss"]
                    found[bool(share)] = fan_out(server, crew, load)
                    grown = server.memory()["pss"] - memory_before
                    found[bool(share)]["grown_bytes"] = grown
            sample = found[True]
            sample["p99_without_ms"] = found[False]["p99_ms"]
            sample["grown_without_bytes"] = found[False]["grown_bytes"]
            sample["ratio"] = sample["p99_ms"] / sample["p99_without_ms"]
            samples.append(sample)
    title = f"{fast:,} clients x {rate:.0f}/s beside {slow:,} that never read"
    result = Result("slow", title, "p99 ≤ 1.1 x without, memory flat", samples, ("ratio", "x"))
    result.met = result.sound() and result.median("ratio") <= 1.1
    result.notes = [
        f"{pairs} pairs; p99 without {result.median('p99_without_ms'):.1f} ms; memory grew "
        f"{result.median('grown_bytes') / 1024:,.0f} KiB a run, without "
        f"{result.median('grown_without_bytes') / 1024:,.0f} KiB"
    ]
    return result


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
            samples.append(_neighbour_run(server, crowd, few, rate, seconds))
    title = f"{small} clients x 20/s beside {large:,} x {rate:.0f}/s"
    result = Result("neighbour", title, "p99 ≤ 30 ms", samples, ("p99_ms", "ms p99"))
    result.met = result.sound() and result.median("p99_ms") <= 30
    result.notes = [
        f"the large channel: {result.median('large_delivered'):.1%} delivered, "
        f"p99 {result.median('large_p99_ms'):.0f} ms",
        f"server {result.median('server_busy'):.0%} busy",
    ]
    return result


def _neighbour_run(server: Server, crowd: Crew, few: Crew, rate: float, seconds: float) -> Sample:
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


CASES: dict[str, Callable[[Setup], Result]] = {
    "steady": steady,
    "saturation": saturation,
    "wide": wide,
    "own-topics": own_topics,
    "idle-shared": idle_shared,
    "idle-own": idle_own,
    "connect": connect_storm,
    "publish": publish_single,
    "publish-ndjson": publish_batch,
    "slow": slow_clients,
    "neighbour": neighbour,
}


def run_cases(setup: Setup, names: list[str]) -> Iterator[Result]:
    """Carries out the cases named, in the order of CASES."""
    for name, case in CASES.items():
        if name in names or not names:
            result = case(setup)
            if setup.quick:
                result.met = None
            yield result
