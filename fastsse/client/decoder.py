"""The events of a stream as a page receives them, and the id to resume after."""

import json
import re
from collections.abc import Iterable
from itertools import repeat
from typing import Any, Final, NamedTuple

from fastsse.client.errors import EventTooLarge
from fastsse.client.view import Envelope
from fastsse.eventstream import EventStreamParser, StreamEventTooLong

GAP = "fastsse.gap"
# The prefix of all types of the server itself.
CONTROL = "fastsse."
END = "fastsse.end"
DEFAULT_TYPE = "message"
_PATTERNS: Final = {"id: ": r"id: (.+)\n", "event: ": r"event: (.+)\n", "data: ": r"data: (.*)\n"}
# The fields of blocks as most servers write them, and the pattern of blocks that all have these.
# Its matches are whole lines, so a count of the line ends says whether there is anything else.
_FORMS: Final = {
    names: re.compile(r"(?<![^\n])" + "".join(_PATTERNS[name] for name in names) + r"\n")
    for names in (
        ("data: ",),
        ("id: ", "data: "),
        ("event: ", "data: "),
        ("id: ", "event: ", "data: "),
        ("event: ", "id: ", "data: "),
    )
}
# Above it, it is cheaper to split at the line ends than to search lines with a pattern.
_LONG_CHARS: Final = 256
# One of them, for pieces that have several. An empty id, unlike none, resets it: it is left out.
_BLOCK: Final = re.compile(
    r"(?:\A|(?<=\n\n))(?:id: ([^\n\0]+)\n)?(?:event: ?([^\n]*)\n)?data: ?([^\n]*)\n\n"
)


class Gap(NamedTuple):
    """Events are missing.

    Attributes:
        reason: `evicted`, `unknown`, `future`, `lagged`, `lost` or `feed`.
        requested: what the stream asked for: an id, `earliest`, `last=20`.
        resumes_from: the id of the place where the stream continues.
    """

    reason: str
    requested: str
    resumes_from: str


class ReceivedEvent(NamedTuple):
    """One event as a page receives it.

    Attributes:
        data: the lines of data, joined with LF.
        event: its type; `message` if it has none.
        id: the last event id at that time: the event's own, or that of an event before it.

    Source: WHATWG HTML 9.2.6.
    """

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
    """Parses the bytes of a stream into events (WHATWG HTML 9.2.6). One thread at a time.

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
        if b"\r" in chunk or b"\n" not in chunk:
            return self._feed_any(chunk)
        events: list[ReceivedEvent] = []
        at = 0
        if not self._parser.is_between:
            at = chunk.find(b"\n\n") + 2
            if at < 2:
                return self._feed_any(chunk)
            events = self._feed_any(chunk[:at])
        end = chunk.rfind(b"\n\n") + 2
        if max(at, 1) < end <= self._max_event_bytes and self._parser.is_between:
            text = chunk[at:end].decode("utf-8", "replace")
            found = _usual_events(text, self.last_event_id)
            if found:
                self.last_event_id = found[-1].id
                events += found
                at = end
        if at < len(chunk):
            events += self._feed_any(chunk[at:])
        return events

    def _feed_any(self, chunk: bytes) -> list[ReceivedEvent]:
        """As `feed`, block by block."""
        try:
            blocks = self._parser.feed(chunk)
        except StreamEventTooLong:
            raise EventTooLarge(self._max_event_bytes) from None
        if not blocks:
            return []
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


def _usual_events(text: str, last_event_id: str) -> list[ReceivedEvent]:
    """The events of complete blocks; none where a block is unusual."""
    first = text[: text.find("\n\n")]
    names = tuple(line[: line.find(": ") + 2] for line in first.split("\n"))
    if names in _FORMS and "\0" not in text:
        if len(first) > _LONG_CHARS:
            if (columns := _columns(text, names)) is not None:
                return _of_columns(columns, last_event_id)
        else:
            line_count, width = text.count("\n"), len(names) + 1
            # Where blocks differ, this often says so before a search.
            if line_count % width == 0:
                found = _FORMS[names].findall(text)
                if line_count == len(found) * width:
                    return _of_values(names, found, last_event_id)
    found = _BLOCK.findall(text)
    if len(found) != text.count("\n\n"):
        return []
    events = []
    for id, event, data in found:
        last_event_id = id or last_event_id
        events.append(ReceivedEvent(data, event or DEFAULT_TYPE, last_event_id))
    return events


def _of_values(names: tuple[str, ...], found: list[Any], last_event_id: str) -> list[ReceivedEvent]:
    """The events of blocks that all have the same fields, from the values of those."""
    # Without the Python call that `ReceivedEvent(…)` is.
    new, kind = tuple.__new__, ReceivedEvent
    match names:
        case ("id: ", "data: "):
            return [new(kind, (data, DEFAULT_TYPE, id)) for id, data in found]
        case ("id: ", "event: ", "data: "):
            return [new(kind, (data, event, id)) for id, event, data in found]
        case ("event: ", "id: ", "data: "):
            return [new(kind, (data, event, id)) for event, id, data in found]
        case ("event: ", "data: "):
            return [new(kind, (data, event, last_event_id)) for event, data in found]
        case _:
            return [new(kind, (data, DEFAULT_TYPE, last_event_id)) for data in found]


def _columns(text: str, names: tuple[str, ...]) -> dict[str, list[str]] | None:
    """The lines of each field; None where blocks differ."""
    lines = text.split("\n")
    width = len(names) + 1
    columns = {name: lines[at:-1:width] for at, name in enumerate(names)}
    is_like = all(all(map(str.startswith, lines, repeat(name))) for name, lines in columns.items())
    return columns if is_like and not any(lines[width - 1 : -1 : width]) else None


def _of_columns(columns: dict[str, list[str]], last_event_id: str) -> list[ReceivedEvent]:
    """The events of blocks that all have the same fields, from their lines: a few calls for all."""
    data = [line[6:] for line in columns["data: "]]
    ids = [line[4:] for line in columns["id: "]] if "id: " in columns else repeat(last_event_id)
    types: Iterable[str] = repeat(DEFAULT_TYPE)
    if "event: " in columns:
        types = [line[7:] or DEFAULT_TYPE for line in columns["event: "]]
    fields = zip(data, types, ids, strict=False)
    return list(map(tuple.__new__, repeat(ReceivedEvent), fields))
