"""Reads columns whose values may be damaged.

A flipped bit in the header of a row leaves a tree that SQLite reads, with NULL or another type
where the schema has a number, a name or a record. Every reader takes these columns from here.
The expressions return NULL or a value of the right type. Some return a safe value instead of NULL:

    a topic's `events` and `bytes`: counted again from what the topic keeps.
    a topic's `ended`: open.
    a topic's `evicted_through`: the place before the oldest event that it keeps, else all places.
    an event's size within a topic: of its record.
    `shared`: unknown, so the other topics are looked at.
"""

from typing import Final

from fastsse.backbone.sqlite.places import EVENT_COST_BYTES

__all__ = [
    "IS_WHOLE_TOPIC",
    "KEPT",
    "KEPT_BYTES",
    "RECORD",
    "RECORD_BYTES",
    "TOPIC_BYTES",
    "TOPIC_ENDED",
    "TOPIC_EVENTS",
    "TOPIC_EVICTED",
    "TOPIC_NAME",
    "WRONG_TYPES",
    "integer",
]


def integer(column: str) -> str:
    """The column, or NULL where it has no integer."""
    return f"iif(typeof({column}) = 'integer', {column}, NULL)"


# The tables with values of a wrong type. SQLite's own check misses most of them.
WRONG_TYPES: Final = (
    "SELECT 'event' FROM event WHERE typeof(record) <> 'blob'"
    " UNION SELECT 'topic' FROM topic WHERE typeof(name) <> 'text'"
    " OR typeof(events) <> 'integer' OR typeof(bytes) <> 'integer'"
    " OR typeof(evicted_through) <> 'integer'"
    " UNION SELECT 'topic_event' FROM topic_event"
    " WHERE typeof(bytes) <> 'integer' OR typeof(shared) <> 'integer'"
    " UNION SELECT 'publish' FROM publish"
    " WHERE typeof(worker) <> 'blob' OR typeof(n) <> 'integer' OR typeof(events) <> 'integer'"
    " UNION SELECT 'desk' FROM desk WHERE typeof(value) <> 'blob'"
)

# An event's record, and its size; NULL and 0 when it is damaged.
RECORD: Final = "iif(typeof(record) = 'blob', record, NULL)"
RECORD_BYTES: Final = "coalesce(length(record), 0)"

# Of a row of topic_event: its size, and all of it with whether it is whole.
KEPT_BYTES: Final = (
    f"coalesce({integer('topic_event.bytes')}, {EVENT_COST_BYTES} + coalesce((SELECT length(record)"
    " FROM event WHERE event.place = topic_event.place), 0))"
)
KEPT: Final = (
    f"place, {KEPT_BYTES} AS bytes, coalesce({integer('shared')}, 1) AS shared,"
    " typeof(topic_event.bytes) = 'integer' AND typeof(shared) = 'integer' AS is_whole"
)

# Of a row of topic.
TOPIC_NAME: Final = "iif(typeof(name) = 'text', name, NULL)"
TOPIC_EVENTS: Final = (
    f"coalesce({integer('events')}, (SELECT count(*) FROM topic_event WHERE topic = number))"
)
TOPIC_BYTES: Final = (
    f"coalesce({integer('topic.bytes')},"
    f" (SELECT coalesce(sum({KEPT_BYTES}), 0) FROM topic_event WHERE topic = number))"
)
TOPIC_EVICTED: Final = (
    f"coalesce({integer('topic.evicted_through')},"
    " (SELECT min(place) - 1 FROM topic_event WHERE topic = number),"
    " (SELECT leased_through FROM state))"
)
TOPIC_ENDED: Final = f"coalesce({integer('ended')}, 0)"
IS_WHOLE_TOPIC: Final = (
    "typeof(events) = 'integer' AND typeof(topic.bytes) = 'integer'"
    " AND typeof(topic.evicted_through) = 'integer'"
)
