"""What every case is made of: how it is run, and what it came to."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from bench import bare
from bench.load import Sample
from bench.server import Server, UnderTest
from fastsse.swarm import Plan

FAULTS = ("lost", "repeated", "disordered", "disconnects", "not_published")


@dataclass(frozen=True, slots=True)
class Setup:
    """How a run of the benchmarks is carried out.

    Attributes:
        quick: everything small and short: shows that it works, measures nothing.
        repeats: of each case.
        server_cpu, client_cpu: cores of the server and of all clients; below 0: any.
        start: starts another server than `fastsse serve`, on the core given.
    """

    quick: bool = False
    repeats: int = 3
    server_cpu: int = -1
    client_cpu: int = -1
    start: Callable[[int], AbstractContextManager[UnderTest]] | None = None

    def count(self, full: int) -> int:
        return max(10, full // 100) if self.quick else full

    def seconds(self, full: float) -> float:
        return min(full, 0.3) if self.quick else full

    def server(self) -> AbstractContextManager[UnderTest]:
        """A fresh server process."""
        return self.start(self.server_cpu) if self.start else Server(self.server_cpu)

    def plan(
        self,
        server: UnderTest,
        connections: int,
        *topics: str,
        slow_share: float = 0,
        slow_bytes_per_s: float = 0,
        slow_buffer_bytes: int = 0,
        churn_rate: float = 0,
    ) -> Plan:
        """Clients on their own core."""
        return Plan(
            url=server.url,
            connections=connections,
            topics=topics,
            slow_share=slow_share,
            slow_bytes_per_s=slow_bytes_per_s,
            slow_buffer_bytes=slow_buffer_bytes,
            churn_rate=churn_rate,
            cpus=() if self.client_cpu < 0 else (self.client_cpu,),
        )

    def bare(self, connections: int, rate: float, seconds: float, frame_bytes: float) -> Sample:
        """The bare loop, on the same cores."""
        cpus = (self.server_cpu, self.client_cpu)
        return bare.run(connections, rate, seconds, round(frame_bytes), cpus)

    def set_beside_bare(
        self, sample: Sample, connections: int, rate: float, seconds: float
    ) -> Sample:
        """Runs the bare loop with the sample's bytes; adds its CPU a send and the ratio to it."""
        floor = self.bare(connections, rate, min(seconds, 3), sample["bytes_a_delivery"])
        sample["bare_cpu_us"] = floor["cpu_us_a_send"]
        sample["ratio"] = sample["server_cpu_us"] / floor["cpu_us_a_send"]
        return sample


@dataclass(slots=True)
class Result:
    """What a case came to.

    Attributes:
        samples: one for each repeat.
        figure: the name of the sample's value that the case is about, and its unit.
        met: whether the median reaches what is to be reached; None: nothing is promised.
        curve: points of a plot, of all repeats; which one they belong to is `repeat`.
    """

    name: str
    title: str
    to_reach: str
    samples: list[Sample]
    figure: tuple[str, str]
    met: bool | None = None
    is_fan_out: bool = True
    notes: list[str] = field(default_factory=list)
    curve: list[Sample] = field(default_factory=list)

    def has(self, name: str) -> bool:
        return all(name in sample for sample in self.samples)

    def median(self, name: str) -> float:
        return statistics.median(sample[name] for sample in self.samples)

    def sound(self) -> bool:
        """Whether everything published reached everyone once."""
        return all(is_sound(sample) for sample in self.samples)


def is_sound(sample: Sample) -> bool:
    """Whether everything published in one run reached everyone once."""
    return sample["delivered"] == sample["expected"] and not any(sample[f] for f in FAULTS)
