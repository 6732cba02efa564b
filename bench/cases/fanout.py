"""One event to very many streams, at rates between rest and saturation."""

from __future__ import annotations

from bench.cases.case import Result, Setup
from bench.load import Load, connected, fan_out


def fan_out_case(
    setup: Setup, name: str, connections: int, rate: float, seconds: float, topics: tuple[str, ...]
) -> Result:
    """`connections` streams, `rate` events a second to all of them, next to the bare loop."""
    connections, seconds = setup.count(connections), setup.seconds(seconds)
    load = Load(topics[-1:], rate, seconds, connections, warm_up_s=setup.seconds(0.5))
    samples = []
    for _ in range(setup.repeats):
        with setup.server() as server, connected(setup.plan(server, connections, *topics)) as crew:
            sample = fan_out(server, crew, load)
        samples.append(setup.set_beside_bare(sample, connections, rate, seconds))
    title = f"{connections:,} clients x {rate:,.0f}/s"
    return Result(name, title, "", samples, ("ratio", "x bare"))


def steady(setup: Setup) -> Result:
    result = fan_out_case(setup, "steady", 5000, 10, 5, ("news",))
    result.to_reach = "all delivered, CPU a delivery ≤ 1.15 x bare"
    result.met = result.sound() and result.median("ratio") <= 1.15
    return result


def saturation(setup: Setup) -> Result:
    result = fan_out_case(setup, "saturation", 1000, 1000, 5, ("news",))
    result.to_reach = "all delivered, p99 ≤ 60 ms"
    result.figure = ("p99_ms", "ms p99")
    result.met = result.sound() and result.median("p99_ms") <= 60
    return result


def wide(setup: Setup) -> Result:
    result = fan_out_case(setup, "wide", 5000, 100, 5, ("news",))
    result.to_reach = "all delivered, p99 ≤ 100 ms"
    result.figure = ("p99_ms", "ms p99")
    result.met = result.sound() and result.median("p99_ms") <= 100
    return result


def own_topics(setup: Setup) -> Result:
    result = fan_out_case(setup, "own-topics", 10_000, 10, 5, ("user/{n}", "news"))
    result.title += ", each with a topic of its own"
    result.to_reach = "all delivered, CPU ≤ 1.3 x bare, publish answers < 2 ms"
    result.met = (
        result.sound() and result.median("ratio") <= 1.3 and result.median("answer_p99_ms") < 2
    )
    result.notes = [f"publish answer p99 {result.median('answer_p99_ms'):.2f} ms"]
    return result
