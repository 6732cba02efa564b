"""The hub that is checked, as checks use it: publish, open streams, read them."""

from __future__ import annotations

import re
import shlex
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Self

from sse_conformance.adapter import Adapter, Event, Request
from sse_conformance.eventstream import EventStream, Message
from sse_conformance.wire import (
    WAIT_MAX_S,
    WAIT_S,
    Answer,
    Body,
    Connection,
    ProtocolError,
    Timeout,
    request_bytes,
)

_TRACED_MAX = 4
# They end; a reproduction is made with one of its own.
_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*")


class Stream:
    """An open stream, read as EventSource reads it.

    Attributes:
        status, headers: of the response.
        body: the bytes of the stream so far, without chunks.
        gaps: how often the hub reported missing events.
        was_cut: it ended without a last chunk.
    """

    def __init__(self, connection: Connection, adapter: Adapter, topic: str, place: Any) -> None:
        self._connection = connection
        self._adapter = adapter
        self._topic = topic
        first = place if adapter.captures and place else adapter.first_captures
        self._captured: dict[str, Any] = dict(first)
        # Each with the place in front of it.
        self._waiting: list[tuple[Any, Message]] = []
        self._last_id = ""
        self.status, self.headers = connection.head()
        self.parsed = EventStream()
        self.body = b""
        self.gaps = 0
        if self.status == 200 and adapter.head_reports_gap(self.headers, place):
            self.gaps = 1
        self._decoder = Body(self.headers)
        self.was_cut = False
        self.is_ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, *, reset: bool = False) -> None:
        self._connection.close(reset=reset)

    @property
    def place(self) -> Any:
        """From where a later stream goes on: behind the events that were asked for. The last event
        id, or what the adapter captures."""
        if self._waiting:
            return self._waiting[0][0]
        if self._adapter.captures:
            return self._captured_place()
        return self.parsed.last_event_id or None

    def _captured_place(self) -> Any:
        whole = self._captured.keys() == self._adapter.captures.keys()
        return tuple(sorted(self._captured.items())) if whole else None

    def read(self, timeout_s: float = WAIT_S, most: int = 1 << 30) -> bool:
        """Takes what comes next, and no bytes of the stream beyond `most`; False at the end."""
        try:
            data = self._connection.receive(timeout_s)
        except ConnectionError:
            data = b""
        if not data:
            self.is_ended = True
            self._decoder.end()
            self.was_cut = not self._decoder.is_complete
            return False
        body = self._decoder.feed(data)[: most - len(self.body)]
        self.body += body
        for message in self.parsed.feed(body):
            self._take(message)
        self.is_ended = self._decoder.is_complete
        return not self.is_ended

    def _take(self, message: Message) -> None:
        items = self._adapter.items(message, self._topic)
        captured = self._adapter.captured(message, self._topic)
        if items:  # Each names its own place.
            for name in self._adapter.captured(items[0], self._topic):
                captured.pop(name, None)
        if self._adapter.reports_gap(message, self._topic):
            self.gaps += 1
        before = self._captured_place() if self._adapter.captures else self._last_id or None
        self._last_id = message.id
        self._captured.update(captured)
        for item in items:
            self._take(item)
        event = None if items else self._adapter.unwrapped(message)
        if event is not None:
            self._waiting.append((before, event))

    def next(self, timeout_s: float = WAIT_S) -> Message:
        """The next published event."""
        deadline = time.monotonic() + timeout_s
        while not self._waiting:
            if self.is_ended or not self.read(deadline - time.monotonic()):
                if self._waiting:
                    break
                raise ProtocolError("the stream ended")
        return self._waiting.pop(0)[1]

    def take(self, count: int, timeout_s: float = WAIT_S) -> list[Message]:
        """The next `count` events; fewer when they do not come in time or the stream ends."""
        deadline = time.monotonic() + timeout_s
        found: list[Message] = []
        with suppress(ProtocolError):
            while len(found) < count:
                found.append(self.next(deadline - time.monotonic()))
        return found

    def until(self, data: str) -> list[Message]:
        """The events before the one with this data. Waits as long as events come, within a bound:
        a hub may limit how many it delivers a second."""
        found: list[Message] = []
        deadline = time.monotonic() + WAIT_MAX_S
        while True:
            try:
                message = self.next(min(WAIT_S, deadline - time.monotonic()))
            except Timeout:
                raise Timeout(f"{data!r} did not arrive; before it came {_brief(found)}") from None
            if message.data == data:
                return found
            found.append(message)

    def settle(self) -> None:
        """Reads the opening: until nothing comes for a moment."""
        try:
            while self.read(0.3):
                pass
        except Timeout:
            return

    def up_to(self, length: int) -> None:
        """Exactly so many bytes of the stream."""
        deadline = time.monotonic() + WAIT_S
        while len(self.body) < length and self.read(deadline - time.monotonic(), length):
            pass

    def taken(self) -> list[Message]:
        """The events that have come and were not asked for yet."""
        found = [message for _, message in self._waiting]
        self._waiting = []
        return found

    def to_end(self, timeout_s: float = WAIT_S) -> list[Message]:
        """Everything up to the end, which must come in time."""
        deadline = time.monotonic() + timeout_s
        while not self.is_ended and self.read(deadline - time.monotonic()):
            pass
        return self.taken()


class Hub:
    """A hub at an address.

    Args:
        salt: stands in all topics, so that a second run meets no history of the first.
        pids: gives the processes of the hub, where the suite started it; else None.
    """

    def __init__(
        self, host: str, port: int, adapter: Adapter, *, salt: str = "", pids: Any = None
    ) -> None:
        self.host = host
        self.port = port
        self.adapter = adapter
        self.pids = pids
        self._salt = salt
        self._count = 0
        self._local = threading.local()
        self._label = ""
        self._traced: list[str] = []

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def begin(self, label: str) -> None:
        """A check begins: its topics get its name, its requests are noted."""
        self._label, self._count = label.replace(".", "-").replace("_", "-"), 0
        self._traced = []

    def topic(self) -> str:
        """A topic that nothing used before."""
        self._count += 1
        return f"{self._label}-{self._count}{self._salt}"

    def at(self, port: int) -> Hub:
        """The same hub behind a proxy on this port."""
        other = Hub(self.host, port, self.adapter, salt=self._salt)
        other._label = f"{self._label}-p"
        return other

    def connect(self, *, receive_buffer: int = 0) -> Connection:
        return Connection(self.host, self.port, receive_buffer=receive_buffer)

    def subscribe(
        self, *topics: str, after: Any = None, in_query: bool = False, token: str = "",
        receive_buffer: int = 0,
    ) -> Stream:  # fmt: skip
        """Opens a stream; any status."""
        request = self.adapter.listen(topics, after, in_query=in_query, token=token)
        connection = self.connect(receive_buffer=receive_buffer)
        try:
            self._note(request)
            connection.send(self.written(request))
            return Stream(connection, self.adapter, topics[0], after)
        except BaseException:
            connection.close()
            raise

    def listen(self, *topics: str, after: Any = None, token: str = "") -> Stream:
        """Opens a stream that must be one."""
        stream = self.subscribe(*topics, after=after, token=token)
        if stream.status != 200:
            stream.close()
            raise ProtocolError(f"a subscription was answered with {stream.status}")
        return stream

    def publish(
        self, topic: str, data: str | bytes, *, type: str | None = None, id: str | None = None,
        private: bool = False, token: str | None = None,
    ) -> Answer:  # fmt: skip
        """Publishes on a connection that is kept; any status."""
        return self.ask(self.adapter.publish(Event(topic, data, type, id, private), token))

    def send(self, topic: str, *texts: str) -> None:
        """Publishes events that must be accepted, one after another."""
        for text in texts:
            answer = self.publish(topic, text)
            if not answer.is_accepted:
                raise ProtocolError(f"a publish was answered with {answer.status}")

    def ask(self, request: Request) -> Answer:
        """Sends a request on this thread's connection."""
        self._note(request)
        kept: Connection | None = getattr(self._local, "connection", None)
        if kept is not None:
            try:
                return self._ask_on(kept, request)
            except (ProtocolError, OSError):
                kept.close()  # The server may have ended an idle connection.
        return self._ask_on(self.connect(), request)

    def _ask_on(self, connection: Connection, request: Request) -> Answer:
        self._local.connection = None
        try:
            connection.send(self.written(request))
            answer = connection.answer()
        except BaseException:
            connection.close()
            raise
        if answer.headers.get("connection", "").lower() == "close":
            connection.close()
        else:
            self._local.connection = connection
        return answer

    def hang_up(self) -> None:
        """Ends this thread's connection for publishing."""
        kept: Connection | None = getattr(self._local, "connection", None)
        if kept is not None:
            kept.close()
        self._local.connection = None

    def written(self, request: Request) -> bytes:
        headers = [("Host", self.authority), *request.headers]
        return request_bytes(request.method, request.target, headers, request.body)

    def _note(self, request: Request) -> None:
        if len(self._traced) < _TRACED_MAX:
            self.note(self._curl(request))

    def _curl(self, request: Request) -> str:
        words = ["curl", "-N"] if request.method == "GET" else ["curl", "-X", request.method]
        for name, value in request.headers:
            if name not in ("Accept", "Content-Length"):
                words += ["-H", f"{name}: {value}"]
        if request.body is not None:
            words += ["--data-binary", _shown(request.body)]
        return shlex.join([*words, f"http://{self.authority}{request.target}"])

    def note(self, text: str) -> None:
        """Adds a line to the reproduction, if it is another one."""
        text = _TOKEN.sub("$TOKEN", text)
        if len(self._traced) < _TRACED_MAX and text not in self._traced:
            self._traced.append(text)

    def note_raw(self, data: bytes) -> None:
        self.note(f"printf {_printf(data)} | nc {self.host} {self.port}")

    def reproduction(self) -> list[str]:
        """The first requests of the check as commands."""
        lines = [line.replace(self._salt, "") if self._salt else line for line in self._traced]
        return [line if len(line) <= 400 else line[:400] + " …" for line in lines]


def _shown(body: bytes) -> str:
    text = body[:200].decode(errors="replace")
    return text if len(body) <= 200 else f"{text}… ({len(body)} bytes)"


def _printf(data: bytes) -> str:
    text = data[:300].decode("latin-1")
    escaped = "".join(_escape(char) for char in text)
    return f"'{escaped}{'…' if len(data) > 300 else ''}'"


def _escape(char: str) -> str:
    plain = {"\r": "\\r", "\n": "\\n", "\\": "\\\\", "'": "'\\''", "%": "%%"}
    if char in plain:
        return plain[char]
    return char if " " <= char <= "~" else f"\\x{ord(char):02x}"


def _brief(messages: Iterable[Message]) -> str:
    texts = [message.data[:30] for message in messages]
    return f"{len(texts)} events {texts[:5]}" if texts else "nothing"
