"""Every option, once: its default, unit, bounds and help, in the group of the part that uses it."""

import os
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator

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
from fastsse.config.rules import AgeKept, BytesKept, EventsKept, LagPolicy, TopicLimits, TopicRule
from fastsse.config.sources import SourceOptions
from fastsse.config.store import RedisOptions, StoreOptions
from fastsse.config.tokens import TokenOptions


class PresenceOptions(OptionGroup):
    """Presence and liveness."""

    title = "Presence"

    subscriptions: Switch = option(
        False,
        "Publish a private event when a subscription begins and when it ends, and list those that "
        "are active, by Mercure's interface and under `/presence`.",
    )
    ping: Seconds = duration(
        "0s",
        "Streams opened with ping=true get a visible event fastsse.ping this often; 0s: never.",
        least="0s",
        most="1h",
    )
    pong_timeout: Seconds = duration(
        "0s",
        "Such a stream ends when no POST /pong names it for this long; 0s: it need not.",
        least="0s",
        most="1h",
    )


#: The value of `workers` that stands for `auto`.
AUTO_WORKERS = 0
_WORKERS_MAX = 1024
# Beside the file there is a socket of the same name and `.sock`, and a socket's path has a bound.
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
    """A path that leaves room for the socket beside it."""
    if not path or "\0" in path or len(os.fsencode(path)) > _PID_PATH_BYTES_MAX:
        raise ValueError("must be a path")
    return path


class ProcessOptions(OptionGroup):
    """How many processes serve, and how they are found."""

    title = "Processes"

    workers: Annotated[int, BeforeValidator(read_workers), WORKERS] = option(
        "1",
        "Worker processes; auto is one for each core that the process may use. Above 1 there is "
        "a supervisor and a hub process too.",
    )
    pidfile: Annotated[str, AfterValidator(check_pid_path), PID_PATH] | None = option(
        None, "Write the process id here, for `fastsse reload`, which also uses PATH.sock."
    )


_VALUE_MAX = 1_000_000_000


class LimitOptions(OptionGroup):
    """Proxies to trust, and limits for each client address and each token subject.

    0 sets no limit. A rate may be exceeded for a moment: two seconds' worth may come at once.
    IPv6 clients are one by their /64.
    """

    title = "Proxies and limits"

    trusted_proxies: Networks = option(
        (),
        "Proxies whose X-Forwarded-For is believed: addresses, networks, or unix for those that "
        "come by a Unix socket. Repeat it for several.",
    )
    proxy_protocol: Switch = option(
        False, "Trusted proxies begin each connection with a PROXY protocol v2 header."
    )
    address_streams: Count = option(
        0, "Streams one client address may hold; 0: any number.", ge=0, le=_VALUE_MAX
    )
    over_limit: Annotated[Literal["newest", "oldest"], Choice] = option(
        "newest",
        "Which stream goes when a client has too many: the newest is turned away, or the oldest "
        "is ended for it.",
    )
    address_opens: Count = option(
        0, "Streams one client address may open a second; 0: any number.", ge=0, le=_VALUE_MAX
    )
    address_publishes: Count = option(
        0, "Publishes a second from one client address; 0: any number.", ge=0, le=_VALUE_MAX
    )
    address_requests: Count = option(
        0,
        "Other requests a second from one client address: tickets, renewals, revocations, pongs, "
        "questions who is there; 0: any number.",
        ge=0,
        le=_VALUE_MAX,
    )
    address_replay: Bytes = size(
        "0B",
        "Bytes of history replayed a second to one client address; 0: any number.",
        least="0B",
        most="16TiB",
    )
    subject_streams: Count = option(
        0, "Streams one token subject (sub) may hold; 0: any number.", ge=0, le=_VALUE_MAX
    )
    subject_opens: Count = option(
        0, "Streams one token subject may open a second; 0: any number.", ge=0, le=_VALUE_MAX
    )
    subject_publishes: Count = option(
        0, "Publishes a second by one token subject; 0: any number.", ge=0, le=_VALUE_MAX
    )
    subject_requests: Count = option(
        0,
        "Other requests a second by one token subject: tickets, renewals, revocations, pongs, "
        "questions who is there; 0: any number.",
        ge=0,
        le=_VALUE_MAX,
    )
    subject_replay: Bytes = size(
        "0B",
        "Bytes of history replayed a second to one token subject; 0: any number.",
        least="0B",
        most="16TiB",
    )


CleanEnd = Annotated[Literal["over", "always"], Choice]
InitialId = Annotated[Literal["auto", "true", "false", "data"], Choice]
# What `fastsse doctor --url` publishes is kept for as long as its own resume may take.
TRIAL_TOPICS = "fastsse-doctor/"
TRIAL_RULE = TopicRule(match=TRIAL_TOPICS + "*", history_age=60.0)


class ListenOptions(OptionGroup):
    """Where the server listens."""

    title = "Listening"

    host: Hosts = option(
        "127.0.0.1", "Address or name to listen on, IPv6 too; repeat it for several."
    )
    port: Count = option(8080, "TCP port; 0 takes a free one.", ge=0, le=65535)
    uds: UnixPath | None = option(None, "Listen on this Unix socket instead of host and port.")
    fd: Count | None = option(
        None, "Listen on this inherited socket instead of host and port.", ge=0, le=2**31 - 1
    )
    admin_port: Count | None = option(
        None,
        "Serve health, metrics, statistics and the page on this port only (same hosts).",
        ge=0,
        le=65535,
    )


class StreamOptions(OptionGroup):
    """What streams may do and how long, and the memory for it."""

    title = "Streams"

    max_connections: Count = option(
        0,
        "Streams at once, of all workers together; 0 is as many as the fd limit carries.",
        ge=0,
        le=16_000_000,
    )
    max_topics: Count = option(100, "Topics one stream may ask for.", ge=1, le=10_000)
    retry: Seconds = duration(
        "3s", "How long clients wait before they reconnect.", least="10ms", most="1h"
    )
    heartbeat: Seconds = duration(
        "15s", "A stream idle this long is sent a comment.", least="10ms", most="1h"
    )
    min_heartbeat: Seconds = duration(
        "1s",
        "Shortest heartbeat that a subscriber may ask for (heartbeat=5s); above 30s: none may.",
        least="1s",
        most="1h",
    )
    max_pad: Bytes = size(
        "16KiB",
        "Longest padding that a subscriber may ask for (pad=4KiB); 0B: none.",
        least="0B",
        most="16KiB",
    )
    initial_id: InitialId = option(
        "auto",
        "How a stream's opening names its place when the request does not say it: as a block of "
        "its own, as an event with empty data, or not at all; auto judges by the request.",
    )
    max_event: Bytes = size(
        "0B",
        "Largest data of one event, for clients with a limit for a line; larger is refused with "
        "413. 0B: max_body alone bounds it.",
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
        "(told by a gap event), or keep the latest of each topic.",
    )
    clean_end: CleanEnd = option(
        "over",
        "Which responses have a last chunk: those that are over, so that half an answer is not "
        "taken for the whole; or always, for proxies that count a cut response as an error.",
    )
    user_timeout: Seconds = duration(
        "30s",
        "A peer that acknowledges nothing for this long is gone (TCP_USER_TIMEOUT).",
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
        "Memory for events, all told, at which publishers are refused with 503.",
        least="1MiB",
        most="16TiB",
    )
    drain: Seconds = duration(
        "10s", "On a stop, streams are closed spread over this time.", least="0s", most="1h"
    )


class HistoryOptions(OptionGroup):
    """What is kept for clients that resume."""

    title = "History"

    history_events: EventsKept = option(1000, "Events kept of each topic; 0 keeps none.")
    history_age: AgeKept = option("1h", "Age up to which events are kept.")
    history_bytes: BytesKept = option("16MiB", "Bytes kept of each topic; 0 keeps none.")
    history_total: BytesKept = option("256MiB", "Bytes kept of all topics in memory.")
    topics: Annotated[tuple[TopicRule, ...], BeforeValidator(read_rules), RULES] = option(
        (),
        "Rules for topics, the first that matches holds: match, history_events, history_age, "
        "history_bytes, lag_policy, event_types. In the file: [[topics]].",
        max_length=1000,
    )

    @property
    def rules(self) -> tuple[TopicRule, ...]:
        """The rules, the server's own among them; the first that matches a topic holds."""
        return (TRIAL_RULE, *self.topics)

    def rule(self, topic: str) -> TopicRule | None:
        """The rule that holds for `topic`. O(rules)."""
        return next((rule for rule in self.rules if rule.matches(topic)), None)

    def limits(self, topic: str) -> TopicLimits:
        """What holds for `topic`: its first matching rule over the options. O(rules)."""
        rule = self.rule(topic) or TopicRule(match="*")
        return TopicLimits(
            events=self.history_events if rule.history_events is None else rule.history_events,
            age_s=self.history_age if rule.history_age is None else rule.history_age,
            bytes=self.history_bytes if rule.history_bytes is None else rule.history_bytes,
            lag_policy=rule.lag_policy,
            event_types=rule.event_types_pattern,
        )


class HttpOptions(OptionGroup):
    """What requests may do and how long."""

    title = "HTTP"

    publish_token: Token | None = option(
        None, "Publishing needs `Authorization: Bearer` with this token."
    )
    allow_anonymous_publish: Switch = option(
        False, "Let anyone publish, even where other machines reach the server."
    )
    allowed_hosts: Names = option(
        (),
        "Host names answered to beside IP addresses, localhost and host; others get 421. None "
        "given: any name, but on loopback addresses no other. Repeat it for several.",
    )
    cors_origins: Origins = option(
        (),
        "Origins whose pages may read and publish, also with cookies; * is any, without cookies. "
        "Repeat it for several.",
    )
    cors_headers: HeaderNames = option(
        ("X-Requested-With", "traceparent", "tracestate", "baggage"),
        "Request headers that those pages may send, beside Authorization, Cache-Control, "
        "Content-Type, Idempotency-Key, If-Match and Last-Event-ID. Repeat it for several.",
    )
    publish_origins: Origins = option(
        (), "Origins whose pages may publish with the token cookie. Repeat it for several."
    )
    page: Annotated[Literal["auto", "on", "off"], Choice] = option(
        "auto", "The page at `/`; auto shows it on loopback addresses only."
    )
    max_body: Bytes = size(
        "1MiB", "Largest body of a publish; larger is refused with 413.", least="1B", most="1GiB"
    )
    max_head: Bytes = size(
        "16KiB", "Largest request line and headers together.", least="1KiB", most="1MiB"
    )
    max_headers: Count = option(100, "Most headers of a request.", ge=1, le=10_000)
    head_timeout: Seconds = duration(
        "10s", "Time for a request's head to be complete.", least="10ms", most="1h"
    )
    body_timeout: Seconds = duration(
        "30s", "Time for a request's body to be complete.", least="10ms", most="1h"
    )
    idle_timeout: Seconds = duration(
        "90s", "A publisher's connection idle this long is closed.", least="10ms", most="1d"
    )


class LogOptions(OptionGroup):
    """What is logged, and how."""

    title = "Logs"

    log_level: Annotated[Literal["debug", "info", "warning", "error"], Choice] = option(
        "info", "What is logged, and what is worse."
    )
    log_format: Annotated[Literal["auto", "console", "json"], Choice] = option(
        "auto", "How it is logged; auto is console on a terminal, else JSON."
    )
    access_lines: Count = option(
        100, "Access lines a second; the rest is counted in one line.", ge=0, le=1_000_000
    )


GROUPS: tuple[type[OptionGroup], ...] = (
    ListenOptions,
    StreamOptions,
    StoreOptions,
    HistoryOptions,
    RedisOptions,
    SourceOptions,
    HttpOptions,
    TokenOptions,
    LimitOptions,
    PresenceOptions,
    ProcessOptions,
    LogOptions,
)
