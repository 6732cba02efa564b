"""The open-loop publisher: events at a fixed rate, each saying in its data when it was due.

A closed loop (send, wait for the answer, send) slows down with the server it measures and so hides
the very stalls that it is to find. Here the schedule is fixed before the run; what falls behind is
sent late, with its own due time, and what was never sent is counted.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlencode, urlsplit

from fastsse import stamp
from fastsse.swarm import _swarm
from fastsse.swarm.addresses import resolve
from fastsse.swarm.refusal import Refusal
from fastsse.swarm.request_template import DEFAULT_PATH
from fastsse.swarm.results import SwarmResults, read_publish_block

LEAD_S = 0.1
"""Between start and the first due time: connections are made meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What is published.

    Attributes:
        url: where to; `/events` when it has no path.
        topics: events go to them in turn. None: the URL already says where (other servers).
        rate: events a second; 0: as fast as answers come (a closed loop).
        duration_s: for how long events are due.
        size_bytes: of each event's data.
        batch: events a request; more than 1 are sent as NDJSON.
        connections: keep-alive connections that take requests in turn.
        depth: requests that may await answers on one connection (pipelining above 1).
        headers: added to each request.
        patience_s: how long the last answers are waited for.
        envelope: what stands before and behind the data of each event in a body; for other servers.
    """

    url: str
    topics: Sequence[str] = ()
    rate: float = 0
    duration_s: float = 10
    size_bytes: int = 128
    batch: int = 1
    connections: int = 1
    depth: int = 1
    headers: Sequence[tuple[str, str]] = ()
    patience_s: float = 10
    envelope: tuple[bytes, bytes] = (b"", b"")


class OpenLoop:
    """One publishing run. `run` may be called from any thread, the figures read from others."""

    def __init__(self, schedule: Schedule) -> None:
        """Raises a Refusal when the schedule makes no sense or the host is unknown."""
        _check(schedule)
        self.schedule = schedule
        self._block = bytearray(_swarm.PUBLISH_BLOCK_BYTES)
        url = urlsplit(schedule.url)
        target = resolve(url)
        self.due_at_us = stamp.now_us() + int(LEAD_S * 1e6)
        self._publisher = _swarm.Publisher(
            self._block,
            target=target.packed,
            family=int(target.family),
            topics=_topics(url, schedule),
            suffix=b"}\n" if schedule.batch > 1 else schedule.envelope[1],
            connections=schedule.connections,
            depth=schedule.depth,
            batch=schedule.batch,
            size_bytes=schedule.size_bytes,
            requests_per_s=schedule.rate / schedule.batch,
            begin_us=self.due_at_us,
            duration_s=schedule.duration_s,
            patience_s=schedule.patience_s,
            first_source=secrets.randbelow(1 << 31) + 1,
        )

    def run(self) -> SwarmResults:
        """Publishes without the GIL until all is answered, patience ends, or `stop`."""
        self._publisher.run()
        return self.figures()

    def stop(self) -> None:
        """Ends the run within a tenth of a second; what is unanswered stays unknown."""
        memoryview(self._block).cast("Q")[0] = 1

    def figures(self) -> SwarmResults:
        """What was sent and answered until now. A millisecond."""
        return read_publish_block(memoryview(self._block).cast("Q"))


def _check(schedule: Schedule) -> None:
    if not stamp.SIZE_BYTES_MIN <= schedule.size_bytes <= stamp.SIZE_BYTES_MAX:
        raise Refusal(
            f"--size must be {stamp.SIZE_BYTES_MIN} to {stamp.SIZE_BYTES_MAX} bytes: "
            "the time at which an event was due stands in its data."
        )
    if schedule.rate < 0 or schedule.duration_s <= 0:
        raise Refusal("--rate can't be negative, and --duration must be above 0.")
    if min(schedule.batch, schedule.connections, schedule.depth) < 1:
        raise Refusal("--batch, --connections and --depth must be at least 1.")
    if schedule.batch > 1 and any(schedule.envelope):
        raise Refusal("A batch has an envelope of its own.")
    if schedule.batch > 1 and not schedule.topics:
        raise Refusal("A batch names the topic of each event: give a topic.")


def _topics(url: SplitResult, schedule: Schedule) -> list[tuple[bytes, bytes]]:
    """For each topic the request head and what stands before the data in its body."""
    if not schedule.topics:
        return [(_head(url, url.query, schedule), schedule.envelope[0])]
    if schedule.batch == 1:
        before, _ = schedule.envelope
        return [
            (_head(url, _join(url.query, urlencode({"topic": topic})), schedule), before)
            for topic in schedule.topics
        ]
    head = _head(url, url.query, schedule, ("Content-Type", "application/x-ndjson"))
    return [
        (head, b'{"topic":%s,"data":' % json.dumps(topic, ensure_ascii=False).encode())
        for topic in schedule.topics
    ]


def _join(*queries: str) -> str:
    return "&".join(filter(None, queries))


def _head(url: SplitResult, query: str, schedule: Schedule, *more: tuple[str, str]) -> bytes:
    path = url.path if url.path not in ("", "/") else DEFAULT_PATH
    target = f"{path}?{query}" if query else path
    lines = [f"POST {target} HTTP/1.1", f"Host: {url.netloc}", "User-Agent: fastsse-publish"]
    lines += [f"{name}: {value}" for name, value in (*more, *schedule.headers)]
    if any("\r" in line or "\n" in line for line in lines):
        raise Refusal("A header can't hold a line break.")
    return "\r\n".join([*lines, ""]).encode()
