"""The events of a stream as a page receives them, and the id to resume after."""

import json
from typing import Any, NamedTuple

from fastsse.client.errors import EventTooLarge
from fastsse.client.view import Envelope
from fastsse.eventstream import EventStreamParser, StreamEventTooLong

GAP = "fastsse.gap"
# All types of the server itself begin so.
CONTROL = "fastsse."
END = "fastsse.end"
DEFAULT_TYPE = "message"


class Gap(NamedTuple):
    """Events are missing: the reason, the requested id, and where the stream continues."""

    reason: str
    requested: str
    resumes_from: str


class ReceivedEvent(NamedTuple):
    """One event as a page receives it; `id` is the last event id at that time."""

    data: str
    event: str = DEFAULT_TYPE
    id: str = ""

    def json(self) -> Any:
        """The data, parsed as JSON. Raises ValueError."""
        return json.loads(self.data)

    @property
    def is_control(self) -> bool:
        """Whether it is an event of the server about the stream: a gap, the end of a snapshot."""
        return self.event.startswith(CONTROL)

    @property
    def envelope(self) -> Envelope | None:
        """The envelope, where the stream was asked for some (`StreamView`); None for control events
        and other streams."""
        return Envelope.parse(self.data)

    @property
    def gap(self) -> Gap | None:
        """The content of a `fastsse.gap` event; None for every other event."""
        if self.event != GAP:
            return None
        try:
            members = self.json()
            return Gap(*(str(members.get(key, "")) for key in ("reason", "requested", "from")))
        except (ValueError, AttributeError):
            return Gap("unknown", "", "")


class Decoder:
    """Parses the bytes of a stream into events.

    It buffers at most about `max_event_bytes` of an incomplete event. `last_event_id` is the id for
    a reconnect; `retry_s` is the last `retry:` of the stream, or None.
    """

    def __init__(self, max_event_bytes: int, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self._max_event_bytes = max_event_bytes
        self._parser = EventStreamParser(max_event_bytes)

    @property
    def retry_s(self) -> float | None:
        """The last `retry:` of the stream."""
        retry_ms = self._parser.retry_ms
        return None if retry_ms is None else retry_ms / 1000

    def restart(self) -> None:
        """Starts a new connection: drops an incomplete event; keeps the id and retry."""
        self._parser.restart()

    def feed(self, chunk: bytes) -> list[ReceivedEvent]:
        """The events that `chunk` completes. O(bytes). Raises EventTooLarge."""
        try:
            blocks = self._parser.feed(chunk)
        except StreamEventTooLong:
            raise EventTooLarge(self._max_event_bytes) from None
        events: list[ReceivedEvent] = []
        last_event_id = self.last_event_id
        for data, event, id in blocks:
            if id is not None:
                last_event_id = id.decode("utf-8", "replace")
            if data is not None:
                kind = event.decode("utf-8", "replace") if event else DEFAULT_TYPE
                text = data.decode("utf-8", "replace")
                events.append(ReceivedEvent(text, kind, last_event_id))
        self.last_event_id = last_event_id
        return events
