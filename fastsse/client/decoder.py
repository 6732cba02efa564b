"""Parses an event stream (WHATWG HTML §9.2.6) in bounded memory.

The maintained parser libraries either emit an event for a block with only an id, or accept lines of
any length. The first would show a resumed reader events that were never published.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastsse.client.errors import EventTooLarge

GAP = "fastsse.gap"
# All types of the server itself begin so.
CONTROL = "fastsse."
DEFAULT_TYPE = "message"
_LINE_END = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Nine digits of milliseconds are eleven days; a longer time is not realistic.
_RETRY = re.compile(rb"[0-9]{1,9}")


class Gap(NamedTuple):
    """Events are missing: the reason, the requested id, and where the stream continues."""

    reason: str
    requested: str
    resumes_from: str


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
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
    def gap(self) -> Gap | None:
        """The content of a `fastsse.gap` event; None for every other event."""
        if self.event != GAP:
            return None
        try:
            told = self.json()
            return Gap(*(str(told.get(key, "")) for key in ("reason", "requested", "from")))
        except (ValueError, AttributeError):
            return Gap("unknown", "", "")


class Decoder:
    """Parses the bytes of a stream into events.

    It buffers at most about `max_event_bytes` of an incomplete event. `last_event_id` is the id for
    a reconnect; `retry_s` is the last `retry:` of the stream, or None.
    """

    def __init__(self, max_event_bytes: int, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry_s: float | None = None
        self._max_event_bytes = max_event_bytes
        self.restart()

    def restart(self) -> None:
        """Starts a new connection: drops an incomplete event; keeps the id and retry."""
        self._line_parts: list[bytes] = []
        self._line_bytes = 0
        self._after_cr = False
        self._at_start = True
        self._id = self.last_event_id
        self._type = ""
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, chunk: bytes) -> list[ReceivedEvent]:
        """The events that `chunk` completes. O(bytes). Raises EventTooLarge."""
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        events: list[ReceivedEvent] = []
        *lines, rest = _LINE_END.split(chunk)
        for line in lines:
            if self._line_parts:
                line = b"".join((*self._line_parts, line))
                self._line_parts.clear()
                self._line_bytes = 0
            self._take_line(line, events)
        if rest:
            self._line_parts.append(rest)
            self._line_bytes += len(rest)
            self._check_size()
        self._after_cr = chunk.endswith(b"\r")
        return events

    def _take_line(self, line: bytes, events: list[ReceivedEvent]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if line:
            self._take_field(line)
        else:
            self._dispatch(events)

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._data_bytes += len(value) + 1
            self._check_size()
        elif name == b"event":
            self._type = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        elif name == b"retry" and _RETRY.fullmatch(value):
            self.retry_s = int(value) / 1000

    def _dispatch(self, events: list[ReceivedEvent]) -> None:
        self.last_event_id = self._id
        if self._data:
            data = b"\n".join(self._data).decode(errors="replace")
            events.append(ReceivedEvent(data, self._type or DEFAULT_TYPE, self._id))
        self._type = ""
        self._data = []
        self._data_bytes = 0

    def _check_size(self) -> None:
        if self._line_bytes + self._data_bytes > self._max_event_bytes:
            raise EventTooLarge(self._max_event_bytes)
