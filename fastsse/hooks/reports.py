"""A worker's side of hooks: it reports its streams, and the first and last of each topic."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import orjson

from fastsse.auth.rights import Rights
from fastsse.control.feeds import reported
from fastsse.control.service import ControlClient
from fastsse.hooks.notices import CLOSED, FIRST, LAST, OPENED, SUBJECT
from fastsse.positions import now_ms

__all__ = ["HookReports"]

# Bytes of changes in one message, about.
_MESSAGE_BYTES: Final = 64 * 1024


class HookReports:
    """Reports to the control service. Loop thread only.

    Arguments:
        control: the way to it.
        call_soon: the loop's. Changes of one turn are sent together.
        name_of: a stream's name.
        streams: whether streams are reported one by one, not only topics.
    """

    def __init__(
        self,
        control: ControlClient,
        call_soon: Callable[[Callable[[], None]], object],
        name_of: Callable[[int], str],
        *,
        streams: bool,
    ) -> None:
        self._control = control
        self._call_soon = call_soon
        self._name_of = name_of
        self._reports_streams = streams
        self._open: dict[int, tuple[str, ...]] = {}
        self._packed: dict[int, bytes] = {}
        self._counts: dict[str, int] = {}
        self._unsent: list[bytes] = []
        control.on_back.append(self._report_all)

    def on_stream_opened(
        self, stream: int, topics: tuple[str, ...], rights: Rights | None, client: str
    ) -> None:
        """A stream is open. O(topics)."""
        self._open[stream] = topics
        for topic in topics:
            count = self._counts[topic] = self._counts.get(topic, 0) + 1
            if count == 1:
                self._note(_dumps((FIRST, topic)))
        if self._reports_streams:
            subject, payload = (None, None) if rights is None else (rights.subject, rights.payload)
            name = self._name_of(stream)
            opened = (OPENED, name, reported(topics), subject, payload, client, now_ms())
            packed = self._packed[stream] = _dumps(opened)
            self._note(packed)

    def on_stream_closed(
        self, stream: int, reason: str, duration_s: float, figures: Sequence[int]
    ) -> None:
        """A stream has ended; `figures` are the events and bytes that it was sent. O(topics)."""
        for topic in self._open.pop(stream, ()):
            count = self._counts[topic] - 1
            if count:
                self._counts[topic] = count
            else:
                del self._counts[topic]
                self._note(_dumps((LAST, topic)))
        packed = self._packed.pop(stream, None)
        if packed is not None:
            name = orjson.loads(packed)[1]
            self._note(_dumps((CLOSED, name, reason, round(duration_s * 1000), *figures)))

    def _note(self, change: bytes) -> None:
        if not self._unsent:
            self._call_soon(self._send)
        self._unsent.append(change)

    def _send(self) -> None:
        changes, self._unsent = self._unsent, []
        for message in _messages(iter(changes)):
            self._control.notify(SUBJECT, message)

    def _report_all(self) -> None:
        """Reports everything again, to a new control service."""
        self._control.notify_pages(SUBJECT, _messages(self._all()))

    def _all(self) -> Iterator[bytes]:
        """The present state. What ends before its page is made is left out, so that no report of
        its opening follows that of its end."""
        for topic in list(self._counts):
            if topic in self._counts:
                yield _dumps((FIRST, topic))
        for stream in list(self._packed):
            packed = self._packed.get(stream)
            if packed is not None:
                yield packed


def _messages(changes: Iterator[bytes]) -> Iterator[bytes]:
    """Changes in order, in messages of bounded size."""
    some: list[bytes] = []
    size = 0
    for change in changes:
        some.append(change)
        size += len(change)
        if size >= _MESSAGE_BYTES:
            yield b"[%b]" % b",".join(some)
            some, size = [], 0
    if some:
        yield b"[%b]" % b",".join(some)


def _dumps(change: Any) -> bytes:
    # A copy without the large buffer that orjson cuts its result from.
    return bytes(memoryview(orjson.dumps(change)))
