"""Every option, once: its default, unit, bounds and help, in the group of the part that uses it.

Flags, environment variables, file keys, `fastsse serve --help`, `fastsse config show` and the
the table of the reference all come from here. Durations are floats in seconds, sizes ints in bytes.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator

from fastsse.config.groups import OptionGroup, duration, option, size
from fastsse.config.kinds import (
    RULES,
    Bytes,
    Choice,
    Count,
    HeaderNames,
    Hosts,
    Names,
    Origins,
    Seconds,
    Switch,
    Token,
    UnixPath,
    read_rules,
)
from fastsse.config.limits import LimitOptions
from fastsse.config.presence import PresenceOptions
from fastsse.config.processes import ProcessOptions
from fastsse.config.redis import RedisOptions
from fastsse.config.rights import RightsOptions
from fastsse.config.rules import AgeKept, BytesKept, EventsKept, LagPolicy, TopicLimits, TopicRule
from fastsse.config.sources import SourceOptions
from fastsse.config.storing import StoreOptions

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
    RightsOptions,
    LimitOptions,
    PresenceOptions,
    ProcessOptions,
    LogOptions,
)
