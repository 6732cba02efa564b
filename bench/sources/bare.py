"""`python -m bench.sources.bare BROKER TOPIC`: a consumer that does nothing but look at the clock.

What it takes from when a message was due is the broker's, the writer's and the machine's part of
what a stream takes. For each line of its input it prints the figures since the last one.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from array import array
from collections.abc import Iterator
from contextlib import contextmanager

from bench.sources.servers import SESSION_MS
from fastsse import stamp

_BATCH = 1_000
_WAIT_S = 0.05
_READY = "reads\n"


class Bare:
    """The process of one.

    Arguments:
        process: started, and a member of its group.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def figures(self) -> dict[str, float]:
        """p50 and p99 of the messages since the last call, in ms; empty without messages."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        return found


@contextmanager
def bare(servers: str, topic: str, cpu: int) -> Iterator[Bare]:
    """One on a core."""
    pinned = () if cpu < 0 else ("taskset", "-c", str(cpu))
    command = (*pinned, sys.executable, "-m", "bench.sources.bare", servers, topic)
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


def _main(servers: str, topic: str) -> None:
    from confluent_kafka import Consumer

    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "bare",
            "auto.offset.reset": "latest",
            "session.timeout.ms": SESSION_MS,
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    while not consumer.assignment():
        consumer.poll(_WAIT_S)
    print(_READY, end="", flush=True)
    took_us = array("q")
    while True:
        first = consumer.poll(_WAIT_S)
        if first is not None:
            batch = [first, *consumer.consume(_BATCH - 1, 0)]
            now_us = stamp.now_us()
            for message in batch:
                value = message.value() if message.error() is None else None
                if value is not None:
                    took_us.append(now_us - int(value[7 : value.index(b",")]))
        if select.select([sys.stdin], [], [], 0)[0]:
            if not sys.stdin.readline():
                return
            print(json.dumps(_figures(sorted(took_us))), flush=True)
            took_us = array("q")


def _figures(ordered: list[int]) -> dict[str, float]:
    if not ordered:
        return {}
    return {
        f"bare p{share} ms": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] / 1000
        for share in (50, 99)
    }


if __name__ == "__main__":
    _main(*sys.argv[1:])
