"""`python -m bench.sources.bare BROKER TOPIC SETTINGS`: a consumer that only looks at the clock.

What it takes from when a message was due is the broker's, the writer's and the machine's part of
what a stream takes. For each line of its input, a count, it prints the figures of so many
messages. SETTINGS is a JSON object of settings of librdkafka.
"""

from __future__ import annotations

import json
import subprocess
import sys
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.sources.servers import SESSION_MS
from fastsse import stamp

if TYPE_CHECKING:
    from confluent_kafka import Consumer

_BATCH = 1_000
_WAIT_S = 0.05
_READY = "reads\n"
_IDLE_S = 30.0


class Bare:
    """The process of one.

    Arguments:
        process: started, and a member of its group.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def times(self, count: int) -> None:
        """Has it time the next messages; called before they are written."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()

    def figures(self) -> dict[str, float]:
        """p50 and p99 of these messages, in ms, when all are read."""
        assert self._process.stdout is not None
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        if not found:
            raise RuntimeError("the bare consumer did not get all messages")
        return found


@contextmanager
def bare(servers: str, topic: str, cpu: int, settings: Mapping[str, object]) -> Iterator[Bare]:
    """One on a core, with settings of librdkafka."""
    pinned = () if cpu < 0 else ("taskset", "-c", str(cpu))
    program = (sys.executable, "-m", "bench.sources.bare")
    command = (*pinned, *program, servers, topic, json.dumps(dict(settings)))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != _READY:
                raise RuntimeError("the bare consumer did not start")
            yield Bare(process)
        finally:
            process.kill()


def _main(servers: str, topic: str, settings: str) -> None:
    from confluent_kafka import Consumer

    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "bare",
            "auto.offset.reset": "earliest",
            "session.timeout.ms": SESSION_MS,
            "log_level": 0,
            **json.loads(settings),
        }
    )
    consumer.subscribe([topic])
    while not consumer.assignment():
        consumer.poll(_WAIT_S)
    print(_READY, end="", flush=True)
    for line in sys.stdin:
        print(json.dumps(_figures(sorted(_read(consumer, int(line))))), flush=True)


def _read(consumer: Consumer, count: int) -> array[int]:
    """How long each took, in µs; empty when no more come and these are not all."""
    took_us = array("q")
    while len(took_us) < count:
        first = consumer.poll(_IDLE_S)
        if first is None:
            return array("q")
        batch = [first, *consumer.consume(_BATCH - 1, 0)]
        now_us = stamp.now_us()
        for message in batch:
            value = message.value() if message.error() is None else None
            if value is not None:
                took_us.append(now_us - int(value[7 : value.index(b",")]))
    return took_us


def _figures(ordered: list[int]) -> dict[str, float]:
    if not ordered:
        return {}
    return {
        f"p{share} ms": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] / 1000
        for share in (50, 99)
    }


if __name__ == "__main__":
    _main(*sys.argv[1:])
