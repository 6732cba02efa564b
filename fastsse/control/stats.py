"""Statistics of the whole service, from any worker: metrics, statistics, readiness.

Every worker sends its counters to the control service once a second, and when it is asked. The
control service adds them up and answers with whole bodies, which a worker only passes on. The
counts of a worker that ended stay in the sums, so no counter goes back; its gauges are removed.
The sums are sent to all workers. If the hub process is killed, the workers send them to the next
one.

The control service also knows which workers are full, and names those that accept in their place.

Over 400 lines: both halves, in workers and in the service, use the same form of readings.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from fastsse.control.condition import Recent, condition
from fastsse.control.service import Answer, Broadcast, ControlClient, MakeService
from fastsse.errors import FastsseError
from fastsse.metrics import (
    LEAST,
    MOST,
    SUM,
    Buckets,
    Counters,
    Exemplar,
    Metrics,
    is_counter,
    merge_of,
    process_use,
)

__all__ = [
    "IS_READY",
    "SUBJECT",
    "Help",
    "StatsClient",
    "StatsService",
    "WorkerStats",
    "stats_service",
]

SUBJECT: Final = "figures"
METRICS: Final = b"metrics"
OPEN_METRICS: Final = b"openmetrics"
STATS: Final = b"stats"
READY: Final = b"ready"
PING: Final = b"ping"
HISTORY: Final = b"history"
CONDITION: Final = b"condition"
#: The start of the answer of a ready service; a remark may follow.
IS_READY: Final = "ready"
# The gauge of a source that can be read; see `metrics.py`.
# Counters that are 0 while something is wrong, by what their names begin with.
_DOWN: Final = {
    "source_up_": "sources are away",
    "source_letters_up_": "dead letters can't be written",
    "mirror_up_": "mirrors can't be written",
}
# How long a scrape waits for a busy worker. After that the worker's last figures are used.
GATHER_S: Final = 0.5
SAMPLE_S: Final = 0.95
# How far a worker may be above the mean: this many streams, or a twentieth.
UNEVEN_MIN: Final = 8
UNEVEN_PART: Final = 20
# What consoles see of the past: a point for every so many seconds, of 15 minutes.
POINT_EVERY_S: Final = 5.0
POINTS_MAX: Final = 180
_MS_A_S: Final = 1000


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """What a worker reports of itself.

    Attributes:
        slot: its place among the workers.
        slots: how many places there are.
        room: streams it can still take.
        unready: why it takes no new streams, in a word (`full`, `draining`), or None.
        leaving: another worker has taken its place.
        is_shared: it accepts from the same socket as the others.
        bounds, buckets, latency_s: the sender's histogram.
        consoles: open consoles, which get the figures of every second.
        trouble: why the store takes no events, or None.
        exemplars: traced events by the bucket of the histogram, as a text.
        sums: the control service's, as it sent them last.
    """

    slot: int
    slots: int
    pid: int
    started_s: float
    room: int
    unready: str | None
    leaving: bool
    is_shared: bool
    counters: Mapping[str, int]
    bounds: Sequence[float]
    buckets: Sequence[int]
    latency_s: float
    cpu_s: float
    resident_bytes: int
    consoles: int = 0
    trouble: str | None = None
    exemplars: Mapping[str, Exemplar] = field(default_factory=dict)
    sums: Mapping[str, Any] | None = None

    def row(self) -> dict[str, Any]:
        """What an operator is shown of the worker."""
        return {
            "pid": self.pid,
            "uptime_s": round(time.time() - self.started_s, 3),
            "state": "leaving" if self.leaving else self.unready or "ready",
            "connections": self.counters.get("connections", 0),
            "room": self.room,
            "deliveries": self.counters.get("deliveries", 0),
            "cpu_s": round(self.cpu_s, 3),
            "resident_bytes": self.resident_bytes,
        }


@dataclass(slots=True)
class EndedWorkers:
    """The counts of ended workers, which must outlive workers and the control service."""

    version: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    buckets: list[int] = field(default_factory=list)
    latency_s: float = 0.0
    cpu_s: float = 0.0

    def bury(self, reading: WorkerStats) -> None:
        """Keeps what a worker had counted."""
        self.version += 1
        for key, value in reading.counters.items():
            if is_counter(key) and merge_of(key) == SUM:
                self.counters[key] = self.counters.get(key, 0) + value
        if not reading.leaving:
            self.counters["workers_lost"] = self.counters.get("workers_lost", 0) + 1
        self.buckets = _added(self.buckets, reading.buckets)
        self.latency_s += reading.latency_s
        self.cpu_s += reading.cpu_s


@dataclass(frozen=True, slots=True)
class Help:
    """Which worker accepts in place of which. `helper[slot]` is the number of the worker that takes
    new connections of a slot without room or without a worker. `is_room`: some worker has room.
    `heavy`: workers that stop to accept from a shared socket for now."""

    helper: Mapping[int, int]
    is_room: bool
    heavy: frozenset[int] = frozenset()


class StatsService:
    """Collects the figures of all workers. Loop thread only.

    Arguments:
        broadcast: to all workers.
        own: counters of this process that no worker has.
        build: as Metrics takes it.
        now_s: a monotonic clock.
    """

    def __init__(
        self,
        broadcast: Broadcast,
        own: Counters,
        build: Mapping[str, str],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._broadcast = broadcast
        self._own = own
        self._bounds: Sequence[float] = ()
        self._now_s = now_s
        self._sampled_s = now_s()
        self._readings: dict[int, WorkerStats] = {}
        self._sums = EndedWorkers()
        self._help = Help({}, True)
        self._heavy: frozenset[int] = frozenset()
        # The requests of workers, and the workers that have not answered since the last call for
        # figures.
        self._asking: list[tuple[bytes, Callable[[bytes], None]]] = []
        self._awaited: set[int] = set()
        self._giving_up: asyncio.TimerHandle | None = None
        self._build = dict(build)
        self._points: deque[bytes] = deque(maxlen=POINTS_MAX)
        self._pointed_s = -POINT_EVERY_S
        self._recent = Recent(now_s())
        self._metrics = self._made()

    def on_request(self, worker: int, message: bytes, answer: Callable[[bytes], None]) -> None:
        """Handles `history` and `ping`; for all others the figures of all workers are collected."""
        if message == PING:
            answer(b"")
            return
        if message == HISTORY:
            points = b",".join(self._points)
            answer(b'{"every_s":%d,"points":[%b]}\n' % (POINT_EVERY_S, points))
            return
        self._asking.append((message, answer))
        if self._giving_up is None:
            self._awaited = set(self._readings)
            self._giving_up = asyncio.get_running_loop().call_later(GATHER_S, self._answer)
            self._broadcast(orjson.dumps({"report": True}))
            self._answer_if_complete()

    def on_message(self, worker: int, message: bytes) -> None:
        """Takes the figures of a worker."""
        reading = WorkerStats(**orjson.loads(message))
        is_new = worker not in self._readings
        if is_new:
            self._recent.join(reading.counters)
        self._readings[worker] = reading
        if not self._bounds:
            self._bounds = reading.bounds
            self._metrics = self._made()
        if reading.sums is not None and reading.sums["version"] > self._sums.version:
            self._sums = EndedWorkers(**reading.sums)
            self._recent.join(self._sums.counters)
            is_new = True
        self._share(is_new)
        self._awaited.discard(worker)
        if self._now_s() - self._sampled_s >= SAMPLE_S:
            self._sampled_s = self._now_s()
            self._metrics.tick()
            self._weigh()
            self._show()
            self._recent.mark(self._now_s(), self._figures())
        self._answer_if_complete()

    def on_worker_gone(self, worker: int) -> None:
        """Keeps the counts of a worker that ended."""
        reading = self._readings.pop(worker, None)
        self._awaited.discard(worker)
        if reading is not None:
            self._sums.bury(reading)
            self._share(True)
        self._answer_if_complete()

    def _show(self) -> None:
        """Once a second: keeps a point for consoles, and sends it to those that are open."""
        is_due = self._now_s() - self._pointed_s >= POINT_EVERY_S
        is_watched = any(reading.consoles for reading in self._readings.values())
        if not is_due and not is_watched:
            return
        point = orjson.dumps(_point(self._metrics.stats()))
        if is_due:
            self._pointed_s = self._now_s()
            self._points.append(point)
        if is_watched:
            self._broadcast(b'{"live":%b}' % point)

    def _made(self) -> Metrics:
        return Metrics(
            [self._merged, self._own], self._latency, self._build, self._now_s, self._process
        )

    # -- answers --------------------------------------------------------------------------------

    def _answer_if_complete(self) -> None:
        if self._asking and not self._awaited:
            self._answer()

    def _answer(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None
        asking, self._asking = self._asking, []
        for message, answer in asking:
            answer(self._body(message))

    def _body(self, message: bytes) -> bytes:
        if message == METRICS:
            return self._metrics.exposition()
        if message == OPEN_METRICS:
            return self._metrics.open_exposition(self._exemplars())
        if message == STATS:
            stats = {**self._metrics.stats(), "processes": self._spread()}
            return orjson.dumps(stats, option=orjson.OPT_APPEND_NEWLINE)
        if message == CONDITION:
            return orjson.dumps(self._condition())
        return (self._unready() or self._remark()).encode()

    def _condition(self) -> list[dict[str, str]]:
        """What an operator should look at, as JSON."""
        now, troubles = self._figures(), [one.trouble for one in self._readings.values()]
        risen, span_s = self._recent.since(self._now_s(), now)
        trouble = next(filter(None, troubles), None)
        return [one._asdict() for one in condition(now, risen, span_s, time.time(), trouble)]

    def _figures(self) -> dict[str, int]:
        return {**self._merged(), **self._own()}

    def _unready(self) -> str | None:
        """Why no worker takes new streams; None if one does."""
        reasons = [reading.unready for reading in self._readings.values()]
        if not reasons:
            return "starting"
        if self._figures().get("store_checking"):
            return "checking history"
        return None if None in reasons else str(reasons[0])

    def _remark(self) -> str:
        """The remarks of a ready service; empty: none."""
        counters = self._figures()
        remarks = []
        if unchecked := counters.get("store_unchecked", 0):
            remarks.append(f"{unchecked} checks of history were not made in time")
        for prefix, what in _DOWN.items():
            if down := sorted(
                key.removeprefix(prefix)
                for key, is_up in counters.items()
                if key.startswith(prefix) and not is_up
            ):
                remarks.append(f"{what}: {', '.join(down)}")
        if counters.get("store_memory_low"):
            remarks.append("Redis is nearly full")
        return "; ".join([IS_READY, *remarks]) if remarks else ""

    def _spread(self) -> list[dict[str, Any]]:
        """Each worker's share, by slot."""
        readings = sorted(self._readings.values(), key=_seniority)
        return [{"worker": reading.slot, **reading.row()} for reading in readings]

    # -- sums -----------------------------------------------------------------------------------

    def _merged(self) -> dict[str, int]:
        """The counters and gauges of all, as if of one worker."""
        merged = {"workers_lost": 0, **self._sums.counters}
        for reading in self._readings.values():
            for key, value in reading.counters.items():
                if merge_of(key) == MOST:
                    merged[key] = max(merged.get(key, 0), value)
                elif merge_of(key) == LEAST:
                    merged[key] = min(merged.get(key, value), value)
                elif not (reading.leaving and key == "max_connections"):
                    merged[key] = merged.get(key, 0) + value
        merged["workers"] = sum(not reading.leaving for reading in self._readings.values())
        return merged

    def _latency(self) -> Buckets:
        counts = self._sums.buckets or [0] * (len(self._bounds) + 1)
        latency_s = self._sums.latency_s
        for reading in self._readings.values():
            counts = _added(counts, reading.buckets)
            latency_s += reading.latency_s
        return self._bounds, counts, latency_s

    def _process(self) -> tuple[float, int]:
        readings = self._readings.values()
        cpu_s, resident_bytes = 0.0, 0
        if all(reading.pid != os.getpid() for reading in readings):
            cpu_s, resident_bytes = process_use()
        cpu_s += self._sums.cpu_s + sum(reading.cpu_s for reading in readings)
        return cpu_s, resident_bytes + sum(reading.resident_bytes for reading in readings)

    def _exemplars(self) -> dict[int, Exemplar]:
        """The newest traced event of each bucket, of all workers."""
        newest: dict[int, Exemplar] = {}
        for reading in self._readings.values():
            for index, one in reading.exemplars.items():
                known = newest.get(int(index))
                if known is None or one[2] > known[2]:
                    newest[int(index)] = one
        return newest

    # -- which worker accepts -------------------------------------------------------------------

    def _share(self, is_new: bool) -> None:
        """Notifies all workers when the accepting workers change, or when new sums must be kept."""
        helped = self._helped()
        if helped != self._help or is_new:
            self._help = helped
            text = {
                "helper": {str(slot): number for slot, number in helped.helper.items()},
                "is_room": helped.is_room,
                "heavy": sorted(helped.heavy),
                "sums": self._sums,
            }
            self._broadcast(orjson.dumps(text))

    def _weigh(self) -> None:
        """Once a second: workers with clearly more streams than the mean, on a shared socket."""
        counts = {
            number: reading.counters.get("connections", 0)
            for number, reading in self._readings.items()
            if reading.is_shared and not reading.leaving
        }
        mean = sum(counts.values()) // max(1, len(counts))
        fair = mean + max(UNEVEN_MIN, mean // UNEVEN_PART)
        self._heavy = frozenset(number for number, count in counts.items() if count > fair)
        self._share(False)

    def _helped(self) -> Help:
        staying = {n: one for n, one in self._readings.items() if not one.leaving}
        roomy = {number: one.room for number, one in staying.items() if one.room > 0}
        if not roomy:
            return Help({}, False, self._heavy)
        most = max(roomy, key=lambda number: (number in self._help.helper.values(), roomy[number]))
        served = {staying[number].slot for number in roomy}
        slots = max(one.slots for one in staying.values())
        helper = {slot: most for slot in range(slots) if slot not in served}
        return Help(helper, True, self._heavy)


def _point(stats: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a second, as consoles draw them."""
    rates, latency, totals = stats["rates_per_s"], stats["latency_s"], stats["totals"]
    return {
        "at": round(time.time() * _MS_A_S),
        "connections": stats["connections"],
        "published": rates["events_published"],
        "delivered": rates["deliveries"],
        "bytes": rates["bytes_sent"],
        "p50_ms": _ms(latency["p50"]),
        "p99_ms": _ms(latency["p99"]),
        "lag_bytes": stats["lag_bytes"],
        "blocked": stats["blocked_connections"],
        "memory": stats["memory_bytes"],
        "history": stats["history_events"],
        "workers": stats["workers"],
        "reasons": {
            "gaps": totals["gaps"],
            "refused publishes": totals["publish_refused"],
            "refused streams": totals["turned_away"],
            "limited requests": totals["limited"],
            "streams ended": totals["disconnects"],
        },
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * _MS_A_S


def _seniority(reading: WorkerStats) -> tuple[int, float]:
    return reading.slot, reading.started_s


def _added(counts: Sequence[int], more: Sequence[int]) -> list[int]:
    """Two histograms' counts; an empty one is all zeros."""
    if not counts or not more:
        return list(counts or more)
    return [one + other for one, other in zip(counts, more, strict=True)]


def stats_service(own: Counters, build: Mapping[str, str]) -> MakeService:
    """The maker of the control service, as `Services` takes it."""
    return lambda broadcast, store, publish: StatsService(broadcast, own, build)


class StatsClient:
    """A worker's side: sends its own figures, and requests those of all. Loop thread only.

    Arguments:
        control: the way to the control service.
        read: returns the figures of this worker, with `sums` None.
        helped: called when it changes which worker accepts in place of which.
    """

    def __init__(
        self,
        control: ControlClient,
        read: Callable[[], WorkerStats],
        helped: Callable[[Help], None] = lambda help: None,
    ) -> None:
        self._control = control
        self._read = read
        self._helped = helped
        self._sums: Mapping[str, Any] | None = None
        #: Called with the figures of each second, JSON, while a console is open somewhere.
        self.on_live: Callable[[bytes], None] = lambda point: None
        control.listen(SUBJECT, self._on_broadcast)
        # A new hub process has no worker's figures.
        control.on_back.append(self.report)

    def report(self) -> None:
        """Sends the figures. Call it once a second, and when there is no room left."""
        self._control.notify(SUBJECT, orjson.dumps(replace(self._read(), sums=self._sums)))

    def own_row(self) -> dict[str, Any]:
        """What an operator is shown of this worker."""
        return self._read().row()

    def ping(self, done: Answer) -> None:
        """Gives `done` anything but an error if the control service is there."""
        self._control.ask(SUBJECT, PING, done)

    def metrics(self, done: Answer, *, is_open: bool = False) -> None:
        """The body of `/metrics`, or an error when the control service can't be reached. `is_open`:
        as OpenMetrics, with exemplars."""
        self._control.ask(SUBJECT, OPEN_METRICS if is_open else METRICS, done)

    def stats(self, done: Answer) -> None:
        """The body of `/stats`."""
        self._control.ask(SUBJECT, STATS, done)

    def history(self, done: Answer) -> None:
        """The figures of the last 15 minutes: `every_s`, and `points`, the oldest first."""
        self._control.ask(SUBJECT, HISTORY, done)

    def condition(self, done: Answer) -> None:
        """What an operator should look at: a JSON list of checks, the wrong ones first."""
        self._control.ask(SUBJECT, CONDITION, done)

    def unready(self, done: Callable[[str | None], None]) -> None:
        """Why no worker takes new streams, in a word. None, or a remark after IS_READY: one
        does."""

        def judge(answer: bytes | FastsseError) -> None:
            done("hub" if isinstance(answer, FastsseError) else answer.decode() or None)

        self._control.ask(SUBJECT, READY, judge)

    def _on_broadcast(self, message: bytes) -> None:
        said = orjson.loads(message)
        if "report" in said:
            self.report()
            return
        if "live" in said:
            self.on_live(orjson.dumps(said["live"]))
            return
        self._sums = said["sums"]
        helper = {int(slot): number for slot, number in said["helper"].items()}
        self._helped(Help(helper, said["is_room"], frozenset(said["heavy"])))
