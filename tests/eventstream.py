"""An event-stream parser written from the HTML standard alone (§9.2.5 and §9.2.6).

It shares nothing with the package and is slow and plain on purpose: tests hold what the server
writes, and what the client reads, against it.

    parse(b"data: hello\\n\\n").events  ->  [Message(data="hello")]
"""

import codecs
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_PIECES = re.compile("[\r\n]|[^\r\n]+")
_ASCII_DIGITS = re.compile("[0-9]+")


@dataclass(frozen=True)
class Message:
    """One dispatched event, as a page sees it."""

    data: str
    type: str = "message"
    last_event_id: str = ""


@dataclass
class EventStream:
    """The state of a reading EventSource: feed bytes in any pieces, read `events`."""

    events: list[Message] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    retry_ms: int | None = None
    last_event_id: str = ""
    """What a reconnect would send as Last-Event-ID."""

    _id_buffer: str = ""
    _data_buffer: list[str] = field(default_factory=list)  # Its lines, each with its end.
    _type_buffer: str = ""
    _line: str = ""
    _started: bool = False
    _after_cr: bool = False

    def __post_init__(self) -> None:
        # The standard's text starts from an empty id; browsers start from the last one.
        self._id_buffer = self.last_event_id
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, chunk: bytes) -> list[Message]:
        """Take more bytes; returns the events that they completed."""
        before = len(self.events)
        for piece in _PIECES.findall(self._decoder.decode(chunk)):
            self._take(piece)
        return self.events[before:]

    def end(self) -> None:
        """The connection closed: an event without its blank line is discarded."""
        self._data_buffer = []
        self._type_buffer = self._line = ""
        self._id_buffer = self.last_event_id
        self._decoder.reset()
        self._started = self._after_cr = False

    def _take(self, piece: str) -> None:
        """One CR, one LF, or a run of what is neither."""
        if not self._started:
            self._started = True
            piece = piece.removeprefix("\ufeff")  # One byte order mark is no part of the stream.
        if piece == "\n" and self._after_cr:  # The second half of CRLF.
            self._after_cr = False
            return
        self._after_cr = piece == "\r"
        if piece in ("\r", "\n"):
            line, self._line = self._line, ""
            self._take_line(line)
        else:
            self._line += piece

    def _take_line(self, line: str) -> None:
        if line == "":
            self._dispatch()
        elif line.startswith(":"):
            self.comments.append(line[1:])
        else:
            name, _, value = line.partition(":")
            self._take_field(name, value.removeprefix(" "))

    def _take_field(self, name: str, value: str) -> None:
        if name == "event":
            self._type_buffer = value
        elif name == "data":
            self._data_buffer.append(value + "\n")
        elif name == "id" and "\0" not in value:
            self._id_buffer = value
        elif name == "retry" and _ASCII_DIGITS.fullmatch(value):
            self.retry_ms = int(value)

    def _dispatch(self) -> None:
        self.last_event_id = self._id_buffer
        if self._data_buffer:
            data = "".join(self._data_buffer).removesuffix("\n")
            self.events.append(Message(data, self._type_buffer or "message", self.last_event_id))
        self._data_buffer = []
        self._type_buffer = ""


def parse(chunks: bytes | Iterable[bytes], *, last_event_id: str = "") -> EventStream:
    """Read a whole stream, given as bytes or in pieces, up to its end."""
    stream = EventStream(last_event_id=last_event_id)
    for chunk in (chunks,) if isinstance(chunks, bytes) else chunks:
        stream.feed(chunk)
    stream.end()
    return stream
