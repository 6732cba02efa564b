"""The page of a run opens offline, shows each figure with its spread, and escapes what it shows."""

import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from bench.html.figures import figures_of, series_of
from bench.html.page import cell, render
from bench.html.plot import Axis, around, short


def step(rate: float, held: float, p99_ms: float) -> dict[str, float]:
    zeros = ("lost", "repeated", "disordered", "disconnects", "p50_ms", "p90_ms", "max_ms")
    return {
        **dict.fromkeys(zeros, 0.0),
        "rate": rate,
        "held": held,
        "p99_ms": p99_ms,
        "p99_9_ms": p99_ms * 2,
        "p50_ms": 1.0,
        "offered_a_second": rate * 100,
        "delivered_a_second": rate * 99,
        "server_cpu_us": 2.0,
        "client_cpu_us": 1.0,
        "client_busy": 0.5,
        "deliveries": 30.0,
        "sends": 10.0,
    }


def memory(connections: float) -> dict[str, float]:
    return {"connections": connections, "private": connections * 90}


def result(name: str, figure: str, samples: list[dict[str, float]], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "title": f"<{name}>",
        "to_reach": "≤ 1",
        "met": None,
        "curve": [],
        "figure": (figure, "units"),
        "is_fan_out": False,
        "notes": [],
        "samples": samples,
        **more,
    }


@pytest.fixture
def run() -> dict[str, Any]:
    curve = [step(50, 1, 10), step(50, 1, 30), step(100, 1, 20), step(200, 0, 900)]
    sample = {"held_rate": 100.0, "bare_a_second": 8000.0}
    idle = [memory(n) for n in (0, 500, 1000)]
    return {
        "at": "2026-01-02T03:04:05+00:00",
        "environment": {
            "commit": "abc",
            "cpu": "a <fast> one",
            "cores": 2,
            "memory_mib": 24105,
            "kernel": "6.1",
            "python": "3.11",
            "command": "python -m bench & more",
            "sysctl": {"net.core.somaxconn": "4096"},
        },
        "setup": {"quick": False, "repeats": 2, "server_cpu": 0, "client_cpu": 1},
        "notes": ["others took <much>"],
        "results": [
            result("ladder", "held_rate", [sample], curve=curve, is_fan_out=True),
            result("idle-shared", "private", [{"private": 90.0}], curve=idle, met=True),
            result("connect", "a_second", [{"a_second": 5.0}, {"a_second": 9.0}], met=False),
        ],
    }


def test_page_needs_nothing_from_outside(run: dict[str, Any]) -> None:
    page = render(run)
    assert not re.search(r"https?://|<script|<link|@import|url\(|src=", page)


def test_page_has_the_three_plots_and_each_is_sound_xml(run: dict[str, Any]) -> None:
    figures = figures_of(run["results"])
    assert [figure.title for figure in figures] == [
        "Latency against rate",
        "Delivered against offered",
        "Memory against connections",
    ]
    for figure in figures:
        picture = ET.fromstring(str(figure.svg))
        assert len(picture.findall("polyline")) >= 2
        assert "NaN" not in str(figure.svg)


def test_page_shows_spread_verdicts_and_machine(run: dict[str, Any]) -> None:
    page = render(run)
    for text in ("6.1", "abc", "24,105 MiB", "net.core.somaxconn 4096", "past the knee"):
        assert text in page
    assert "<b>7.00</b><small>5.00 – 9.00</small>" in page  # noqa: RUF001
    assert page.count('badge met">met') == page.count('badge missed">missed') == 1


def test_page_escapes_what_it_shows(run: dict[str, Any]) -> None:
    page = render(run)
    assert "a &lt;fast&gt; one" in page
    assert "&lt;connect&gt;" in page
    assert "python -m bench &amp; more" in page
    assert "others took &lt;much&gt;" in page


def test_page_of_a_run_without_curves_has_no_plots(run: dict[str, Any]) -> None:
    run["results"] = run["results"][-1:]
    page = render(run)
    assert "<svg" not in page
    assert "Curves" not in page


def test_line_goes_through_medians_and_marks_what_was_not_held(run: dict[str, Any]) -> None:
    line = series_of(run["results"][0]["curve"], "rate", "p99_ms", "p99", "one")
    assert line.points == [(50, 20), (100, 20), (200, 900)]
    assert sorted(line.repeats) == [(50, 10), (50, 30)]
    assert line.hollow == {200}


def test_axis_has_round_ticks_between_its_ends() -> None:
    assert Axis("", "", *around([50, 400], log=True), log=True).ticks() == [50, 100, 200, 500]
    assert Axis("", "", *around([0, 10_000], log=False)).ticks() == [0, 2000, 4000, 6000, 8000, 1e4]
    assert Axis("", "", 1, 100, log=True).share(10) == pytest.approx(0.5)
    assert around([0, 0], log=False)[1] > 0


def test_figures_are_short_on_axes_and_whole_in_tables() -> None:
    assert [short(v) for v in (0.25, 50, 1500, 3e6)] == ["0.25", "50", "1.5k", "3M"]
    assert cell([3, 1, 2000], 0) == ("3", "1 – 2,000")  # noqa: RUF001
    assert cell([3], 2) == ("3.00", "")
