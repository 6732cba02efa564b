"""Which events a sink wants, and the form in which it sends them."""

from typing import Any, Final

import orjson

from fastsse.config.rules import DEFAULT_EVENT_TYPE
from fastsse.entries import Entry
from fastsse.events import DATA_JSON
from fastsse.expressions import compile_expression, matches
from fastsse.handlers import event_of

__all__ = ["EntryFilter", "envelope_of"]


class EntryFilter:
    """Whether a sink wants an entry.

    Arguments:
        text: an expression; None: every event.
        private: private events too.
    """

    def __init__(self, text: str | None, *, private: bool) -> None:
        self._filter = None if text is None else compile_expression(text)
        self._private: Final = private

    def __call__(self, entry: Entry) -> bool:
        """O(bytes) with an expression."""
        extras = entry.extras
        if not entry.frame.events:
            return False  # A control entry, or an event that was deleted before it was sent.
        if entry.frame.private and not self._private:
            return False
        if self._filter is None:
            return True
        event = event_of(entry)
        return bool(
            matches(
                self._filter,
                topics=entry.topics,
                data=event.data.encode(),
                event=None if event.event == DEFAULT_EVENT_TYPE else event.event.encode(),
                meta=None if extras is None else extras.meta,
                data_kind=entry.frame.data_kind,
            )
        )


def envelope_of(entry: Entry) -> dict[str, Any]:
    """An event as streams with envelopes get it, with its position, which its id may not be."""
    event = event_of(entry)
    data: Any = event.data
    if entry.frame.data_kind == DATA_JSON:
        data = orjson.Fragment(event.data)
    return {
        "topic": event.topics[0] if len(event.topics) == 1 else list(event.topics),
        "id": event.id,
        "position": f"{entry.position >> 64}-{entry.position & (1 << 64) - 1}",
        "event": None if event.event == DEFAULT_EVENT_TYPE else event.event,
        "data": data,
        "meta": event.meta or None,
        "time": event.time_ms,
    }
