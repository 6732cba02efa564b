"""Locust's page: runs are started from its form, and it shows the merged and exact figures.

This file comes first: its test works while the other runs go on by themselves.
"""

import functools
import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from tests.loadtests.conftest import TIMEOUT_S, Running

pytestmark = [pytest.mark.timeout(300), pytest.mark.locust_run("web")]
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Page:
    """The page of a running Locust."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"

    def ask(self, path: str, form: dict[str, str] | None = None) -> str:
        data = None if form is None else urllib.parse.urlencode(form).encode()
        with OPENER.open(self._base + path, data, timeout=30) as answer:
            return str(answer.read().decode())

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask("/stats/requests"))
        return found

    def start(self, **form: str) -> None:
        told = self.ask("/swarm", {"user_count": "4", "spawn_rate": "50", **form})
        assert json.loads(told)["success"], told

    def until(self, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                found = self.stats()
            except OSError:  # It does not listen yet.
                found = {"stats": [], "extended_stats": []}
            if true(found):
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.2)


def count(stats: dict[str, Any], kind: str, name: str) -> int:
    rows = (row for row in stats["stats"] if (row["method"], row["name"]) == (kind, name))
    return sum(row["num_requests"] for row in rows)


def table(stats: dict[str, Any], key: str) -> list[dict[str, Any]]:
    return next((t["data"] for t in stats["extended_stats"] if t["key"] == key), [])


def open_streams(stats: dict[str, Any]) -> int:
    rows = table(stats, "fastsse-streams")
    return sum(row["count"] for row in rows if row["state"] == "open")


def all_arrived(stats: dict[str, Any], events: int) -> bool:
    """At 20 streams of a swarm and 2 Python readers."""
    got = [count(stats, kind, "delivery") for kind in ("swarm", "sse")]
    return got == [20 * events, 2 * events]


def test_a_run_from_the_form_shows_merged_and_exact_figures_and_can_be_repeated(
    mine: Running,
) -> None:
    page = Page(mine.port)
    page.until(lambda stats: "state" in stats)
    assert '"title": "Streams"' in page.ask("/")
    for rate in (20, 40):  # the second run begins at nothing
        page.start(rate=str(rate), publish_for="1.0")
        page.until(lambda stats: open_streams(stats) == 22)
        stats = page.until(functools.partial(all_arrived, events=rate))
        exact = {(r["type"], r["name"]): r["count"] for r in table(stats, "fastsse-exact")}
        assert exact["swarm", "delivery"] == 20 * rate
        page.ask("/stop", {})
        page.until(lambda stats: stats["state"] == "stopped")
