"""Converts the pieces of a request body to events: lines of NDJSON, or an event stream."""

from typing import Final, Protocol

from fastsse.api.batch import event_of_json
from fastsse.errors import InvalidEvent
from fastsse.events import RESERVED_EVENT_TYPE_PREFIX, Event
from fastsse.eventstream import Block, EventStreamParser, StreamEventTooLong
from fastsse.http.problems import Problem

__all__ = ["BodyEvents", "EventStreamEvents", "LineEvents", "Template"]


class BodyEvents(Protocol):
    """Reads the events of one body. It must not be called again after an error.

    Attributes:
        error: why the rest of the body can't be read, or None. Events returned before are valid.
        skipped: number of events that were left out, by type.
    """

    error: Problem | None
    skipped: dict[str, int]

    @property
    def held_bytes(self) -> int:
        """Bytes of the event that is still incomplete."""

    def read(self, piece: bytes) -> list[Event]:
        """Returns the events that are complete with this piece. O(bytes)."""

    def end(self) -> list[Event]:
        """Returns the events that are complete with the end of the body."""


class LineEvents:
    """NDJSON: one event a line, with the fields of a batch. Blank lines are skipped.

    Arguments:
        line_bytes_max: bytes of the longest line.
    """

    def __init__(self, line_bytes_max: int) -> None:
        self.error: Problem | None = None
        self.skipped: dict[str, int] = {}
        self.held_bytes = 0
        self._line_bytes_max: Final = line_bytes_max
        self._rest = bytearray()
        self._line = 0

    def read(self, piece: bytes) -> list[Event]:
        """As `BodyEvents`."""
        events: list[Event] = []
        if b"\n" in piece:
            *lines, piece = piece.split(b"\n")
            for line in lines:
                if self._rest:
                    self._rest += line
                    line = self._taken()
                if not self._take(line, events):
                    return events
        # A piece may be one byte: those of a line cost an append each.
        self._rest += piece
        self.held_bytes = len(self._rest)
        if self.held_bytes > self._line_bytes_max:
            self._line += 1
            self._blame(_too_long(self._line_bytes_max))
        return events

    def end(self) -> list[Event]:
        """As `BodyEvents`. The last line may have no line end."""
        events: list[Event] = []
        self._take(self._taken(), events)
        return events

    def _taken(self) -> bytes:
        line = bytes(self._rest)
        self._rest.clear()
        self.held_bytes = 0
        return line

    def _take(self, line: bytes, events: list[Event]) -> bool:
        """Adds the event of a line. Returns False, and sets `error`, for an invalid line."""
        self._line += 1
        if not line.strip():
            return True
        try:
            if len(line) > self._line_bytes_max:
                raise _too_long(self._line_bytes_max)
            events.append(event_of_json(line))
        except InvalidEvent as error:
            self._blame(Problem(400, f"{error}.", field=error.field))
        except Problem as problem:
            self._blame(problem)
        return self.error is None

    def _blame(self, problem: Problem) -> None:
        self.error = Problem(
            problem.status,
            f"Line {self._line}: {problem.detail}",
            field=problem.field,
            members={"line": self._line},
        )


class Template:
    """The fields that all events of a relayed event stream get from the query.

    Arguments:
        topics: the topics.
        event: the type of events that have none in the stream.
        retry: as in Event.
        private: as in Event.
        meta: as in Event.
        own_ids: whether an id in the stream becomes the event's own id. Otherwise it is dropped.
    """

    __slots__ = ("_event", "_meta", "_own_ids", "_private", "_retry", "_topics")

    def __init__(
        self,
        topics: str | tuple[str, ...],
        event: str | None,
        retry: str | None,
        private: bool,
        meta: str | None,
        own_ids: bool,
    ) -> None:
        self._topics = topics
        self._event = event
        self._retry = retry
        self._private = private
        self._meta = meta
        self._own_ids = own_ids
        self.event_of(Block(b"", b"", None))

    def event_of(self, block: Block) -> Event:
        """The event of a block with data. Text that is not UTF-8 is replaced. Raises
        InvalidEvent."""
        data, kind = block.data or b"", block.event
        try:
            data.decode()
        except UnicodeDecodeError:
            data = data.decode(errors="replace").encode()
        return Event(
            self._topics,
            data,
            kind.decode(errors="replace") if kind else self._event,
            (block.id or None) if self._own_ids else None,
            self._retry,
            self._private,
            meta=self._meta,
        )


class EventStreamEvents:
    """An event stream as a body. Control events of another fastsse, such as `fastsse.gap`, are left
    out and counted. The last block is dropped if the body ends before its blank line.

    Arguments:
        template: the fields that all events get.
        event_bytes_max: bytes of the longest event.
    """

    def __init__(self, template: Template, event_bytes_max: int) -> None:
        self.error: Problem | None = None
        self.skipped: dict[str, int] = {}
        self._template: Final = template
        self._event_bytes_max: Final = event_bytes_max
        self._parser: Final = EventStreamParser(event_bytes_max)
        self._number = 0

    @property
    def held_bytes(self) -> int:
        """As `BodyEvents`."""
        return self._parser.held_bytes

    def read(self, piece: bytes) -> list[Event]:
        """As `BodyEvents`."""
        events: list[Event] = []
        try:
            for block in self._parser.feed(piece):
                if block.data is not None:
                    self._number += 1
                    self._take(block, events)
        except StreamEventTooLong:
            self._number += 1
            self._blame(_too_long(self._event_bytes_max))
        except InvalidEvent as error:
            self._blame(Problem(400, f"{error}.", field=error.field))
        return events

    def end(self) -> list[Event]:
        """As `BodyEvents`."""
        return []

    def _take(self, block: Block, events: list[Event]) -> None:
        if block.event.startswith(RESERVED_EVENT_TYPE_PREFIX):
            kind = block.event.decode(errors="replace")[:64]
            if kind in self.skipped or len(self.skipped) < 16:
                self.skipped[kind] = self.skipped.get(kind, 0) + 1
            return
        events.append(self._template.event_of(block))

    def _blame(self, problem: Problem) -> None:
        self.error = Problem(
            problem.status, f"Event {self._number}: {problem.detail}", field=problem.field
        )


def _too_long(bytes_max: int) -> Problem:
    return Problem(413, f"An event may have at most {bytes_max} bytes (max_body).", field="body")
