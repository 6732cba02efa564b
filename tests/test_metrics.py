"""Metrics are read from the parts' own counters, under fixed names and few labels."""

from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_families,
)
from prometheus_client.parser import text_string_to_metric_families

from fastsse._core import Sender
from fastsse.client import Publisher, listen
from fastsse.config import Config
from fastsse.metrics import CONTENT_TYPE, COUNTERS, GAUGES, Metrics
from fastsse.server import Server

SENDER = {
    "connections": 3,
    "connections_total": 10,
    "deliveries": 100,
    "sends": 50,
    "bytes_sent": 6400,
    "blocked": 1,
    "lag_bytes": 77,
    "ring_bytes": 5,
    "missed_edges": 0,
    "closed_lagged": 2,
    "closed_reset": 5,
    "gaps_sent": 11,
    "skipped": 12,
}
HUB = {
    "events_published": 20,
    "history_bytes": 9,
    "replays": 1,
    "turned_away_full": 4,
    "refused_memory": 6,
    "gaps_evicted": 8,
}
BOUNDS = [0.001, 0.01, 0.1]


class Parts:
    """Counters and a clock that a test can move."""

    def __init__(self) -> None:
        self.sender, self.hub, self.now_s = dict(SENDER), dict(HUB), 100.0
        self.counts = [5, 3, 1, 1]
        self.metrics = Metrics(
            [lambda: self.sender, lambda: self.hub],
            lambda: (BOUNDS, self.counts, 1.5),
            {"version": "1.2", "python": 'C"Py\n'},
            lambda: self.now_s,
        )

    def samples(self) -> dict[str, float]:
        return samples_of(self.metrics.exposition().decode())


def samples_of(text: str) -> dict[str, float]:
    """Samples by name and labels, as Prometheus reads them."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fastsse_connections{}", 3),
        ("fastsse_connections_total{}", 10),
        ("fastsse_disconnects_total{reason=lagged}", 2),
        ("fastsse_disconnects_total{reason=reset}", 5),
        ("fastsse_turned_away_total{reason=full}", 4),
        ("fastsse_events_published_total{}", 20),
        ("fastsse_deliveries_total{}", 100),
        ("fastsse_sends_total{}", 50),
        ("fastsse_bytes_sent_total{}", 6400),
        ("fastsse_lag_bytes{}", 77),
        ("fastsse_blocked_connections{}", 1),
        ("fastsse_history_bytes{}", 9),
        ("fastsse_ring_bytes{}", 5),
        ("fastsse_replays{}", 1),
        ("fastsse_gaps_total{reason=evicted}", 8),
        ("fastsse_gaps_total{reason=lagged}", 11),
        ("fastsse_publish_refused_total{reason=memory}", 6),
        ("fastsse_missed_edges_total{}", 0),
        ('fastsse_build_info{python=C"Py\n,version=1.2}', 1),
        ("fastsse_delivery_latency_seconds_bucket{le=0.001}", 5),
        ("fastsse_delivery_latency_seconds_bucket{le=0.01}", 8),
        ("fastsse_delivery_latency_seconds_bucket{le=0.1}", 9),
        ("fastsse_delivery_latency_seconds_bucket{le=+Inf}", 10),
        ("fastsse_delivery_latency_seconds_count{}", 10),
        ("fastsse_delivery_latency_seconds_sum{}", 1.5),
    ],
)
def test_metric_is_exported(parts: Parts, name: str, value: float) -> None:
    assert parts.samples()[name] == value


def test_exposition_is_in_the_classic_text_format(parts: Parts) -> None:
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
    text = parts.metrics.exposition().decode()
    assert "# TYPE fastsse_connections gauge" in text
    assert "# TYPE fastsse_connections_total counter" in text
    assert text.count("# TYPE fastsse_connections ") == 1


def test_openmetrics_has_the_same_samples_and_exemplars(parts: Parts) -> None:
    exemplars = {0: ("a" * 32, 0.0004, 1_800_000_000.25), 3: ("b" * 32, 2.5, 1_800_000_001.0)}
    text = parts.metrics.open_exposition(exemplars).decode()
    assert text.endswith("# EOF\n")
    found, shown = {}, {}
    for family in open_families(text):  # Strict: a clash of names is an error.
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}"] = sample.value
            if sample.exemplar is not None:
                shown[sample.labels["le"]] = sample.exemplar
    classic = parts.samples()
    assert found.keys() == classic.keys()
    assert found["fastsse_connections_total{}"] == classic["fastsse_connections_total{}"] == 10
    assert {le: (one.labels["trace_id"][0], one.value) for le, one in shown.items()} == {
        "0.001": ("a", 0.0004), "+Inf": ("b", 2.5),
    }  # fmt: skip
    assert float(shown["0.001"].timestamp) == 1_800_000_000.25


def test_counters_are_read_at_each_scrape(parts: Parts) -> None:
    parts.sender["connections"] = 4
    assert parts.samples()["fastsse_connections{}"] == 4


def test_process_figures_are_there(parts: Parts) -> None:
    samples = parts.samples()
    assert samples["process_cpu_seconds_total{}"] > 0
    assert samples["process_resident_memory_bytes{}"] > 1_000_000


def test_two_servers_in_one_process_do_not_collide() -> None:
    assert Parts().samples()
    assert Parts().samples()


def test_rates_are_per_second_between_the_last_two_ticks(parts: Parts) -> None:
    parts.metrics.tick()
    parts.now_s += 2
    parts.hub["events_published"] += 30
    parts.metrics.tick()
    parts.hub["events_published"] += 1000
    stats: dict[str, Any] = parts.metrics.stats()
    assert stats["rates_per_s"]["events_published"] == 15
    assert stats["rates_per_s"]["sends"] == 0
    assert stats["totals"]["events_published"] == 1050
    assert stats["uptime_s"] == 2


def test_latency_is_of_the_last_interval_only(parts: Parts) -> None:
    parts.counts = [5, 3, 1, 1]
    parts.metrics.tick()
    parts.counts = [5, 103, 3, 1]
    parts.metrics.tick()
    assert parts.metrics.stats()["latency_s"] == {"p50": 0.01, "p99": 0.1, "p999": 0.1}
    parts.metrics.tick()
    assert parts.metrics.stats()["latency_s"] == {"p50": None, "p99": None, "p999": None}


def test_rates_before_the_first_tick_are_zero(parts: Parts) -> None:
    stats = parts.metrics.stats()
    assert stats["connections"] == 3
    assert stats["totals"]["disconnects"] == {"lagged": 2, "reset": 5}
    assert set(stats["rates_per_s"].values()) == {0.0}


async def test_running_server_exports_every_promised_metric() -> None:
    async with Server(Config(port=0, drain=0)) as server, httpx.AsyncClient() as client:
        url = server.addresses[0]
        async with listen(url, "secret-topic") as events, Publisher(url) as publisher:
            await publisher.publish("secret-topic", "x")
            await anext(events)
            answer = await client.get(f"{url}/metrics")
            stats = (await client.get(f"{url}/stats")).json()
    assert answer.headers["content-type"] == CONTENT_TYPE
    samples = samples_of(answer.text)
    assert samples["fastsse_connections{}"] == stats["connections"] == 1
    assert samples["fastsse_events_published_total{}"] == 1
    assert samples["fastsse_deliveries_total{}"] == 1
    assert samples["fastsse_delivery_latency_seconds_count{}"] == 1
    exported = {name.partition("{")[0].removeprefix("fastsse_") for name in samples}
    for row in (*GAUGES, *COUNTERS):
        if row.name.startswith("store_memory"):
            continue  # With Redis: tests/redis/test_memory.py.
        assert row.name + ("_total" if row in COUNTERS else "") in exported
    assert "secret-topic" not in answer.text


def test_no_counter_of_the_core_stays_unexported() -> None:
    sender = Sender(max_connections=1)
    known = {row.key for row in (*GAUGES, *COUNTERS)}
    prefixes = tuple(row.key for row in COUNTERS if row.label)
    metrics = Metrics([sender.counters], sender.latency_buckets, {})
    assert {key for key in metrics.counters() if not key.startswith(prefixes)} <= known
    sender.stop()


async def test_topic_rules_are_counted_by_their_globs() -> None:
    rules = [
        {"match": "prices/*", "history_events": 2},
        {"match": 'odd"\n'},
        {"match": "never/*", "data_schema": "{}"},
    ]
    async with Server(Config(port=0, drain=0, topics=rules)) as server:
        for data in "12345":
            server.publish("prices/a", data)
        server.publish("prices/b", "x")
        server.publish("other", "x")
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"{server.addresses[0]}/metrics")
    found = samples_of(answer.text)
    assert found["fastsse_topic_rule_events_total{rule=prices/*}"] == 6
    assert found["fastsse_topic_rule_evicted_events_total{rule=prices/*}"] == 3
    assert found["fastsse_topic_rule_bytes_total{rule=prices/*}"] > 6 * len("data: 1\n\n")
    assert found["fastsse_topic_rule_events_total{rule=default}"] == 1
    assert found['fastsse_topic_rule_events_total{rule=odd"\n}'] == 0
    assert found["fastsse_topic_rule_events_total{rule=never/*}"] == 0


async def test_without_topic_rules_none_is_counted() -> None:
    async with Server(Config(port=0, drain=0)) as server:
        server.publish("a", "x")
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"{server.addresses[0]}/metrics")
    assert "topic_rule" not in answer.text
