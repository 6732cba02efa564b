"""The plots of a page: which figures of a result stand against which."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from bench.html.plot import Axis, Point, Series, around, plot

Result = Mapping[str, Any]
USER_SPACE = {"idle-shared": ("all on one channel", "one"), "idle-own": ("a topic each", "two")}
PROMISED_BYTES = {"idle-shared": 160, "idle-own": 1024}


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot with what stands around it.

    Attributes:
        legend: (style, name) of each line.
    """

    title: str
    says: str
    svg: Markup
    legend: Sequence[tuple[str, str]]


def _grouped(curve: Sequence[Mapping[str, float]], x: str, y: str) -> dict[float, list[float]]:
    found: dict[float, list[float]] = {}
    for point in curve:
        found.setdefault(point[x], []).append(point[y])
    return found


def series_of(
    curve: Sequence[Mapping[str, float]], x: str, y: str, name: str, style: str
) -> Series:
    """A line through the medians of the repeats, which are shown too; hollow: past the knee."""
    groups = _grouped(curve, x, y)
    points = [(value, statistics.median(group)) for value, group in sorted(groups.items())]
    repeats = [(value, one) for value, group in groups.items() if len(group) > 1 for one in group]
    missed = frozenset(p[x] for p in curve if not p.get("held", 1.0))
    return Series(name, points, style, repeats, missed)


def _figure(
    title: str, says: str, x: tuple[str, str, bool], y: tuple[str, str, bool], lines: list[Series]
) -> Figure:
    every: list[Point] = [point for line in lines for point in (*line.points, *line.repeats)]
    across = Axis(x[0], x[1], *around([point[0] for point in every], log=x[2]), log=x[2])
    up = Axis(y[0], y[1], *around([point[1] for point in every], log=y[2]), log=y[2])
    legend = [(line.style, line.name) for line in lines]
    return Figure(title, says, plot(title, across, up, lines), legend)


def latency_against_rate(ladder: Result) -> Figure:
    curve = ladder["curve"]
    lines = [
        series_of(curve, "rate", "p50_ms", "p50", "one"),
        series_of(curve, "rate", "p99_ms", "p99", "two"),
        series_of(curve, "rate", "p99_9_ms", "p99.9", "three"),
    ]
    says = (
        f"{_clients(ladder)} clients, each rate published to all of them. From the time at which "
        "an event was due to when a client had read it, each delivery. A hollow mark: the server "
        "did not keep up in every repeat."
    )
    x, y = ("events a second", "events/s", True), ("milliseconds", "ms", True)
    return _figure("Latency against rate", says, x, y, lines)


def _clients(ladder: Result) -> str:
    point = ladder["curve"][0]
    return f"{point['offered_a_second'] / point['rate']:,.0f}"


def delivered_against_offered(ladder: Result) -> Figure:
    curve = ladder["curve"]
    measured = series_of(curve, "offered_a_second", "delivered_a_second", "delivered", "one")
    ends = measured.points[0][0], measured.points[-1][0]
    bare = statistics.median(sample["bare_a_second"] for sample in ladder["samples"])
    lines = [
        Series("as offered", [(end, end) for end in ends], "guide"),
        Series("bare loop, one event a send", [(end, bare) for end in ends], "guide floor"),
        measured,
    ]
    says = (
        "Deliveries a second over the time until the last client had the last event. Above the "
        "bare loop's line several events leave in one send."
    )
    x = ("deliveries offered a second", "offered/s", True)
    return _figure(
        "Delivered against offered", says, x, ("deliveries a second", "delivered/s", True), lines
    )


def memory_against_connections(idle: Sequence[Result]) -> Figure:
    lines = []
    for result in idle:
        name, style = USER_SPACE[result["name"]]
        curve = [{**point, "kib": point["private"] / 1024} for point in result["curve"]]
        lines.append(series_of(curve, "connections", "kib", name, style))
        most, last = PROMISED_BYTES[result["name"]], lines[-1].points[-1][0]
        guide = [(0.0, 0.0), (last, last * most / 1024)]
        lines.append(Series(f"{most:,} B each", guide, "guide"))
    says = (
        "Private memory that a fresh server process grew by, from before its first connection. "
        "The kernel's share, both ends, is in the table."
    )
    x, y = ("connections", "connections", False), ("KiB in user space", "KiB", False)
    return _figure("Memory against connections", says, x, y, lines)


def figures_of(results: Sequence[Result]) -> list[Figure]:
    """The plots that the results have curves for."""
    by_name = {result["name"]: result for result in results if result.get("curve")}
    found = []
    if "ladder" in by_name:
        found += [
            latency_against_rate(by_name["ladder"]),
            delivered_against_offered(by_name["ladder"]),
        ]
    if idle := [by_name[name] for name in USER_SPACE if name in by_name]:
        found.append(memory_against_connections(idle))
    return found
