"""Declares every option once: its default, unit, bounds and help, in the group of its part.

Over 400 lines: it is the one table of options.
"""

import os
import re
from functools import cache
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from fastsse.config.console import ConsoleOptions
from fastsse.config.eventrules import EventRuleOptions
from fastsse.config.hooks import HookOptions
from fastsse.config.kinds import (
    RULES,
    Bytes,
    Choice,
    Count,
    HeaderNames,
    Hosts,
    Names,
    Networks,
    OptionGroup,
    Origins,
    Seconds,
    Switch,
    Token,
    UnixPath,
    ValueKind,
    duration,
    option,
    read_count,
    read_rules,
    size,
)
from fastsse.config.mirrors import MirrorOptions
from fastsse.config.plugins import InterceptorOptions
from fastsse.config.rules import (
    AgeKept,
    BytesKept,
    EnvelopeKind,
    EventsKept,
    LagPolicy,
    TopicLimits,
    TopicRule,
)
from fastsse.config.sources import SourceOptions
from fastsse.config.store import RedisOptions, StoreOptions
from fastsse.config.tls import TlsOptions
from fastsse.config.tokens import TokenOptions
from fastsse.config.webhooks import WebhookOptions
from fastsse.limits import TRIAL_TOPICS
from fastsse.reserved import SUBSCRIPTIONS_PATH


class PresenceOptions(OptionGroup):
    """Presence and liveness."""

    title = "Presence"

    subscriptions: Switch = option(
        False,
        "Publish a private event when a subscription starts and when it ends, and list active ones "
        "in Mercure's subscription API and under `/presence`.",
    )
    ping: Seconds = duration(
        "0s",
        "Interval of the visible event fastsse.ping in streams opened with ping=true; 0s: never.",
        least="0s",
        most="1h",
    )
    pong_timeout: Seconds = duration(
        "0s",
        "Such a stream ends when it gets no POST /pong for this long; 0s: never.",
        least="0s",
        most="1h",
    )


#: The value of `workers` that stands for `auto`.
AUTO_WORKERS = 0
_WORKERS_MAX = 1024
# Next to the file is a socket with the suffix `.sock`, and the path of a socket is bounded.
_PID_PATH_BYTES_MAX = 102

WORKERS = ValueKind(
    "N",
    f"auto or a whole number from 1 to {_WORKERS_MAX}",
    lambda count: "auto" if count == AUTO_WORKERS else str(count),
)
PID_PATH = ValueKind("PATH", f"a path of 1 to {_PID_PATH_BYTES_MAX} bytes")


def read_workers(value: object) -> object:
    """`auto` or a number of at least 1."""
    if isinstance(value, str) and value.strip().lower() == "auto":
        return AUTO_WORKERS
    count = read_count(value)
    if not isinstance(count, int) or not 1 <= count <= _WORKERS_MAX:
        raise ValueError("must be auto or at least 1")
    return count


def check_pid_path(path: str) -> str:
    """A path that leaves room for the suffix of the socket."""
    if not path or "\0" in path or len(os.fsencode(path)) > _PID_PATH_BYTES_MAX:
        raise ValueError("must be a path")
    return path


class ProcessOptions(OptionGroup):
    """How many processes serve, and how they are found."""

    title = "Processes"

    workers: Annotated[int, BeforeValidator(read_workers), WORKERS] = option(
        "1",
        "Worker processes; auto is one for each core that the process may use. More than 1 adds "
        "a supervisor and a hub process.",
    )
    pidfile: Annotated[str, AfterValidator(check_pid_path), PID_PATH] | None = option(
        None, "Write the process id here, for `fastsse reload`, which also uses PATH.sock."
    )


_VALUE_MAX = 1_000_000_000


class LimitOptions(OptionGroup):
    """Proxies to trust, and limits for each client address and each token subject.

    0 sets no limit. A short burst may exceed a rate: the amount of two seconds may come at once.
    IPv6 clients are counted by their /64.
    """

    title = "Proxies and limits"

    trusted_proxies: Networks = option(
        (),
        "Proxies whose X-Forwarded-For is trusted: addresses, networks, or unix for peers on a "
        "Unix socket. Repeat it for several.",
    )
    proxy_protocol: Switch = option(
        False, "Trusted proxies start each connection with a PROXY protocol v2 header."
    )
    address_streams: Count = option(
        0, "Open streams of one client address; 0: any number.", ge=0, le=_VALUE_MAX
    )
    over_limit: Annotated[Literal["newest", "oldest"], Choice] = option(
        "newest",
        "What happens when a client has too many streams: the newest is turned away, or the oldest "
        "is ended.",
    )
    address_opens: Count = option(
        0, "New streams a second of one client address; 0: any number.", ge=0, le=_VALUE_MAX
    )
    address_publishes: Count = option(
        0, "Publishes a second of one client address; 0: any number.", ge=0, le=_VALUE_MAX
    )
    address_requests: Count = option(
        0,
        "Other requests a second of one client address: tickets, renewals, revocations, pongs, "
        "presence; 0: any number.",
        ge=0,
        le=_VALUE_MAX,
    )
    address_replay: Bytes = size(
        "0B",
        "Bytes of history sent a second to one client address; 0: any number.",
        least="0B",
        most="16TiB",
    )
    subject_streams: Count = option(
        0, "Open streams of one token subject (sub); 0: any number.", ge=0, le=_VALUE_MAX
    )
    subject_opens: Count = option(
        0, "New streams a second of one token subject; 0: any number.", ge=0, le=_VALUE_MAX
    )
    subject_publishes: Count = option(
        0, "Publishes a second of one token subject; 0: any number.", ge=0, le=_VALUE_MAX
    )
    subject_requests: Count = option(
        0,
        "Other requests a second of one token subject: tickets, renewals, revocations, pongs, "
        "presence; 0: any number.",
        ge=0,
        le=_VALUE_MAX,
    )
    subject_replay: Bytes = size(
        "0B",
        "Bytes of history sent a second to one token subject; 0: any number.",
        least="0B",
        most="16TiB",
    )


CleanEnd = Annotated[Literal["over", "always"], Choice]
InitialId = Annotated[Literal["auto", "true", "false", "data"], Choice]


@cache
def trial_rule() -> TopicRule:
    """Events of `fastsse doctor --url` are kept as long as its own resume may take. Made when it is
    needed, because the first rule builds a schema, which short commands need not wait for."""
    return TopicRule(match=TRIAL_TOPICS + "*", history_age=60.0)


@cache
def presence_rule() -> TopicRule:
    """Events about who is present are kept for a minute, which is time to open a stream after the
    list was read. Each has a topic of its own, so an hour of them would fill the history."""
    return TopicRule(match=SUBSCRIPTIONS_PATH + "*", history_age=60.0)


class ListenOptions(OptionGroup):
    """Where the server listens."""

    title = "Listening"

    host: Hosts = option(
        "127.0.0.1", "Address or name to listen on, IPv6 too; repeat it for several."
    )
    port: Count = option(8080, "TCP port; 0 uses a free one.", ge=0, le=65535)
    uds: UnixPath | None = option(None, "Listen on this Unix socket instead of host and port.")
    fd: Count | None = option(
        None, "Listen on this inherited socket instead of host and port.", ge=0, le=2**31 - 1
    )
    admin_port: Count | None = option(
        None,
        "Serve health, metrics, statistics and the console only on this port (same hosts).",
        ge=0,
        le=65535,
    )


class StreamOptions(OptionGroup):
    """Limits of streams in number, time and memory."""

    title = "Streams"

    max_connections: Count = option(
        0,
        "Open streams, of all workers together; 0 is as many as the descriptor limit allows.",
        ge=0,
        le=16_000_000,
    )
    max_topics: Count = option(100, "Topics of one stream.", ge=1, le=10_000)
    max_feeds: Count = option(
        10_000,
        "Selections of topics that a node keeps (POST /feeds); above it a new one gets 503.",
        ge=1,
        le=1_000_000,
    )
    feeds_total: Bytes = size(
        "64MiB",
        "Bytes of these selections; above it a new one gets 503.",
        least="1MiB",
        most="16GiB",
    )
    feed_lifetime: Seconds = duration(
        "7d",
        "How long a selection is kept after its last use by a stream.",
        least="1m",
        most="3650d",
    )
    retry: Seconds = duration(
        "3s", "How long clients wait before they reconnect.", least="10ms", most="1h"
    )
    heartbeat: Seconds = duration(
        "15s", "A stream idle for this long receives a comment.", least="10ms", most="1h"
    )
    min_heartbeat: Seconds = duration(
        "1s",
        "Shortest heartbeat that a subscriber may request (heartbeat=5s); above 30s: off.",
        least="1s",
        most="1h",
    )
    max_pad: Bytes = size(
        "16KiB",
        "Longest padding that a subscriber may request (pad=4KiB); 0B: off.",
        least="0B",
        most="16KiB",
    )
    initial_id: InitialId = option(
        "auto",
        "How a stream starts with its current id: as a separate block, as an event with empty "
        "data, or not at all; auto decides by the request. The parameter initial_id overrides it.",
    )
    max_filters: Count = option(
        10_000, "Different filters of streams; above it a stream is refused.", ge=0, le=1_000_000
    )
    max_topic_filters: Count = option(
        1_000,
        "Different filters of streams that name the same topic or template. Each is evaluated for "
        "every event.",
        ge=0,
        le=100_000,
    )
    envelope: EnvelopeKind = option(
        "none",
        "Form of the data of events for streams that don't request one: as it was published, or a "
        "JSON object with topic, id, event, data, meta and time. The parameter envelope overrides "
        "it.",
    )
    max_event: Bytes = size(
        "0B",
        "Largest data of one event, for clients that limit the length of a line; larger is refused "
        "with 413. 0B: only max_body limits it.",
        least="0B",
        most="1GiB",
    )
    max_lag: Bytes = size(
        "4MiB",
        "Unsent bytes at which lag_policy acts on a client that does not read.",
        least="1KiB",
        most="64GiB",
    )
    max_lag_time: Seconds = duration(
        "20s",
        "Age of the oldest unsent event at which lag_policy acts.",
        least="10ms",
        most="1h",
    )
    lag_policy: LagPolicy = option(
        "disconnect",
        "End a lagging stream (it resumes from history), skip to the newest event "
        "(with a gap event), or keep the latest of each topic.",
    )
    stream_lifetime: Seconds = duration(
        "0s",
        "End each stream after 80 to 100 % of this, with a time to reconnect, so that new nodes "
        "get their share; 0s: never. At least 1s.",
        least="0s",
        most="30d",
    )
    clean_end: CleanEnd = option(
        "over",
        "Which responses end with a last chunk: only complete ones, so that a client can see an "
        "incomplete one; or always, for proxies that count an incomplete response as an error.",
    )
    user_timeout: Seconds = duration(
        "30s",
        "Close a stream whose peer acknowledges nothing for this long (TCP_USER_TIMEOUT).",
        least="100ms",
        most="1h",
    )
    notsent_lowat: Bytes = size(
        "16KiB",
        "Unsent bytes the kernel holds for a stream (TCP_NOTSENT_LOWAT).",
        least="1KiB",
        most="64MiB",
    )
    memory_limit: Bytes = size(
        "1GiB",
        "Total memory for events at which publishers are refused with 503.",
        least="1MiB",
        most="16TiB",
    )
    drain: Seconds = duration(
        "10s", "At a stop, streams are closed over this time.", least="0s", most="1h"
    )


_STREAMS_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~-]{1,64}){1,8}", re.ASCII)
STREAMS_PATH = ValueKind("PATH", "a path such as /streams, without a slash at its end")


def check_streams_path(path: str) -> str:
    """1 to 8 plain segments that no other route has."""
    first = path.split("/")[1] if path.startswith("/") else ""
    if not _STREAMS_PATH.fullmatch(path) or first in {"events", "admin", ".well-known"}:
        raise ValueError("must be a path of its own, such as /streams")
    return path


KeyWindow = Annotated[Seconds, Field(ge=1, le=24 * 3600)]
ProducerWindow = Annotated[Seconds, Field(ge=1, le=3650 * 24 * 3600)]


class HistoryOptions(OptionGroup):
    """The history that clients resume from."""

    title = "History"

    history_events: EventsKept = option(1000, "Events kept per topic; 0 keeps none.")
    history_age: AgeKept = option("1h", "Maximum age of kept events.")
    history_bytes: BytesKept = option("16MiB", "Bytes kept per topic; 0 keeps none.")
    history_total: BytesKept = option("256MiB", "Bytes kept of all topics in memory.")
    key_window: KeyWindow = option(
        "10m", "How long the keys of publishers (Idempotency-Key) are remembered."
    )
    keys_total: BytesKept = option(
        "64MiB", "Bytes of remembered keys; above it publishes with new keys get 503."
    )
    producer_window: ProducerWindow = option(
        "7d", "How long the sequence number of a producer is remembered after its newest append."
    )
    producers_total: BytesKept = option(
        "64MiB", "Bytes of remembered producers; above it appends of new producers get 503."
    )
    max_scheduled: Count = option(
        100_000,
        "Delayed events that wait (deliver_at, delay); above it a new one gets 507.",
        ge=1,
        le=10_000_000,
    )
    schedule_total: BytesKept = option(
        "64MiB", "Bytes of delayed events that wait; above it a new one gets 507."
    )
    streams_total: BytesKept = option(
        "1GiB",
        "Bytes of all durable streams, which no other limit evicts; above it appends get 507.",
    )
    topics: Annotated[tuple[TopicRule, ...], BeforeValidator(read_rules), RULES] = option(
        (),
        "Rules for topics; the first match applies: match, history_events, history_age, "
        "history_bytes, keep_last, lag_policy, types, data_schema, private, envelope, "
        "max_publish_rate. In the file: [[topics]].",
        max_length=1000,
    )

    @property
    def topic_rules(self) -> tuple[TopicRule, ...]:
        """The rules, including built-in ones; the first that matches a topic applies."""
        return (trial_rule(), *self.topics, presence_rule())

    def rule(self, topic: str) -> TopicRule | None:
        """The rule that applies to `topic`. O(rules)."""
        return next((rule for rule in self.topic_rules if rule.matches(topic)), None)

    def limits(self, topic: str) -> TopicLimits:
        """The limits of `topic`: those of its first matching rule, else the options. O(rules)."""
        return self.limits_of(self.rule(topic))

    def limits_of(self, rule: TopicRule | None) -> TopicLimits:
        """The limits of topics with this rule, or with none."""
        rule = rule or _any_topic()
        return TopicLimits(
            events=self.history_events if rule.history_events is None else rule.history_events,
            age_s=self.history_age if rule.history_age is None else rule.history_age,
            bytes=self.history_bytes if rule.history_bytes is None else rule.history_bytes,
            lag_policy=rule.lag_policy,
            event_types=rule.event_types_pattern,
            max_publish_rate=rule.max_publish_rate,
            types=rule.types_patterns,
            schema=rule.data_schema,
            private=rule.private,
            keep_last=rule.keep_last or 0,
        )


@cache
def _any_topic() -> TopicRule:
    """The rule of topics without one. Made once: that takes longer than all else of `limits`."""
    return TopicRule(match="*")


class HttpOptions(OptionGroup):
    """Limits of requests in size and time."""

    title = "HTTP"

    publish_token: Token | None = option(
        None, "Publishing requires `Authorization: Bearer` with this token."
    )
    allow_anonymous_publish: Switch = option(
        False, "Publishing needs no token, even if other machines can reach the server."
    )
    allowed_hosts: Names = option(
        (),
        "Accepted host names, in addition to IP addresses, localhost and host; others get 421. "
        "Without this option, any name on public addresses, and none on loopback ones. Repeat it "
        "for several.",
    )
    cors_origins: Origins = option(
        (),
        "Origins whose pages may read and publish, also with cookies; * allows any, without "
        "cookies. Repeat it for several.",
    )
    cors_headers: HeaderNames = option(
        ("X-Requested-With", "traceparent", "tracestate", "baggage"),
        "More request headers that those pages may send than Authorization, Cache-Control, "
        "Content-Type, Idempotency-Key, If-Match and Last-Event-ID. Repeat it for several.",
    )
    streams_path: Annotated[str, AfterValidator(check_streams_path), STREAMS_PATH] = option(
        "/streams", "Path under which durable streams are served (Durable Streams protocol)."
    )
    streams_plain: Switch = option(
        False,
        "Serve topics that were not created as durable streams below streams_path too, to readers "
        "who have a grant for them.",
    )
    streams_poll: Seconds = duration(
        "20s",
        "How long a long-poll of a durable stream waits for content.",
        least="100ms",
        most="5m",
    )
    publish_origins: Origins = option(
        (), "Origins whose pages may publish with the token cookie. Repeat it for several."
    )
    page: Annotated[Literal["auto", "on", "off"], Choice] = option(
        "auto", "The console page at `/`; auto serves it on loopback addresses only."
    )
    max_body: Bytes = size(
        "1MiB", "Largest body of a publish; larger is refused with 413.", least="1B", most="1GiB"
    )
    max_head: Bytes = size(
        "16KiB", "Largest request line and headers together.", least="1KiB", most="1MiB"
    )
    max_headers: Count = option(100, "Most headers of a request.", ge=1, le=10_000)
    head_timeout: Seconds = duration(
        "10s", "Deadline for a complete request head.", least="10ms", most="1h"
    )
    body_timeout: Seconds = duration(
        "30s", "Deadline for a complete request body.", least="10ms", most="1h"
    )
    idle_timeout: Seconds = duration(
        "90s", "Close a publisher's connection that is idle for this long.", least="10ms", most="1d"
    )


class LogOptions(OptionGroup):
    """What is logged, and how."""

    title = "Logs"

    log_level: Annotated[Literal["debug", "info", "warning", "error"], Choice] = option(
        "info", "Lowest level that is logged."
    )
    log_format: Annotated[Literal["auto", "console", "json", "journal"], Choice] = option(
        "auto",
        "Format of the log; auto is console on a terminal, else JSON; journal sends fields to "
        "systemd's journal.",
    )
    tracing: Switch = option(
        False,
        "Send spans of publishes and streams by OpenTelemetry (OTLP over HTTP, by the variables "
        "OTEL_…), where the client records a trace; needs fastsse[otel].",
    )
    access_lines: Count = option(
        100, "Access lines a second; the others are counted in one line.", ge=0, le=1_000_000
    )


GROUPS: tuple[type[OptionGroup], ...] = (
    ListenOptions,
    TlsOptions,
    StreamOptions,
    StoreOptions,
    HistoryOptions,
    RedisOptions,
    SourceOptions,
    WebhookOptions,
    MirrorOptions,
    HookOptions,
    InterceptorOptions,
    EventRuleOptions,
    HttpOptions,
    TokenOptions,
    LimitOptions,
    PresenceOptions,
    ConsoleOptions,
    ProcessOptions,
    LogOptions,
)
