"""Why the server refuses: every reason, and what it means.

This is the one list. A reason is the label of a metric, the member `reason` of a problem, and the
data of the event `fastsse.refused`. Counters begin at 0 for each, and the reference shows the
tables. mypy checks that the code uses no other reason.
"""

from typing import Final, Literal, get_args

__all__ = [
    "CLIENT_LIMITS",
    "PUBLISH_REASONS",
    "STREAM_REASONS",
    "PublishReason",
    "StreamReason",
    "UnavailableReason",
    "read_reason",
]

#: Reasons of `Unavailable`: the same request may succeed later.
UnavailableReason = Literal[
    "memory", "queue", "draining", "keys", "producers", "nodes", "rate", "backbone",
    "polls", "filters", "tickets", "revocations", "feeds", "schedule", "authorize",
]  # fmt: skip
#: Reasons of publishes that no store received, or that a store refused.
PublishReason = Literal[
    "memory", "queue", "draining", "keys", "producers", "nodes", "rate", "backbone",
    "type", "schema", "interceptor",
]  # fmt: skip
#: Reasons of `StreamRefused`. `over` is no refusal: the topics have ended, and the answer is 204.
StreamReason = Literal[
    "full", "limited", "queue", "draining", "filters", "store", "access", "feed", "feeds", "over"
]

#: Labels of `fastsse_publish_refused_total`.
PUBLISH_REASONS: Final[dict[PublishReason, str]] = {
    "memory": "`memory_limit` is reached.",
    "queue": "Publishes come faster than the sender thread takes them.",
    "draining": "The server stops.",
    "keys": "The table of `Idempotency-Key` is full (`keys_total`).",
    "producers": "The table of producers is full (`producers_total`).",
    "nodes": "A node of an earlier version shares the log, and does not read such events.",
    "rate": "A topic gets more events than its rule allows (`max_publish_rate`).",
    "backbone": "The store, or the hub process, takes no events now.",
    "type": "The rule of a topic does not allow this event type (`types`).",
    "schema": "The data does not match the schema of a topic (`data_schema`).",
    "interceptor": "An interceptor failed.",
}
#: Labels of `fastsse_turned_away_total`.
STREAM_REASONS: Final[dict[StreamReason, str]] = {
    "full": "`max_connections` streams are open, or the process has no descriptor left.",
    "limited": "The client is over a limit; `fastsse_limited_total` says over which.",
    "queue": "Streams open faster than the sender thread takes them.",
    "draining": "The server stops.",
    "filters": "There are too many different filters (`max_filters`, `max_topic_filters`).",
    "store": "The store can't be read now.",
    "access": "The rights of the client can't be checked now.",
    "feed": "The feed is not stored; the client stores it again. Sent as a gap event.",
    "feeds": "The feed can't be read now.",
}
_SIDES: Final = {"address": "client address", "subject": "token subject"}
_KINDS: Final = {
    "streams": "Too many open streams",
    "opens": "Streams are opened too fast",
    "publishes": "Publishes come too fast",
    "requests": "Other requests come too fast",
    "replay": "Too much history is read",
}
#: Labels of `fastsse_limited_total`: the option that refuses, or `evicted`.
CLIENT_LIMITS: Final[dict[str, str]] = {
    f"{side}_{kind}": f"{what} from one {who} (`{side}_{kind}`)."
    for side, who in _SIDES.items()
    for kind, what in _KINDS.items()
} | {"evicted": "The oldest stream of a client was ended for a new one (`over_limit`)."}

_UNAVAILABLE: Final[dict[str, UnavailableReason]] = {
    reason: reason for reason in get_args(UnavailableReason)
}


def read_reason(text: str) -> UnavailableReason:
    """The reason that another process sent; `backbone` for one that this version does not know."""
    return _UNAVAILABLE.get(text, "backbone")
