"""The schedule of a server: delayed events that wait, and those that could not be published."""

from dataclasses import dataclass
from typing import Any

import orjson

from fastsse.client.http import not_ours

__all__ = ["ScheduledEvent", "read_schedule"]


@dataclass(frozen=True, slots=True)
class ScheduledEvent:
    """A delayed event.

    Attributes:
        id: under which it waits, for `cancel`.
        topics: of the event.
        deliver_at_ms: when it is published, unix milliseconds.
        reason: why it could not be published; empty: it waits.
    """

    id: str
    topics: tuple[str, ...]
    deliver_at_ms: int
    reason: str = ""


def read_schedule(answer: bytes) -> tuple[list[ScheduledEvent], list[ScheduledEvent], str | None]:
    """A page of `GET /schedule`: what waits, what could not be published, and the place of the
    next page. Raises Refused for another answer."""
    try:
        page = orjson.loads(answer)
        return _events(page["scheduled"]), _events(page["dead"]), page["next"]
    except (ValueError, KeyError, TypeError):
        raise not_ours() from None


def _events(rows: list[dict[str, Any]]) -> list[ScheduledEvent]:
    return [
        ScheduledEvent(row["id"], tuple(row["topics"]), row["deliver_at"], row.get("reason", ""))
        for row in rows
    ]
