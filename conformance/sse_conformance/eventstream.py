"""Event streams by the HTML standard (section 9.2): a reader, and a judge of the bytes."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

_LINE_END = re.compile(r"\r\n|\n|\r")
_DIGITS = re.compile(r"[0-9]+")
FIELDS = ("event", "data", "id", "retry")


@dataclass(frozen=True, slots=True)
class Message:
    """A dispatched event, as a page sees it."""

    data: str
    type: str
    id: str


class EventStream:
    """Reads bytes in any pieces as EventSource does.

    Attributes:
        last_event_id: what a reconnect sends.
        retry_ms: the newest `retry:`, or None.
        problems: what no correct hub writes: text that is not UTF-8, fields that are not known.
        comments: how many comment lines came.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self.problems: list[str] = []
        self.comments = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text = ""
        self._is_first = True
        self._id = last_event_id
        self._data: list[str] = []
        self._type = ""

    def feed(self, data: bytes) -> list[Message]:
        """Takes bytes; returns the events that they complete."""
        text = self._decoder.decode(data)
        if self._is_first and text:
            self._is_first = False
            text = text.removeprefix("\ufeff")
        self._text += text
        found: list[Message] = []
        position = 0
        for end in _LINE_END.finditer(self._text):
            # A CR at the very end may be the first half of CRLF.
            if end[0] == "\r" and end.end() == len(self._text):
                break
            self._line(self._text[position : end.start()], found)
            position = end.end()
        self._text = self._text[position:]
        return found

    def _line(self, line: str, found: list[Message]) -> None:
        if any("\udc80" <= char <= "\udcff" for char in line):
            self.problems.append(f"not UTF-8: {line[:60]!r}")
        if not line:
            self._dispatch(found)
            return
        if line.startswith(":"):
            self.comments += 1
            return
        name, _, value = line.partition(":")
        self._field(name, value.removeprefix(" "))

    def _field(self, name: str, value: str) -> None:
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id":
            if "\0" in value:
                self.problems.append("an id with NUL, which clients ignore")
            else:
                self._id = value
        elif name == "retry":
            if _DIGITS.fullmatch(value):
                self.retry_ms = int(value)
            else:
                self.problems.append(f"retry is not a number: {value[:40]!r}")
        else:
            self.problems.append(f"an unknown field: {name[:40]!r}")

    def _dispatch(self, found: list[Message]) -> None:
        self.last_event_id = self._id
        if self._data:
            data = "\n".join(self._data)
            found.append(Message(data, self._type or "message", self.last_event_id))
        self._data = []
        self._type = ""
