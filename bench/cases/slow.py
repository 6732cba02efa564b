"""Clients that read slowly or never must not be seen in the others' latency."""

from __future__ import annotations

from bench.cases.case import Result, Setup
from bench.cases.pairs import PAIRS, pairs_of
from bench.load import Load
from bench.server import UnderTest
from fastsse.swarm import Plan

SLOW_BYTES_A_S = 10_000
SMALL_BUFFER_BYTES = 4096


def slow_case(
    setup: Setup, name: str, title: str, size_bytes: int, bytes_per_s: float, buffer_bytes: int
) -> Result:
    """Pairs of runs in one server, with and without slow clients next to the same fast ones."""
    fast, rate = setup.count(1800), 100.0
    slow = fast // 9
    load = Load(("news",), rate, setup.seconds(4), fast, size_bytes, warm_up_s=setup.seconds(0.5))

    def plan_of(server: UnderTest, disturbed: bool) -> Plan:
        if not disturbed:
            return setup.plan(server, fast, "news")
        return setup.plan(
            server,
            fast + slow,
            "news",
            slow_share=slow / (fast + slow),
            slow_bytes_per_s=bytes_per_s,
            slow_buffer_bytes=buffer_bytes,
        )

    samples = pairs_of(setup, load, plan_of, max(PAIRS, setup.repeats))
    title = f"{fast:,} clients x {rate:.0f}/s next to {slow:,} that {title}"
    result = Result(name, title, "p99 ≤ 1.1 x without, memory flat", samples, ("ratio", "x p99"))
    result.met = result.sound() and result.median("ratio") <= 1.1
    result.notes = [
        f"{len(samples)} pairs; p99 without {result.median('p99_without_ms'):.1f} ms; memory grew "
        f"{result.median('grown_bytes') / 1024:,.0f} KiB a run, without "
        f"{result.median('grown_without_bytes') / 1024:,.0f} KiB"
    ]
    return result


def never_read(setup: Setup) -> Result:
    return slow_case(setup, "slow", "never read", 128, 0, 0)


def read_slowly(setup: Setup) -> Result:
    """1 KiB events, so that 10 KB/s is a tenth of what the stream brings."""
    title = "read 10 KB/s of 100 KB/s"
    return slow_case(setup, "slow-10k", title, 1024, SLOW_BYTES_A_S, SMALL_BUFFER_BYTES)
