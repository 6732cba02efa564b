"""Relations between options: values that are valid alone and invalid together."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fastsse.config.eventrules import event_rule_conflicts
from fastsse.config.hooks import hook_conflicts
from fastsse.config.mirrors import mirror_conflicts
from fastsse.config.sources import source_conflicts
from fastsse.config.store import MEMORY
from fastsse.config.tls import tls_conflicts
from fastsse.config.tokens import token_conflicts, token_doubts
from fastsse.config.webhooks import webhook_conflicts
from fastsse.units import format_duration, format_size

if TYPE_CHECKING:
    from fastsse.config.settings import Config

# An option's name and what it must be.
Conflict = tuple[str, str]
_AT_MOST = ("at most", "at least")
_BELOW = ("below", "above")
_LAG = "a client disconnected for lag resumes from history; or use lag_policy skip or latest"


def conflicts(config: "Config") -> Iterator[Conflict]:
    """The broken relations of `config`."""
    if config.uds is not None and config.fd is not None:
        yield "fd", "left out when uds is given"
    may_publish = config.publishing_needs_token or config.allow_anonymous_publish
    if config.is_public and not may_publish:
        yield (
            "host",
            "a loopback address, because publishing needs no token; set publish_token, jwt_key or "
            "jwks_url, or allow_anonymous_publish to allow this",
        )
    if config.proxy_protocol and not config.trusted_proxies:
        yield "proxy_protocol", "off, or trusted_proxies must name the proxies"
    if config.subscriptions and not config.subscribers_need_tokens:
        yield (
            "subscriptions",
            "false, or jwt_key must be set, because tokens decide who may see subscribers",
        )
    if 0 < config.stream_lifetime < 1:
        yield "stream_lifetime", "0s or at least 1s"
    if config.pong_timeout and not config.ping:
        yield "pong_timeout", "0s, or ping must be set"
    elif config.pong_timeout and config.pong_timeout <= config.ping:
        yield "pong_timeout", f"above ping, which is {format_duration(config.ping)}"
    if config.ack == "synced" and config.store == MEMORY:
        yield (
            "ack",
            "left out, because a memory store survives no crash; or store must be sqlite:PATH",
        )
    if config.history_total >= config.memory_limit:
        reason = "history is part of it"
        yield _blame(config, "history_total", _BELOW, "memory_limit", format_size, reason)
    if config.max_body > config.memory_limit:
        reason = "a body is part of it"
        yield _blame(config, "max_body", _AT_MOST, "memory_limit", format_size, reason)
    if config.max_lag_time > config.user_timeout:
        reason = "the kernel gives up on a peer after user_timeout"
        yield _blame(config, "max_lag_time", _AT_MOST, "user_timeout", format_duration, reason)
    yield from _lag_conflicts(config)
    yield from _private_conflicts(config)
    yield from source_conflicts(config)
    yield from webhook_conflicts(config)
    yield from mirror_conflicts(config)
    yield from hook_conflicts(config)
    yield from event_rule_conflicts(config)
    yield from token_conflicts(config)
    yield from tls_conflicts(config)


def _private_conflicts(config: "Config") -> Iterator[Conflict]:
    for index, rule in enumerate(config.topics):
        if rule.private and not config.subscribers_need_tokens:
            reason = "because reading needs a grant, and only tokens have grants"
            yield f"topics[{index}].private", f"false, or jwt_key or jwks_url must be set, {reason}"


def _lag_conflicts(config: "Config") -> Iterator[Conflict]:
    """A client that is disconnected for lag must find its unsent events in history.

    A topic without any history is assumed to be intended.
    """
    if config.lag_policy == "disconnect" and config.history_events:
        for kept in ("history_bytes", "history_total"):
            if 0 < getattr(config, kept) < config.max_lag:
                yield _blame(config, "max_lag", _AT_MOST, kept, format_size, _LAG)
    for index, rule in enumerate(config.topics):
        events = config.history_events if rule.history_events is None else rule.history_events
        if (rule.keep_last or 0) > events:
            yield f"topics[{index}].keep_last", f"at most history_events, which is {events}"
    for index, rule in enumerate(config.topics):
        policy = rule.lag_policy or config.lag_policy
        if policy == "disconnect" and 0 < (rule.history_bytes or 0) < config.max_lag:
            allowed = f"at least max_lag, which is {format_size(config.max_lag)} ({_LAG})"
            yield f"topics[{index}].history_bytes", allowed


def _blame(
    config: "Config",
    smaller: str,
    words: tuple[str, str],
    larger: str,
    show: Callable[[int], str],
    reason: str,
) -> Conflict:
    """Names the option that was set, with the other as its bound; `smaller` if both were."""
    given = config.model_fields_set
    if larger in given and smaller not in given:
        return larger, f"{words[1]} {smaller}, which is {show(getattr(config, smaller))} ({reason})"
    return smaller, f"{words[0]} {larger}, which is {show(getattr(config, larger))} ({reason})"


def doubts(config: "Config") -> Iterator[str]:
    """Allowed values that are probably a mistake, as sentences for the log."""
    if config.max_body > config.max_lag:
        yield (
            f"max_body ({format_size(config.max_body)}) is above max_lag "
            f"({format_size(config.max_lag)}): one event of that size puts every client that "
            "does not receive it at once over the limit."
        )
    if config.heartbeat > config.user_timeout * 2:
        yield (
            f"heartbeat ({format_duration(config.heartbeat)}) is long: a lost idle peer "
            "is detected only after it, and many proxies close streams idle for 60s."
        )
    if config.ack != "written" and config.store != MEMORY and config.store_path is None:
        yield (
            f"ack {config.ack} has no effect with Redis: there appendfsync and redis_wait decide "
            "when an event is durable."
        )
    for rule in config.topics:
        if rule.event_types is not None:
            yield f"event_types of the topics {rule.match} is deprecated; use types (patterns)."
    yield from token_doubts(config)
