"""What operators see must not cost users: consoles and traces, in pairs with and without."""

from __future__ import annotations

import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from bench.cases.case import Result, Setup
from bench.cases.publishing import closed_loop
from bench.load import Load, Sample, connected, fan_out
from bench.server import Server

_PAIRS = 7
_MOST = 1.1
# Sampling takes 2 to 3 µs in OpenTelemetry's library, of a publish of 6.9.
_TRACING_MOST = 1.5
_ANSWER_MOST_MS = 300.0
_LISTS = (
    "connections?limit=100",
    "connections?state=blocked",
    "topics?sort=subscribers",
    "explain",
)
_SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_UNSAMPLED = _SAMPLED[:-1] + "0"
_SHARE = 0.01


@contextmanager
def _consoles(url: str, count: int) -> Iterator[None]:
    """Open consoles, which read what they get."""
    streams = [urllib.request.urlopen(f"{url}/admin/live", timeout=60) for _ in range(count)]
    is_over = threading.Event()

    def read(stream: object) -> None:
        while not is_over.is_set() and stream.readline():  # type: ignore[attr-defined]
            pass

    threads = [threading.Thread(target=read, args=(one,), daemon=True) for one in streams]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
        for stream in streams:
            stream.close()


def _watched(setup: Setup, name: str, fewer: int, more: int) -> Result:
    """Pairs of runs with fewer and with more open consoles, in turn first, in one server."""
    clients, rate = setup.count(1000), 100.0
    load = Load(("news",), rate, setup.seconds(1), clients, warm_up_s=setup.seconds(0.2))
    samples: list[Sample] = []
    with setup.server() as server:
        for pair in range(1 if setup.quick else _PAIRS):
            found = {}
            for count in (fewer, more)[:: -1 if pair % 2 else 1]:
                with (
                    connected(setup.plan(server, clients, "news")) as crew,
                    _consoles(server.url, count),
                ):
                    found[count] = fan_out(server, crew, load)
            sample, plain = found[more], found[fewer]
            sample["p99_without_ms"] = plain["p99_ms"]
            sample["ratio"] = sample["p99_ms"] / max(1e-3, plain["p99_ms"])
            sample["cpu_ratio"] = sample["server_cpu_us"] / max(0.01, plain["server_cpu_us"])
            samples.append(sample)
    title = f"{clients:,} clients x {rate:.0f}/s with {more} open consoles, to {fewer}"
    result = Result(name, title, f"p99 ≤ {_MOST} x", samples, ("ratio", "x p99"))
    if more > 1:  # Their readers delay the publisher, whose process they are in.
        result.figure, result.to_reach = ("cpu_ratio", "x CPU"), f"CPU a delivery ≤ {_MOST} x"
    result.met = result.sound() and result.median(result.figure[0]) <= _MOST
    cpu = sorted(sample["cpu_ratio"] for sample in samples)
    p99 = sorted(sample["ratio"] for sample in samples)
    result.notes = [
        f"{len(samples)} pairs; p99 {result.median('p99_ms'):.1f} ms to "
        f"{result.median('p99_without_ms'):.1f} ms, ratios {p99[0]:.2f} to {p99[-1]:.2f}; CPU a "
        f"delivery {statistics.median(cpu):.2f} x, {cpu[0]:.2f} to {cpu[-1]:.2f}"
    ]
    return result


def one_console(setup: Setup) -> Result:
    return _watched(setup, "console", 0, 1)


def many_consoles(setup: Setup) -> Result:
    return _watched(setup, "console-100", 1, 100)


def console_lists(setup: Setup) -> Result:
    """How long the console's lists take while very many streams are open."""
    clients = setup.count(15_000)
    samples: list[Sample] = []
    with setup.server() as server, connected(setup.plan(server, clients, "news")):
        for _ in range(setup.count(20)):
            sample: Sample = {"others_busy": 0.0}  # Lists take milliseconds: too short to tell.
            for what in _LISTS:
                began_s = time.perf_counter()
                with urllib.request.urlopen(f"{server.url}/admin/{what}", timeout=60) as answer:
                    answer.read()
                sample[what] = (time.perf_counter() - began_s) * 1000
            sample["slowest_ms"] = max(sample[what] for what in _LISTS)
            samples.append(sample)
    title = f"lists of the console with {clients:,} open streams"
    most = f"≤ {_ANSWER_MOST_MS:.0f} ms"
    result = Result("console-lists", title, most, samples, ("slowest_ms", "ms"))
    result.is_fan_out = False
    result.met = max(sample["slowest_ms"] for sample in samples) <= _ANSWER_MOST_MS
    result.notes = [
        f"{what}: {result.median(what):.1f} ms, at most {max(one[what] for one in samples):.1f}"
        for what in _LISTS
    ]
    return result


def tracing(setup: Setup) -> Result:
    """CPU a publish with tracing, to the same without, where one publish in a hundred is recorded.

    A publisher of this benchmark sends one header. So a recorded publish and one that is not are
    measured apart, and weighed 1 to 99.
    """
    kinds: dict[str, tuple[Sequence[str], str]] = {
        "off": ((), ""),
        "off, recorded": ((), _SAMPLED),
        "on, not recorded": (("--tracing",), _UNSAMPLED),
        "on, recorded": (("--tracing",), _SAMPLED),
    }
    # Spans are made and sent to a collector that is not there: that costs no less.
    nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    samples = []
    with ExitStack() as running:
        up = {
            name: running.enter_context(Server(setup.server_cpu, options, nowhere))
            for name, (options, _) in kinds.items()
        }
        for turn in range(1 if setup.quick else _PAIRS):
            cpu: dict[str, float] = {}
            for name in list(kinds)[:: -1 if turn % 2 else 1]:
                header = kinds[name][1]
                headers = (("traceparent", header),) if header else ()
                sample = closed_loop(setup, up[name], 64, headers=headers, seconds=0.8)
                cpu[name] = sample["server_cpu_us"]
            mixed = (1 - _SHARE) * cpu["on, not recorded"] + _SHARE * cpu["on, recorded"]
            sample["ratio"] = mixed / max(0.01, cpu["off"])
            sample |= {f"{name} us": value for name, value in cpu.items()}
            samples.append(sample)
    title = "publishes with tracing, 1 % recorded, to the same without, by CPU"
    result = Result("tracing", title, f"≤ {_TRACING_MOST}", samples, ("ratio", "x"))
    result.is_fan_out = False
    result.met = result.median("ratio") <= _TRACING_MOST
    ratios = sorted(sample["ratio"] for sample in samples)
    shown = ", ".join(f"{name} {result.median(f'{name} us'):.1f} µs" for name in kinds)
    result.notes = [f"{len(samples)} rounds, {ratios[0]:.2f} to {ratios[-1]:.2f}: {shown}"]
    return result
