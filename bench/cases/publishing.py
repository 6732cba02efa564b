"""How fast events are accepted without subscribers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from bench.cases.case import Result, Setup
from bench.load import Sample, others_busy
from bench.machine import busy_us
from bench.server import Server, UnderTest
from bench.slow_disk import slow_syncs
from fastsse.swarm import OpenLoop, Schedule


def publish_speed(
    setup: Setup,
    name: str,
    batch: int,
    connections: int,
    least: int,
    start: Callable[[], AbstractContextManager[UnderTest]] | None = None,
    kept: str = "",
) -> Result:
    """A closed loop over keep-alive connections, without subscribers.

    Args:
        start: starts another server than the set-up's.
        kept: where that one keeps events, for the title.
    """
    samples = []
    for _ in range(setup.repeats):
        with (start or setup.server)() as server:
            samples.append(closed_loop(setup, server, connections, batch))
    kind = "single" if batch == 1 else f"NDJSON, {batch} a batch"
    title = f"publish over {connections} keep-alive connections, {kind}{kept}"
    result = Result(name, title, f"≥ {least:,}/s", samples, ("a_second", "events/s"))
    result.is_fan_out = False
    result.met = result.median("a_second") >= least and not result.median("refused")
    result.notes = [f"answer p99 {result.median('answer_p99_ms'):.2f} ms"]
    return result


def closed_loop(
    setup: Setup,
    server: UnderTest,
    connections: int,
    batch: int = 1,
    headers: Sequence[tuple[str, str]] = (),
    seconds: float = 4,
) -> Sample:
    """Publishes on each connection as soon as the answer before is there."""
    cpu_before, busy_before = server.cpu_us(), busy_us()
    figures = OpenLoop(
        Schedule(
            url=server.url,
            topics=("news",),
            duration_s=setup.seconds(seconds),
            batch=batch,
            connections=connections,
            headers=headers,
        )
    ).run()
    cpu_us, busy = server.cpu_us() - cpu_before, busy_us() - busy_before
    taken_s = (figures["ended_at_us"] - figures["started_at_us"]) / 1e6
    p50, p99 = figures.measures["answer"].percentiles_us(50, 99)
    accepted = max(1, figures["events_accepted"])
    sample = {
        "accepted": figures["events_accepted"],
        "a_second": figures["events_accepted"] / taken_s,
        "refused": figures["refused"] + figures["unknown"],
        "answer_p50_ms": p50 / 1000,
        "answer_p99_ms": p99 / 1000,
        "server_cpu_us": cpu_us / accepted,
        "server_busy": cpu_us / 1e6 / taken_s,
        "client_cpu_us": figures["cpu_us"] / accepted,
        "client_busy": figures["cpu_us"] / 1e6 / taken_s,
    }
    sample["others_busy"] = others_busy(sample, busy, taken_s)
    return sample


def publish_single(setup: Setup) -> Result:
    return publish_speed(setup, "publish", 1, 32, 30_000)


def publish_batch(setup: Setup) -> Result:
    return publish_speed(setup, "publish-ndjson", 200, 8, 150_000)


@contextmanager
def stored(setup: Setup, ack: str, environment: Mapping[str, str]) -> Iterator[UnderTest]:
    """A server that keeps events in a new file."""
    with tempfile.TemporaryDirectory() as folder:
        options = ("--store", f"sqlite:{folder}/history.db", "--ack", ack)
        with Server(setup.server_cpu, options, environment) as server:
            yield server


def publish_written(setup: Setup) -> Result:
    """Each event is in a file when its publisher is answered."""

    def start() -> AbstractContextManager[UnderTest]:
        return stored(setup, "written", {})

    return publish_speed(setup, "publish-written", 1, 64, 10_000, start, ", sqlite, written")


def publish_synced(setup: Setup) -> Result:
    """Each event is on a disk whose syncs take 5 ms more when its publisher is answered."""
    environment = slow_syncs(5)

    def start() -> AbstractContextManager[UnderTest]:
        return stored(setup, "synced", environment)

    kept = ", sqlite, synced, each fsync 5 ms longer"
    return publish_speed(setup, "publish-synced", 1, 64, 5_000, start, kept)
