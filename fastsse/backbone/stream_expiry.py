"""Deleting durable streams that have expired and that no request meets.

The process that orders looks at some of the streams that can expire, a bounded number each second.
No stream has a timer.
"""

from collections.abc import Callable, Iterable
from typing import Final

from fastsse.directives import Directives
from fastsse.events import Event
from fastsse.streamstate import StreamAsk, StreamControl, StreamOp, StreamRow

__all__ = ["LOOKS", "control_event", "deletion_of", "deletions"]

#: Streams that are looked at in one call.
LOOKS: Final = 500


def control_event(
    topic: str, control: StreamControl, generation: int, op: StreamOp = "create"
) -> Event:
    """The control entry that changes a stream of a generation; it is refused for another one."""
    ask = StreamAsk(op, generation)
    return Event(topic, directives=Directives(control=control.encode(), stream=ask))


def deletion_of(topic: str, row: StreamRow, find: Callable[[str], StreamRow | None]) -> list[Event]:
    """The batch that deletes a stream: it hides one that has forks, and drops one that has none,
    with the hidden ones that it was the last fork of. O(forks of forks)."""
    if row.forks:
        return [control_event(topic, StreamControl("hide"), row.generation, "hide")]
    events = [control_event(topic, StreamControl("drop"), row.generation, "drop")]
    while row.config.source is not None:
        above = find(row.config.source)
        if above is None or above.generation != row.config.source_generation:
            break
        if not above.is_hidden or above.forks != 1:
            break
        events.append(
            control_event(row.config.source, StreamControl("drop"), above.generation, "drop")
        )
        row = above
    return events


def deletions(
    rows: Iterable[tuple[str, StreamRow]], find: Callable[[str], StreamRow | None], now_ms: int
) -> list[list[Event]]:
    """The batches that delete those of some streams that have expired."""
    return [
        deletion_of(topic, row, find)
        for topic, row in rows
        if row.is_expired(now_ms) and not row.is_hidden
    ]
