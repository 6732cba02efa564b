"""Kafka to many streams: how fast a backlog is read, and how long a message takes at a rate."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click

from bench.load import connected
from bench.sources.bare import bare
from bench.sources.broker import LINGER_MS, Broker, Feed
from bench.sources.servers import CHANNELS, Place, Reader, reader
from fastsse.swarm import Crew, Plan

_READY_S = 60
_DELIVERY_S = 60
_WARM_UP = 2_000
_WARM_S = 3.0
_POLL_S = 0.05
_PUBLISHED = "fastsse_events_published_total"
_LATEST = "the writer's greatest delay ms"

Sample = dict[str, float]
#: Streams' topics that messages are written for when none is open.
_TOPICS = 1000


@dataclass(frozen=True, slots=True)
class Clients:
    """How Kafka's clients are set.

    Attributes:
        linger_ms: how long the writer collects messages of a partition.
        settings: of librdkafka, for what reads: fastsse and the bare consumer.
    """

    linger_ms: float = LINGER_MS
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Set:
    """A server that reads a topic of its own, streams that are open, and who writes the topic."""

    reader: Reader
    feed: Feed
    crew: Crew | None
    name: str

    def has_all(self, timeout_s: float = _DELIVERY_S) -> None:
        """Returns when the streams, or the log where none is open, have all that was written."""
        count = self.feed.sent
        if self.crew is not None:
            if not self.crew.wait_for_events(count, timeout_s):
                have = self.crew.counters()["events"]
                raise click.ClickException(f"{self.name}: only {have:,} of {count:,} events came")
            return
        end_s = time.monotonic() + timeout_s
        while (have := self.reader.server.metrics()[_PUBLISHED]) < count:
            if time.monotonic() > end_s:
                raise click.ClickException(f"{self.name}: only {have:,} of {count:,} are stored")
            time.sleep(_POLL_S)


Case = Callable[[Set], Sample]


@contextmanager
def opened(
    name: str,
    broker: Broker,
    streams: int,
    folder: Path,
    cpus: tuple[int, int],
    clients: Clients,
) -> Iterator[Set]:
    """A server with its streams, warm: each stream has events, and the consumer is a member."""
    topic = f"{name}-{time.monotonic_ns()}"
    header = CHANNELS if name == "centrifugo" else None
    feed = Feed(broker.servers, topic, streams or _TOPICS, header, clients.linger_ms)
    with reader(name, Place(broker, topic, folder, cpus[0], clients.settings)) as running:
        if streams == 0:
            yield _warm(Set(running, feed, None, name))
            return
        plan = Plan(
            url=running.stream_url,
            topics=running.topics,
            connections=streams,
            cpus=() if cpus[1] < 0 else (cpus[1],),
            processes=1,
        )
        with connected(plan) as crew:
            yield _warm(Set(running, feed, crew, name))


def _warm(made: Set) -> Set:
    made.feed.burst(_WARM_UP)
    made.has_all(_READY_S)
    return made


def backlog(made: Set, messages: int) -> Sample:
    """Messages that wait are read and delivered. The server stands still while they are written."""
    pids = made.reader.pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        made.feed.burst(messages)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    return _measured(made, lambda: 0.0, messages)


def steady(made: Set, rate: float, duration_s: float) -> Sample:
    """Messages come at a rate. The first seconds are not measured: a broker compiles its code."""
    made.feed.steady(rate, _WARM_S)
    made.has_all()
    return _measured(made, lambda: made.feed.steady(rate, duration_s))


def alone(broker: Broker, cpu: int, clients: Clients, rate: float, duration_s: float) -> Sample:
    """The same messages, read by a consumer that only looks at the clock; no server, no stream."""
    topic = f"bare-{time.monotonic_ns()}"
    feed = Feed(broker.servers, topic, _TOPICS, None, clients.linger_ms)
    with bare(broker.servers, topic, cpu, clients.settings) as consumer:
        consumer.times(int(rate * _WARM_S))
        feed.steady(rate, _WARM_S)
        consumer.figures()
        consumer.times(int(rate * duration_s))
        late_ms = feed.steady(rate, duration_s)
        return consumer.figures() | {_LATEST: late_ms}


def _measured(made: Set, write: Callable[[], float], waiting: int = 0) -> Sample:
    server = made.reader.server
    seen = None if made.crew is None else made.crew.figures()
    cpu_us, begun_s, sent = server.cpu_us(), time.monotonic(), made.feed.sent - waiting
    late_ms = write()
    made.has_all()
    wall_s, cpu_us = time.monotonic() - begun_s, server.cpu_us() - cpu_us
    count = made.feed.sent - sent
    sample = {"messages/s": count / wall_s, "CPU µs a message": cpu_us / count}
    if made.crew is not None and seen is not None:
        got = made.crew.figures() - seen
        p50, p99 = got.measures["latency"].percentiles_us(50, 99)
        sample |= {
            "p50 ms": p50 / 1000,
            "p99 ms": p99 / 1000,
            "lost": got["lost"] + got["lost_announced"] - got["late"],
            "repeated": got["repeated"] + got["id_repeated"],
            _LATEST: late_ms,
        }
    return sample | {"MB (Pss)": server.memory()["pss"] / 1e6}
