"""The counters of the server as Prometheus metrics and as JSON.

This module counts nothing. Each part has its own counters and a callable that returns them as a
mapping. They are read at each scrape, and once a second for the rates.

The key of a counter names its metric. Only the table below maps keys to metrics. A key such as
`closed_lagged` is the label `lagged` of the metric with the prefix `closed_`. Labels are fixed
words, never topics or clients, so their number stays small.

Over 400 lines: half of it is the one table of metrics.
"""

import math
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as ExemplarSample
from prometheus_client.utils import floatToGoString

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPEN_CONTENT_TYPE = openmetrics.CONTENT_TYPE_LATEST

Counters = Callable[[], Mapping[str, int]]
#: A trace id, seconds, and when, in unix seconds.
Exemplar = tuple[str, float, float]
# Upper bounds in seconds, a count for each (and one for larger values), sum in seconds.
Buckets = tuple[Sequence[float], Sequence[int], float]


#: CPU time used, s, and resident bytes.
Process = tuple[float, int]

# How the values of several workers become one: their sum, their maximum or their minimum.
SUM, MOST, LEAST = "sum", "most", "least"


@dataclass(frozen=True, slots=True)
class _Row:
    """The key of a counter and its metric, whose value is the counter's by `scale`; `label` is for
    a family of keys with a prefix. Several labels are separated by a space, and so are their values
    in a key."""

    key: str
    name: str
    help: str
    label: str = ""
    merge: str = SUM
    scale: float = 1


GAUGES = (
    _Row("workers", "workers", "Running worker processes."),
    _Row("connections", "connections", "Open streams."),
    _Row("max_connections", "max_connections", "Streams that can be open at once."),
    _Row("polls_waiting", "polls_waiting", "Polls that wait for an event."),
    _Row("filters", "filters", "Different filters of open streams."),
    _Row("blocked", "blocked_connections", "Streams whose socket buffer is full."),
    _Row("lag_bytes", "lag_bytes", "Largest lag of a blocked stream.", merge=MOST),
    _Row("channels", "channels", "Distinct sets of topics that streams subscribe to."),
    _Row("topics", "topics", "Topics with history or subscribers.", merge=MOST),
    _Row("replays", "replays", "Streams that are reading history."),
    _Row("history_events", "history_events", "Events in history.", merge=MOST),
    _Row("history_bytes", "history_bytes", "Bytes of events in history.", merge=MOST),
    _Row("streams_kept", "durable_streams", "Durable streams."),
    _Row("streams_bytes", "durable_streams_bytes", "Bytes of durable streams."),
    _Row("streams_waiting", "durable_streams_waiting", "Long-polls that wait for content."),
    _Row("streams_tailed", "durable_streams_tailed", "Durable streams that are being tailed."),
    _Row(
        "positions_ahead_ms",
        "positions_ahead_seconds",
        "How far event ids are ahead of the clock.",
        merge=MOST,
        scale=1e-3,
    ),
    _Row("ring_entries", "ring_entries", "Events in the channels' rings."),
    _Row("ring_bytes", "ring_bytes", "Bytes of the channels' rings."),
    _Row("memory_bytes", "memory_bytes", "Bytes that memory_limit bounds."),
    _Row("memory_limit_bytes", "memory_limit_bytes", "The option memory_limit."),
    _Row("connection_rows_bytes", "connection_rows_bytes", "Bytes of connection_details."),
    _Row(
        "loop_lag_us",
        "loop_lag_seconds",
        "How late the event loop ran its last timer, at most.",
        merge=MOST,
        scale=1e-6,
    ),
    _Row(
        "sender_lag_us",
        "sender_lag_seconds",
        "How long the sender took to answer a question, at most.",
        merge=MOST,
        scale=1e-6,
    ),
    _Row("descriptors", "descriptors", "Open file descriptors."),
    _Row(
        "descriptors_unaccounted",
        "descriptors_unaccounted",
        "Open descriptors above those of streams, connections and the start.",
    ),
    _Row("store_away", "store_away", "1 while the store or the hub takes no events.", merge=MOST),
    _Row(
        "store_memory_bytes", "store_memory_bytes", "Memory that Redis uses, in bytes.", merge=MOST
    ),
    _Row(
        "store_memory_limit_bytes",
        "store_memory_limit_bytes",
        "Memory that Redis may use (maxmemory), in bytes; 0: no limit.",
        merge=MOST,
    ),
    _Row(
        "store_memory_low",
        "store_memory_low",
        "1 while Redis uses more than 90 % of the memory that it may use.",
        merge=MOST,
    ),
    _Row("schedule_events", "schedule_events", "Delayed events that wait.", merge=MOST),
    _Row("schedule_bytes", "schedule_bytes", "Bytes of delayed events that wait.", merge=MOST),
    _Row("publish_streams", "publish_streams", "Streamed publishes under way."),
)
COUNTERS = (
    _Row("connections_total", "connections", "Streams opened."),
    _Row("closed_", "disconnects", "Streams ended.", "reason"),
    _Row("schedule_delivered", "schedule_delivered", "Delayed events that were published."),
    _Row("schedule_cancelled", "schedule_cancelled", "Delayed events that were cancelled."),
    _Row("schedule_dead", "schedule_dead", "Delayed events that could not be published."),
    _Row("feeds_stored", "feeds_stored", "Selections that clients stored by POST /feeds."),
    _Row("feeds_unknown", "feeds_unknown", "Streams of a feed that is not stored."),
    _Row("publish_streams_cut", "publish_streams_cut", "Streamed publishes that were cut."),
    _Row("turned_away_", "turned_away", "Streams refused, with a time to retry.", "reason"),
    _Row(
        "mounted_",
        "mounted_streams",
        "Streams of a mounted application: native, or why a task copies them.",
        "way",
    ),
    _Row("doubtful", "unknown_parameters", "Streams and polls with unknown parameters."),
    _Row("requests_", "requests", "Requests answered.", "route status"),
    _Row("limited_", "limited", "Requests refused by the limits of a client.", "limit"),
    _Row(
        "answers_unsent",
        "answers_unsent",
        "Connections closed for others because their clients did not read an answer.",
    ),
    _Row("events_published", "events_published", "Events accepted from publishers."),
    _Row(
        "publishes_batched",
        "publishes_batched",
        "Single publishes that were published in a batch of the event loop's turn.",
    ),
    _Row("publish_batches", "publish_batches", "Batches of single publishes."),
    _Row("polls", "polls", "Polls answered (`wait`)."),
    _Row("deleted_events", "events_deleted", "Events deleted one by one."),
    _Row("purged_topics", "topics_purged", "Purges of topics."),
    _Row("intercepted_", "intercepted_events", "Events by what interceptors did.", "outcome"),
    _Row("handled_", "handled_events", "Events passed to the program's handlers.", "outcome"),
    _Row("refused_", "publish_refused", "Publishes refused.", "reason"),
    _Row("deliveries", "deliveries", "Events written to sockets, counted once per stream."),
    _Row("sends", "sends", "System calls that sent data."),
    _Row("bytes_sent", "bytes_sent", "Bytes written to the sockets of streams."),
    _Row("would_block", "would_block", "Sends that a full socket buffer refused or shortened."),
    _Row("skipped", "skipped", "Times a lagging stream skipped to the newest event."),
    _Row(
        "lapped", "lapped", "Times a lagging stream received only the latest event of each topic."
    ),
    _Row("heartbeats", "heartbeats", "Heartbeats sent."),
    _Row("passed_over", "events_left_out", "Events that a stream's parameters left out."),
    _Row("conflated", "events_conflated", "Events that max_rate left out for newer ones."),
    _Row("filter_errors", "filter_errors", "Evaluations of filters that were errors: no match."),
    _Row("filters_refused", "filters_refused", "Streams refused for one filter too many."),
    _Row("envelopes", "envelopes", "Events encoded with an envelope."),
    _Row("replays_failed", "replays_failed", "Replays that failed in the store."),
    _Row(
        "repeated_resumes",
        "repeated_resumes",
        "Streams of clients that resume after the same id repeatedly.",
    ),
    _Row("losses", "log_losses", "Times that the followed log lost events."),
    _Row("announced", "announcements", "Gap events sent to every stream of a worker."),
    _Row("direct", "direct_events", "Events sent to one stream only, such as fastsse.expiring."),
    _Row("pings", "pings", "Pings sent."),
    _Row("pongs", "pongs", "Pongs received for a stream."),
    _Row("renewed", "renewals", "Streams whose token was renewed."),
    _Row("revocations", "revocations", "Searches of the streams for revoked tokens."),
    _Row("gaps_", "gaps", "Gap events sent.", "reason"),
    _Row("clock_jumps", "clock_jumps", "Times that a worker saw the machine's clock changed."),
    _Row("workers_lost", "workers_lost", "Workers that ended without being replaced first."),
    _Row("missed_edges", "missed_edges", "Writable sockets without an event; should be 0."),
)
# Only services with a store, with several workers or with TLS have these.
STORE_GAUGES = (
    _Row("stored_events", "stored_events", "Events in the store."),
    _Row("stored_bytes", "stored_bytes", "Bytes of events in the store."),
    _Row(
        "store_checking", "store_checking", "1 while the file of the store is checked at the start."
    ),
    _Row("store_unchecked", "store_unchecked", "Checks of the file that had no time at the start."),
    _Row("store_malformed", "store_malformed", "1 if the check found damage in the file."),
    _Row(
        "source_lag_ms_", "source_lag_seconds", "How far a source is behind.", "source", scale=1e-3
    ),
    _Row(
        "source_letters_up_",
        "source_letters_up",
        "1 while dead letters of a source can be written.",
        "source",
    ),
    _Row(
        "source_letters_waiting_",
        "source_letters_waiting",
        "Dead letters that wait to be written.",
        "source",
    ),
    _Row("source_up_", "source_up", "1 while a source can be read.", "source"),
    _Row(
        "mirror_lag_ms_", "mirror_lag_seconds", "How far a mirror is behind.", "mirror", scale=1e-3
    ),
    _Row("mirror_up_", "mirror_up", "1 while a mirror can be written.", "mirror"),
    _Row(
        "source_backlog_",
        "source_backlog",
        "Messages that a source has and that were not read yet.",
        "source",
    ),
    _Row("bus_pending_bytes", "bus_pending_bytes", "Bytes of publishes that wait for the hub."),
    _Row("bus_hub_filling", "bus_hub_filling", "1 while the hub receives history from workers."),
    _Row(
        "bus_workers_filling",
        "bus_workers_filling",
        "Workers that are receiving history from the hub.",
    ),
    _Row("tls_open", "tls_connections", "TLS connections with a request."),
    _Row("tls_under_way", "tls_handshakes_pending", "TLS handshakes under way."),
    _Row(
        "tls_expires_s",
        "tls_certificate_expiry_seconds",
        "When the first certificate expires, in seconds since 1970.",
        merge=LEAST,
    ),
)
STORE_COUNTERS = (
    _Row("store_commits", "store_commits", "Commits to the store."),
    _Row("store_failures", "store_failures", "Commits that failed."),
    _Row("store_evicted", "store_evicted", "Events that the store evicted."),
    _Row("store_losses", "store_losses", "Times that the store may have lost stored events."),
    _Row("store_damaged", "store_damaged", "Damaged places found in the store."),
    _Row("store_repeats", "store_repeats", "Repeated publishes that were in the store already."),
    _Row(
        "bus_events_refused", "bus_events_refused", "Events refused while the hub was unreachable."
    ),
    _Row(
        "bus_events_late",
        "bus_events_late",
        "Events stored after their publisher received a refusal.",
    ),
    _Row("bus_hub_lost", "bus_hub_lost", "Times that a worker lost its connection to the hub."),
    _Row("redis_", "redis", "Events of the connection to Redis.", "what"),
    _Row(
        "topic_rule_events_",
        "topic_rule_events",
        "Events of topics that a rule of [[topics]] matches.",
        "rule",
        merge=MOST,
    ),
    _Row("topic_rule_bytes_", "topic_rule_bytes", "The bytes of these events.", "rule", merge=MOST),
    _Row(
        "topic_rule_evicted_",
        "topic_rule_evicted_events",
        "Events of these topics that memory evicted.",
        "rule",
        merge=MOST,
    ),
    _Row("rule_matched_", "rule_matches", "Events that matched a rule.", "rule"),
    _Row("rule_acted_", "rule_actions", "Events dropped, moved or copied, and alerts.", "rule"),
    _Row("rule_failed_", "rule_failures", "Matches on which a rule could not act.", "rule"),
    _Row("sources_", "sources", "Results for entries of sources.", "what"),
    _Row(
        "tls_records_",
        "tls_records",
        "Streams with tls_records = native: released, whose records the server seals, or why "
        "OpenSSL does.",
        "result",
    ),
    _Row(
        "tls_handshakes_",
        "tls_handshakes",
        "TLS handshakes, and connections that ended without one.",
        "result",
    ),
    _Row("webhooks_", "webhooks", "Webhook requests received, by result.", "what"),
    _Row("webhook_", "webhook", "Results of webhooks that are sent.", "what"),
    _Row("mirrors_", "mirror", "Results of mirrors.", "what"),
    _Row("hook_", "hook", "Results of hooks: notices of streams.", "what"),
    _Row("authorize_", "authorize", "Questions to the authorization callback.", "what"),
)
LATENCY = ("delivery_latency_seconds", "Time from an accepted publish to the write to the socket.")
#: The key of the core for the gap events that it sends.
ALIASES = {"gaps_sent": "gaps_lagged"}
# Metrics that `/stats` shows as rates.
RATES = ("connections", "events_published", "deliveries", "sends", "bytes_sent")
_PREFIX = "fastsse_"


@dataclass(frozen=True, slots=True)
class _Sample:
    at_s: float
    counters: Mapping[str, int]
    bucket_counts: Sequence[int]


class Metrics(Collector):
    """Reads the counters of all workers on demand.

    Arguments: `counters`, callables whose mappings have no common key; `latency`, the histogram of
    the sender; `build`, label values of `fastsse_build_info`; `now_s`, a monotonic clock;
    `process`, CPU time and memory of the process. All are called on the loop thread. The time of a
    call does not depend on the number of connections.
    """

    def __init__(
        self,
        counters: Sequence[Counters],
        latency: Callable[[], Buckets],
        build: Mapping[str, str],
        now_s: Callable[[], float] = time.monotonic,
        process: Callable[[], Process] | None = None,
    ) -> None:
        self._counters = tuple(counters)
        self._process = process or process_use
        self._latency = latency
        self._build = dict(build)
        self._now_s = now_s
        self._started_s = now_s()
        self._before = self._now = self._sample()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def counters(self) -> dict[str, int]:
        """Every counter of every part, read now."""
        merged: dict[str, int] = {}
        for read in self._counters:
            merged.update(read())
        return {ALIASES.get(key, key): value for key, value in merged.items()}

    def exposition(self) -> bytes:
        """The body of `/metrics`, of type CONTENT_TYPE."""
        return generate_latest(self._registry)

    def open_exposition(self, exemplars: Mapping[int, Exemplar]) -> bytes:
        """The body of `/metrics` as OpenMetrics, of type OPEN_CONTENT_TYPE.

        Arguments:
            exemplars: traced deliveries, by the index of their bucket.
        """
        text: bytes = openmetrics.generate_latest(_Open(self, exemplars))  # type: ignore[no-untyped-call]
        return text

    def collect(self) -> Iterator[Metric]:
        """Every metric family, in the order of the tables (prometheus_client's interface)."""
        counters = self.counters()
        yield from _families(GaugeMetricFamily, GAUGES, counters)
        yield from _families(CounterMetricFamily, COUNTERS, counters)
        yield from _present(_families(GaugeMetricFamily, STORE_GAUGES, counters))
        yield from _present(_families(CounterMetricFamily, STORE_COUNTERS, counters))
        yield _histogram(self._latency())
        yield from _process(self._process())
        info = GaugeMetricFamily(_PREFIX + "build_info", "1, with the build as labels.")
        info.add_sample(info.name, self._build, 1)
        yield info

    def tick(self) -> None:
        """Takes a sample; the server calls it about once a second."""
        self._before, self._now = self._now, self._sample()

    def stats(self) -> dict[str, Any]:
        """The answer of `/stats`: current counts, and rates and latency between the last two
        samples."""
        counters = self.counters()
        return {
            "version": self._build.get("version", ""),
            "uptime_s": round(self._now_s() - self._started_s, 3),
            **{row.name: _scaled(row, counters.get(row.key, 0)) for row in GAUGES},
            "rates_per_s": self._rates(),
            "latency_s": self._latency_now(),
            "totals": {row.name: _total(row, counters) for row in COUNTERS},
        }

    def _sample(self) -> _Sample:
        return _Sample(self._now_s(), self.counters(), self._latency()[1])

    def _rates(self) -> dict[str, float]:
        span_s = self._now.at_s - self._before.at_s
        before, now = self._before.counters, self._now.counters
        keys = {row.name: row.key for row in COUNTERS if row.name in RATES}
        return {
            name: round((now.get(key, 0) - before.get(key, 0)) / span_s, 1) if span_s > 0 else 0.0
            for name, key in keys.items()
        }

    def _latency_now(self) -> dict[str, float | None]:
        """Quantiles between the last two samples, as upper bounds of their buckets."""
        bounds = self._latency()[0]
        pairs = zip(self._now.bucket_counts, self._before.bucket_counts, strict=True)
        counts = [now - before for now, before in pairs]
        return {
            name: _quantile(bounds, counts, share)
            for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))
        }


def _scaled(row: _Row, value: int) -> float:
    return value if row.scale == 1 else round(value * row.scale, 6)


def _total(row: _Row, counters: Mapping[str, int]) -> int | dict[str, int]:
    return dict(_labelled(row, counters)) if row.label else counters.get(row.key, 0)


def _labelled(row: _Row, counters: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    for key, value in counters.items():
        if key.startswith(row.key):
            yield key.removeprefix(row.key), value


def _families(
    family: type[GaugeMetricFamily] | type[CounterMetricFamily],
    rows: Sequence[_Row],
    counters: Mapping[str, int],
) -> Iterator[Metric]:
    for row in rows:
        labels = row.label.split()
        metric = family(_PREFIX + row.name, row.help, labels=labels or None)
        if labels:
            for values, count in _labelled(row, counters):
                metric.add_metric(values.split(" ", len(labels) - 1), _scaled(row, count))
        elif row.key in counters:
            metric.add_metric([], _scaled(row, counters[row.key]))
        yield metric


def _present(metrics: Iterator[Metric]) -> Iterator[Metric]:
    """The metrics that have a value."""
    return (metric for metric in metrics if metric.samples)


def _histogram(buckets: Buckets) -> Metric:
    bounds, counts, sum_s = buckets
    cumulative, seen = [], 0
    for bound, count in zip(bounds, counts, strict=False):
        seen += count
        cumulative.append((f"{bound:g}", float(seen)))
    cumulative.append(("+Inf", float(sum(counts))))
    name, text = LATENCY
    return HistogramMetricFamily(_PREFIX + name, text, buckets=cumulative, sum_value=sum_s)


def _canonical(bound: str) -> str:
    """A bound as OpenMetrics writes it: 1.0, not 1."""
    text: str = floatToGoString(float(bound))  # type: ignore[no-untyped-call]
    return text


class _Open:
    """What `openmetrics.generate_latest` reads: the families in the form of OpenMetrics."""

    def __init__(self, metrics: Metrics, exemplars: Mapping[int, Exemplar]) -> None:
        self._metrics = metrics
        self._exemplars = exemplars

    def collect(self) -> Iterator[Metric]:
        """Every family. Where a counter has the name of a gauge, which OpenMetrics forbids, it is a
        family of unknown type with the suffix in its name: its samples are called the same."""
        gauges = set[str]()
        for metric in self._metrics.collect():
            if metric.type == "gauge":
                gauges.add(metric.name)
            elif metric.type == "counter" and metric.name in gauges:
                metric.name, metric.type = f"{metric.name}_total", "unknown"
            elif metric.type == "histogram":
                metric.samples = [
                    self._bucket(index, one) for index, one in enumerate(metric.samples)
                ]
            yield metric

    def _bucket(self, index: int, sample: Any) -> Any:
        if "le" not in sample.labels:
            return sample
        known = self._exemplars.get(index)
        le = {"le": _canonical(sample.labels["le"])}
        if known is None:
            return sample._replace(labels=le)
        trace, value_s, at_s = known
        return sample._replace(
            labels=le, exemplar=ExemplarSample({"trace_id": trace}, value_s, at_s)
        )


def _quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """The bound below which `share` of the counts are; None without counts or above all bounds."""
    wanted, seen = sum(counts) * share, 0
    for bound, count in zip(bounds, counts, strict=False):
        seen += count
        if count and seen >= wanted:
            return bound if math.isfinite(bound) else None
    return None


def process_use() -> Process:
    """CPU and memory of this process.

    The collector of the library also lists the open descriptors, so its time grows with the number
    of streams.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm", encoding="ascii") as statm:
        resident_bytes = int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    return usage.ru_utime + usage.ru_stime, resident_bytes


def _process(use: Process) -> Iterator[Metric]:
    cpu_s, resident_bytes = use
    yield CounterMetricFamily("process_cpu_seconds", "CPU time used.", value=cpu_s)
    yield GaugeMetricFamily(
        "process_resident_memory_bytes",
        "Resident memory; each process counts shared pages.",
        value=resident_bytes,
    )


_ALL_COUNTERS = (*COUNTERS, *STORE_COUNTERS)
_ROWS = {row.key: row for row in (*GAUGES, *STORE_GAUGES, *_ALL_COUNTERS) if not row.label}
_FAMILIES = tuple(row for row in _ALL_COUNTERS if row.label)
# What each worker counts for the whole node.
_OF_ALL = tuple(row for row in _FAMILIES if row.merge != SUM)
_COUNTER_KEYS = frozenset(row.key for row in _ALL_COUNTERS)


def is_counter(key: str) -> bool:
    """Whether the value of a key only increases."""
    return key in _COUNTER_KEYS or any(key.startswith(row.key) for row in _FAMILIES)


def merge_of(key: str) -> str:
    """How the values of several workers become one: SUM, MOST or LEAST."""
    row = _ROWS.get(key)
    if row is None:
        row = next((one for one in _OF_ALL if key.startswith(one.key)), None)
    return SUM if row is None else row.merge
