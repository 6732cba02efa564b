"""What the features of subscriptions cost, each in pairs with the same without it; in this process,
without HTTP, except connects."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Callable
from urllib.parse import urlsplit

from bench.cases.case import Result, Setup
from bench.cases.pairs import PAIRS
from bench.inprocess import InProcess, in_process
from bench.load import Sample
from bench.machine import busy_us
from bench.server import Server
from fastsse.subscriptions import View

__all__ = ["connects", "envelope", "envelope_once", "filter_many", "filter_none", "max_rate"]

_DATA = json.dumps({"price": 7.5, "symbol": "ACME", "filling": "x" * 90}).encode()


class _Others:
    """Cores that other processes have kept busy since this was made."""

    def __init__(self) -> None:
        self._at = time.monotonic(), busy_us(), time.process_time()

    def cores(self, *servers: float) -> float:
        """`servers`: CPU (us) of processes of our own."""
        began_s, busy, own_s = self._at
        took_s = time.monotonic() - began_s
        own_us = (time.process_time() - own_s) * 1e6 + sum(servers)
        return max(0.0, (busy_us() - busy - own_us) / 1e6 / took_s)


def _paired(setup: Setup, run: Callable[[bool], float]) -> list[Sample]:
    """CPU (us) without and with a feature, in turn first, and the ratio of each pair."""
    samples: list[Sample] = []
    for pair in range(1 if setup.quick else max(PAIRS, setup.repeats)):
        found = {}
        others = _Others()
        for with_it in (False, True)[:: -1 if pair % 2 else 1]:
            found[with_it] = run(with_it)
        samples.append(
            {
                "cpu_us": found[True],
                "cpu_without_us": found[False],
                "ratio": found[True] / found[False],
                "others_busy": others.cores(),
            }
        )
    return samples


def _result(
    name: str, title: str, most: float, samples: list[Sample], unit: str = "x CPU"
) -> Result:
    result = Result(name, title, f"≤ {most}", samples, ("ratio", unit))
    result.is_fan_out = False
    result.met = result.median("ratio") <= most
    result.notes = [
        f"CPU {result.median('cpu_us'):.2f} us, without {result.median('cpu_without_us'):.2f} us"
    ]
    return result


def envelope(setup: Setup) -> Result:
    """Deliveries with an envelope and without."""
    count, events = setup.count(2_000), 100

    def run(with_it: bool) -> float:
        with in_process(count) as node:
            for _ in range(count):
                node.open(["a"], View(envelope=True) if with_it else None)
            node.opened(count)
            return _cpu_a_delivery(node, events, count)

    title = f"CPU a delivery with envelope=json to without, {count:,} clients, {len(_DATA)} B"
    # An envelope has more bytes than the data alone.
    return _result("envelope", title, 1.2, _paired(setup, run))


def envelope_once(setup: Setup) -> Result:
    """How often an event is encoded for very many channels."""
    count, events = setup.count(10_000), 3
    others = _Others()
    with in_process(count) as node:
        for number in range(count):
            node.open(["a", f"own/{number}"], View(envelope=True))
        node.opened(count)
        _cpu_a_publish(node, events, count)
        ratio = node.count("envelopes") / events
    samples = [
        {"ratio": ratio, "cpu_us": 0.0, "cpu_without_us": 0.0, "others_busy": others.cores()}
    ]
    title = f"envelopes encoded for an event of {count:,} channels"
    result = _result("envelope-once", title, 1.0, samples, "an event")
    result.notes = [f"counted over {events} events"]
    return result


def filter_none(setup: Setup) -> Result:
    """A filter that nothing passes, against a topic without streams."""
    count, events = setup.count(10_000), 5_000

    def run(with_it: bool) -> float:
        with in_process(count if with_it else 0) as node:
            for _ in range(count if with_it else 0):
                node.open(["a"], View(filter="data.price < 0"))
            node.opened(count if with_it else 0)
            return _cpu_a_publish(node, events, 0)

    title = f"CPU a published event with {count:,} clients of a filter that nothing passes, to none"
    # Each event is published alone, so it wakes the sender, and one without streams does not.
    return _result("filter-none", title, 2.5, _paired(setup, run))


def filter_many(setup: Setup) -> Result:
    """1,000 different filters on a topic."""
    count, events = setup.count(1_000), 1_000

    def run(with_it: bool) -> float:
        with in_process(count if with_it else 0) as node:
            for number in range(count if with_it else 0):
                node.open(["a"], View(filter=f"data.price < {-1 - number}"))
            node.opened(count if with_it else 0)
            return _cpu_a_publish(node, events, 0)

    title = f"CPU a published event with {count:,} different filters, to none"
    result = _result("filter-many", title, 1.0, _paired(setup, run))
    result.to_reach, result.met = "stated", None
    return result


def max_rate(setup: Setup) -> Result:
    """Topics of 100 events a second, of which a rate lets 5 pass, to topics of 5 a second."""
    count, topics, seconds = setup.count(1_000), 30, setup.seconds(1.6)
    delivered: list[float] = []

    def run(with_it: bool) -> float:
        names = [f"t/{n}" for n in range(topics)]
        with in_process(count, reads=True) as node:
            for _ in range(count):
                node.open(names, View(interval_ms=200) if with_it else None)
            node.opened(count)
            # Spans of a rate are of the clock. Publishes that begin between two touch one more.
            time.sleep(0.205 - time.time() % 0.2)
            began_us, ticks = node.sender_us(), round(seconds * 5)
            begin_s = time.monotonic()
            for tick in range(ticks):
                for nth in range(20 if with_it else 1):
                    for name in names:
                        node.publish(name, _DATA)
                    pause_s = begin_s + 0.2 * tick + 0.009 * (nth + 1) - time.monotonic()
                    time.sleep(max(0.0, pause_s))
                time.sleep(max(0.0, begin_s + 0.2 * (tick + 1) - time.monotonic()))
            time.sleep(0.25)
            deliveries = node.count("deliveries")
            if with_it:
                delivered.append(deliveries / (count * topics * ticks))
            return (node.sender_us() - began_us) / (count * topics * ticks)

    title = f"CPU of the sender with max_rate=5 of 100/s, to 5/s: {count:,} clients x {topics}"
    # The sender also wakes for events of which it sends none.
    result = _result("max-rate", title, 1.4, _paired(setup, run))
    result.notes += [f"deliveries {min(delivered):.2f} to {max(delivered):.2f} of what 5/s has"]
    return result


def _cpu_a_publish(node: InProcess, events: int, deliveries: int) -> float:
    """CPU (us) of both threads an event, until all have it."""
    before, base = node.cpu_us(), node.count("deliveries")
    for _ in range(events):
        node.publish("a", _DATA)
    node.settled(base + events * deliveries)
    return (node.cpu_us() - before) / events


def _cpu_a_delivery(node: InProcess, events: int, streams: int) -> float:
    """CPU (us) of the sender a delivery, with a send for each."""
    before, base = node.sender_us(), node.count("deliveries")
    for event in range(events):
        node.publish("a", _DATA)
        node.settled(base + (event + 1) * streams)
    return (node.sender_us() - before) / events / streams


def connects(setup: Setup) -> Result:
    """Connects that begin with the newest value of each of 300 topics."""
    count, topics = setup.count(100), 300
    names = [f"stocks/{n}" for n in range(topics)]
    samples = []
    with Server(setup.server_cpu) as server:
        lines = [json.dumps({"topic": name, "data": {"price": n}}) for n, name in enumerate(names)]
        _post(f"{server.url}/events", "application/x-ndjson", "\n".join(lines))
        feed = _post(f"{server.url}/feeds", "application/json", json.dumps(names))["feed"]
        for _ in range(1 if setup.quick else PAIRS):
            samples.append(_connect_run(server, feed, count, topics))
    title = f"connects a second on one core, last_each=1 of {topics} topics by a feed"
    result = Result("last-each", title, "≥ 3,000/s", samples, ("a_second", "streams/s"))
    result.is_fan_out = False
    result.met = result.median("a_second") >= 3_000
    result.notes = [f"CPU of the server {result.median('server_cpu_us'):.0f} us a connect"]
    return result


def _connect_run(server: Server, feed: str, count: int, topics: int) -> Sample:
    """By the server's CPU time. Each stream is read to the end of its snapshot."""
    url = urlsplit(server.url)
    ask = f"GET /events?feed={feed}&last_each=1 HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode()
    before_us, others = server.cpu_us(), _Others()
    for _ in range(count):
        with socket.create_connection((url.hostname, url.port)) as sock:
            sock.sendall(ask)
            got = sock.recv(1 << 16)
            while b"fastsse.snapshot" not in got[-200:]:
                more = sock.recv(1 << 16)
                if not more:
                    raise RuntimeError("a stream ended before its snapshot")
                got += more
            if got.count(b"\ndata: ") != topics + 1:
                raise RuntimeError("a snapshot is missing topics")
    cpu_us = server.cpu_us() - before_us
    return {
        "a_second": 1e6 * count / max(1, cpu_us),
        "server_cpu_us": cpu_us / count,
        "others_busy": others.cores(cpu_us),
    }


def _post(url: str, kind: str, body: str) -> dict[str, str]:
    request = urllib.request.Request(url, body.encode(), {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=20) as answer:
        found: dict[str, str] = json.load(answer)
    return found
