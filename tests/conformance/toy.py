"""A hub in plain Python that passes every check, and breaks those that it is asked to.

A thread for each connection, one lock, no care for speed. `Toy({"cr"})` does not split data at CR.
Over 400 lines: the whole hub can be read from top to bottom.
"""

import base64
import hashlib
import hmac
import json
import re
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import unquote_to_bytes, urlsplit

KEY = "a-key-for-the-conformance-suite-0123456789"
HISTORY_EVENTS = 100
HEAD_MAX = 64 << 10
BODY_MAX = 1 << 20
LAG_MAX_BYTES = 1 << 20
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Refused(Exception):
    """The request is answered with this status, and the connection ends."""

    def __init__(self, status: int) -> None:
        self.status = status


@dataclass
class Entry:
    """A published event."""

    position: int
    topic: str
    data: str
    type: str
    id: str
    private: bool


@dataclass(eq=False)
class Subscriber:
    """An open stream and what waits for it."""

    topics: list[str]
    granted: Collection[str]
    is_chunked: bool
    number: int = 0
    held: list[bytes] = field(default_factory=list)
    waiting: list[bytes] = field(default_factory=list)
    is_over: bool = False

    def may_read(self, entry: Entry) -> bool:
        return not entry.private or entry.topic in self.granted or "*" in self.granted


class Reader:
    """Bytes of a connection, by lines and lengths."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._kept = b""

    def _more(self) -> None:
        data = self._connection.recv(65536)
        if not data:
            raise ConnectionError
        self._kept += data

    def first_packet(self, end: bytes) -> None:
        """Refuses what has not come in one piece."""
        if not self._kept:
            self._more()
        if end not in self._kept:
            raise Refused(400)

    def until(self, end: bytes, most: int, status: int) -> bytes:
        while end not in self._kept:
            if len(self._kept) > most:
                raise Refused(status)
            self._more()
        found, _, self._kept = self._kept.partition(end)
        return found

    def exactly(self, length: int) -> bytes:
        while len(self._kept) < length:
            self._more()
        found, self._kept = self._kept[:length], self._kept[length:]
        return found


class Toy:
    """The hub on a free port of 127.0.0.1.

    Args:
        breaks: what it does wrong; each name stands once below.
    """

    def __init__(self, breaks: Collection[str] = ()) -> None:
        self._breaks = set(breaks)
        self._lock = threading.Condition()
        self._history: defaultdict[str, list[Entry]] = defaultdict(list)
        self._evicted: defaultdict[str, int] = defaultdict(int)
        self._subscribers: list[Subscriber] = []
        self._opened: defaultdict[str, int] = defaultdict(int)
        self._position = 0
        self._heads = threading.Lock()
        self._accepted = 0
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for subscriber in self._subscribers:
                subscriber.is_over = True
            self._lock.notify_all()
            for connection in self._connections:
                with suppress(OSError):  # The client may have gone already.
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _start(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _is(self, name: str) -> bool:
        return name in self._breaks

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._accepted += 1
            if self._is("tires") and self._accepted > 40:
                connection.close()
                continue
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            with self._lock:
                self._connections.add(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        reader = Reader(connection)
        try:
            while self._one(reader, connection):
                pass
        except Refused as refused:
            _answer(connection, refused.status)
        except OSError:
            pass
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    # HTTP.

    def _one(self, reader: Reader, connection: socket.socket) -> bool:
        """Reads and answers a request; whether another may follow."""
        if self._is("first_packet"):
            reader.first_packet(b"\r\n\r\n")
        most = 1 << 40 if self._is("long_head") else HEAD_MAX
        with self._heads if self._is("one_head") else nullcontext():
            head = reader.until(b"\r\n\r\n", most, 431).decode("latin-1")
        first, *lines = head.split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise Refused(200 if self._is("garbage") else 400)
        method, target, version = words
        if target.startswith("http") and self._is("absolute"):
            raise Refused(404)
        headers = self._headers(lines, version)
        body = self._body(reader, connection, headers)
        query = _query(urlsplit(target).query)
        if method == "POST":
            return self._publish(connection, headers, query, body)
        if method != "GET" and not self._is("any_method"):
            raise Refused(405)
        self._stream(connection, headers, query, is_chunked=self._chunks(version))
        return False

    def _chunks(self, version: str) -> bool:
        return version == "HTTP/1.1" or self._is("chunks_to_old")

    def _headers(self, lines: list[str], version: str) -> dict[str, str]:
        found: defaultdict[str, list[str]] = defaultdict(list)
        for line in lines:
            name, colon, value = line.partition(":")
            if self._is("space_before_colon"):
                name = name.rstrip()
            if not colon or not _NAME.fullmatch(name):
                raise Refused(400)
            found[name if self._is("header_case") else name.lower()].append(value.strip())
        host = "Host" if self._is("header_case") else "host"
        hosts = len(found[host])
        if (hosts == 0 and version == "HTTP/1.1" and not self._is("no_host")) or (
            hosts > 1 and not self._is("two_hosts")
        ):
            raise Refused(400)
        lengths = set(found[_cased("content-length", self._is("header_case"))])
        if len(lengths) > 1 and not self._is("two_lengths"):
            raise Refused(400)
        return {name.lower() if name != "LAST-EVENT-ID" else name: values[0]
                for name, values in found.items() if values}  # fmt: skip

    def _body(self, reader: Reader, connection: socket.socket, headers: dict[str, str]) -> bytes:
        length, coding = headers.get("content-length"), headers.get("transfer-encoding")
        if length is not None and coding is not None:
            if not self._is("length_and_chunks"):
                raise Refused(400)
        elif length is not None and not length.isdigit():
            if not self._is("bad_length"):
                raise Refused(400)
            length = "1"
        if headers.get("expect") == "100-continue" and not self._is("ignores_expect"):
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if coding is not None:
            if self._is("no_chunks"):
                raise Refused(500)
            return self._chunked(reader)
        if length is None:
            return b""
        if int(length) > BODY_MAX:
            raise Refused(500 if self._is("large_body") else 413)
        return reader.exactly(int(length))

    def _chunked(self, reader: Reader) -> bytes:
        found = b""
        while True:
            text = reader.until(b"\r\n", 100, 400).decode("latin-1")
            if not re.fullmatch("[0-9a-fA-F]+", text):
                if not self._is("bad_chunk"):
                    raise Refused(400)
                text = "0"
            size = int(text, 16)
            found += reader.exactly(size)
            if size:
                reader.until(b"\r\n", 2, 400)
            else:
                reader.until(b"\r\n", 100, 400) if text == "0" else None
                return found

    # Publishing.

    def _publish(
        self, connection: socket.socket, headers: dict[str, str], query: dict[str, list[bytes]],
        body: bytes,
    ) -> bool:  # fmt: skip
        try:
            topic = query["topic"][0].decode()
            kind = query.get("event", [b""])[0].decode()
            own_id = query.get("id", [b""])[0].decode()
            data = body.decode("utf-8", "surrogateescape" if self._is("any_bytes") else "strict")
        except (KeyError, UnicodeDecodeError):
            raise Refused(400) from None
        if self._is_forged(kind, "type_injection") or self._is_forged(own_id, "id_injection"):
            raise Refused(400)
        if not body and self._is("empty"):
            raise Refused(500)
        if "\0" in own_id and not self._is("nul_in_id"):
            raise Refused(400)
        token = headers.get("authorization", "").removeprefix("Bearer ")
        granted = ["*"] if self._is("anonymous_publish") and not token else None
        granted = granted or self._granted(token, "publish")
        if granted is None:
            raise Refused(401)
        if not ({"*", topic} & set(granted) or self._is("any_topic")):
            raise Refused(403)
        private = query.get("private") == [b"true"]
        self._keep(Entry(0, topic, data, kind, own_id, private))
        _answer(connection, 200, close=self._is("no_pipelining"))
        return not self._is("no_pipelining")

    def _is_forged(self, text: str, allowed: str) -> bool:
        return ("\n" in text or "\r" in text) and not self._is(allowed)

    def _keep(self, entry: Entry) -> None:
        with self._lock:
            self._position += 1
            entry.position = self._position
            kept = self._history[entry.topic]
            kept.append(entry)
            if len(kept) > HISTORY_EVENTS:
                self._evicted[entry.topic] = kept.pop(0).position
            for subscriber in self._subscribers:
                times = sum(self._matches(topic, entry.topic) for topic in subscriber.topics)
                readable = subscriber.may_read(entry) or self._is("leaks_private")
                for _ in range(times if self._is("twice") else min(times, 1)):
                    if readable:
                        self._queue(subscriber, self._frame(entry))
            self._lock.notify_all()

    def _matches(self, wanted: str, topic: str) -> bool:
        if self._is("topic_case"):
            wanted, topic = wanted.lower(), topic.lower()
        return topic.startswith(wanted) if self._is("topic_prefix") else topic == wanted

    def _queue(self, subscriber: Subscriber, frame: bytes) -> None:
        if sum(map(len, subscriber.waiting)) > LAG_MAX_BYTES:
            if self._is("drops_silently"):
                return
            subscriber.is_over = True
            return
        if self._is("mixes") and frame.count(b"\n") > 100:
            # The lines of two long frames in turn.
            if subscriber.held:
                subscriber.waiting.append(_mixed(subscriber.held.pop(), frame))
            else:
                subscriber.held.append(frame)
        # The fifth of a topic's streams gets every two events in another order. Streams of clients
        # that left may still be there, so topics of other checks stay as they are.
        elif self._is("unordered") and subscriber.number > 4 and "order" in subscriber.topics[0]:
            subscriber.held.insert(0, frame)
            if len(subscriber.held) == 2:
                subscriber.waiting += subscriber.held
                subscriber.held = []
        else:
            subscriber.waiting.append(frame)

    def _frame(self, entry: Entry) -> bytes:
        lines = re.split(self._line_ends(), self._data(entry))
        if self._is("few_lines"):
            lines = lines[:1000]
        head = f"id: {entry.id or entry.position}\n" if not self._is("no_ids") else ""
        if self._is("id_before"):
            head += "\n"
        head += f"event: {entry.type}\n" if entry.type and not self._is("no_types") else ""
        if self._is("unknown_field"):
            head += "topic: x\n"
        text = head + "".join(f"data: {line}\n" for line in lines) + "\n"
        return text.encode("utf-8", "surrogateescape")

    def _line_ends(self) -> str:
        if self._is("cr"):
            return "\r\n|\n"
        if self._is("lf"):
            return "\r"
        return "(?<!\r)\n|\r(?!\n)" if self._is("crlf") else "\r\n|\n|\r"

    def _data(self, entry: Entry) -> str:
        data = entry.data.strip() if self._is("strips") else entry.data
        if self._is("ascii"):
            data = data.encode("ascii", "replace").decode()
        if self._is("nul"):
            data = data.partition("\0")[0]
        return data[:100_000] if self._is("truncates") else data

    # Streams.

    def _stream(
        self, connection: socket.socket, headers: dict[str, str], query: dict[str, list[bytes]],
        *, is_chunked: bool,
    ) -> None:  # fmt: skip
        topics = [topic.decode() for topic in query.get("topic", [])]
        if self._is("first_topic"):
            topics = topics[:1]
        place = headers.get("last-event-id") or query.get("last_event_id", [b""])[0].decode()
        if self._is("no_parameter"):
            place = headers.get("last-event-id", "")
        token = query.get("authorization", [b""])[0].decode()
        granted = self._granted(token, "subscribe") if token else []
        if not topics:
            raise Refused(400)
        if granted is None:
            raise Refused(401)
        subscriber = Subscriber(topics, granted, is_chunked)
        if self._is("joins_late") and not place:
            self._opened[topics[0]] += 1
            late = self._opened[topics[0]] % 10 == 0
        else:
            late = False
        if late:  # Events until then are missed.
            self._send_head(connection, is_chunked)
            time.sleep(0.2)
        with self._lock:
            self._replay(subscriber, place)
            self._subscribers.append(subscriber)
            subscriber.number = sum(one.topics == topics for one in self._subscribers)
        try:
            if self._is("late_head"):
                with self._lock:
                    self._lock.wait_for(lambda: subscriber.waiting or subscriber.is_over)
            if not late:
                self._send_head(connection, is_chunked)
            self._send_all(connection, subscriber)
        finally:
            with self._lock:
                self._subscribers.remove(subscriber)

    def _send_head(self, connection: socket.socket, is_chunked: bool) -> None:
        kind = "text/plain" if self._is("content_type") else "text/event-stream"
        lines = [f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n"]
        if self._is("has_length"):
            lines.append("Content-Length: 1000000\r\n")
        if not self._is("cached"):
            lines.append("Cache-Control: no-store\r\n")
        lines.append("Transfer-Encoding: chunked\r\n" if is_chunked else "Connection: close\r\n")
        connection.sendall("".join([*lines, "\r\n"]).encode())

    def _replay(self, subscriber: Subscriber, place: str) -> None:
        kept = sorted(
            (entry for topic in set(subscriber.topics) for entry in self._history[topic]),
            key=lambda entry: entry.position,
        )
        if not place:
            if self._is("sends_last"):
                subscriber.waiting += map(self._frame, kept[-1:])
            elif not self._is("no_opening_id") and not self._is("late_head"):
                subscriber.waiting.append(f"id: {self._position}\n\n".encode())
            return
        after = next((e.position for e in kept if place == e.id), None)
        if after is None and place.isdigit() and int(place) <= self._position:
            after = int(place)
        if after is None and self._is("unknown"):
            return
        evicted = any(self._evicted[topic] > (after or 0) for topic in subscriber.topics)
        if (after is None or evicted) and not self._is("silent_gap"):
            subscriber.waiting.append(b"event: gap\ndata: missing\n\n")
        begin = (after or 0) if self._is("repeats_last") else (after or 0) + 1
        for entry in kept:
            readable = subscriber.may_read(entry) or self._is("leaks_private_replay")
            if entry.position >= begin and readable:
                subscriber.waiting.append(self._frame(entry))

    def _send_all(self, connection: socket.socket, subscriber: Subscriber) -> None:
        while True:
            with self._lock:
                while not subscriber.waiting and not subscriber.is_over:
                    self._lock.wait(0.2)
                    if not subscriber.waiting and _has_left(connection):
                        return
                if subscriber.is_over:
                    return
                data = b"".join(subscriber.waiting[:4])
                del subscriber.waiting[:4]
                # It sends while it holds the lock: one client that does not read stops all.
                if self._is("blocks"):
                    connection.sendall(_chunk(data, subscriber.is_chunked))
                    continue
            connection.sendall(_chunk(data, subscriber.is_chunked))

    # Tokens.

    def _granted(self, token: str, action: str) -> list[str] | None:
        """The topics that a token grants; None when it is refused."""
        try:
            head, claims, signature = token.split(".")
            algorithm = json.loads(_decoded(head))["alg"]
            made = json.loads(_decoded(claims))
        except ValueError:
            return None
        if algorithm == "none":
            if not self._is("algorithm_none"):
                return None
        else:
            right = hmac.new(KEY.encode(), f"{head}.{claims}".encode(), hashlib.sha256).digest()
            wrong = not hmac.compare_digest(right, _decoded(signature))
            if wrong and not self._is(f"any_signature_{action}"):
                return None
        if made["exp"] < time.time() and not self._is("expired"):
            return None
        granted: list[str] = made.get("mercure", {}).get(action, [])
        return granted


def _cased(name: str, is_cased: bool) -> str:
    return name.title() if is_cased else name


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _query(text: str) -> dict[str, list[bytes]]:
    found: defaultdict[str, list[bytes]] = defaultdict(list)
    for name, value in _pairs(text):
        found[name].append(unquote_to_bytes(value))
    return found


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, text.split("&")):
        name, _, value = part.partition("=")
        yield name, value


def _chunk(data: bytes, is_chunked: bool) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if is_chunked else data


def _mixed(first: bytes, second: bytes) -> bytes:
    """Two frames with their lines in turn."""
    pairs = zip(first.split(b"\n"), second.split(b"\n"), strict=False)
    return b"\n".join(line for pair in pairs for line in pair)


def _has_left(connection: socket.socket) -> bool:
    """Whether the client has closed its end."""
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    finally:
        connection.setblocking(True)


def _answer(connection: socket.socket, status: int, *, close: bool = False) -> None:
    """An answer without a body; a refusal ends the connection, after what the client sends."""
    end = "Connection: close\r\n" if close or status >= 400 else ""
    try:
        connection.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n{end}\r\n".encode())
        if end:
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(1)
            while connection.recv(65536):
                pass
    except OSError:
        return
