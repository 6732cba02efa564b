"""HTTP/1.1 in raw bytes: what the RFCs forbid is refused, what they allow is understood."""

from __future__ import annotations

from contextlib import ExitStack

from sse_conformance.adapter import Event, Request
from sse_conformance.hub import Hub
from sse_conformance.registry import Case, check, expect
from sse_conformance.wire import Connection, ProtocolError, request_bytes

END = "the-end"


def _publish(hub: Hub, text: str = "x", topic: str = "") -> Request:
    return hub.adapter.publish(Event(topic or hub.topic(), text))


def _headers(hub: Hub, request: Request) -> list[tuple[str, str]]:
    return [("Host", hub.authority), *request.headers]


def _refused(case: Case, data: bytes) -> str:
    """The first answer is an error, or the connection ends without one."""
    case.hub.note_raw(data)
    with case.hub.connect() as connection:
        connection.send(data)
        try:
            status, _ = connection.head()
        except (ProtocolError, ConnectionError) as error:
            expect("in time" not in str(error), "neither answered nor closed")
            return "the connection is closed without an answer"
    expect(status >= 400, f"answered with {status}")
    return f"answered with {status}"


def _with_line(case: Case, line: str) -> bytes:
    """A publish with one more line in its head."""
    request = _publish(case.hub)
    data = request_bytes(request.method, request.target, _headers(case.hub, request), request.body)
    head, _, body = data.partition(b"\r\n\r\n")
    return head + b"\r\n" + line.encode("latin-1") + b"\r\n\r\n" + body


@check("http.no_host", "HTTP/1.1 without Host is refused", source="RFC 9112 3.2")
def no_host(case: Case) -> str:
    request = _publish(case.hub)
    return _refused(
        case, request_bytes(request.method, request.target, request.headers, request.body)
    )


@check("http.two_hosts", "Two Host lines are refused", source="RFC 9112 3.2")
def two_hosts(case: Case) -> str:
    return _refused(case, _with_line(case, "Host: other.example"))


@check("http.two_lengths", "Two different lengths are refused", source="RFC 9112 6.3")
def two_lengths(case: Case) -> str:
    return _refused(case, _with_line(case, "Content-Length: 900"))


@check("http.bad_length", "A length that is not a number is refused", source="RFC 9112 6.3")
def bad_length(case: Case) -> str:
    request = _publish(case.hub)
    headers = [*_headers(case.hub, request), ("Content-Length", "1x")]
    data = request_bytes(request.method, request.target, headers) + b"x"
    return _refused(case, data)


@check("http.space_before_colon", "A space before the colon is refused", source="RFC 9112 5.1")
def space_before_colon(case: Case) -> str:
    return _refused(case, _with_line(case, "X-Space : 1"))


@check("http.length_and_chunks", "A length and chunks together: refused, or the connection ends",
       source="RFC 9112 6.1")  # fmt: skip
def length_and_chunks(case: Case) -> str:
    hub = case.hub
    inner = hub.written(_publish(hub, "smuggled"))
    request = _publish(hub)
    body = b"0\r\n\r\n" + inner
    headers = [
        *_headers(hub, request),
        ("Content-Length", str(len(body))),
        ("Transfer-Encoding", "chunked"),
    ]
    data = request_bytes(request.method, request.target, headers) + body
    hub.note_raw(data)
    with hub.connect() as connection:
        connection.send(data)
        statuses = _statuses(connection)
    # A second answer means that a request was read from what the length calls the body.
    expect(len(statuses) < 2, f"answers are {statuses}: the connection goes on")
    return f"answered with {statuses[0]}" if statuses else "closed without an answer"


def _statuses(connection: Connection) -> list[int]:
    """Of all answers until the connection ends or is quiet."""
    found: list[int] = []
    try:
        while True:
            found.append(connection.answer(2.0).status)
    except (ProtocolError, ConnectionError):
        return found


@check("http.bad_chunk", "A chunk size that is not a number is refused", source="RFC 9112 7.1")
def bad_chunk(case: Case) -> str:
    request = _publish(case.hub)
    headers = [*_headers(case.hub, request), ("Transfer-Encoding", "chunked")]
    data = request_bytes(request.method, request.target, headers)
    return _refused(case, data + b"xyz\r\nabc\r\n0\r\n\r\n")


@check("http.chunked_publish", "A publish with a chunked body is understood",
       source="RFC 9112 7.1")  # fmt: skip
def chunked_publish(case: Case) -> str | None:
    hub, topic = case.hub, case.hub.topic()
    request = _publish(hub, "in chunks", topic)
    headers = [*_headers(hub, request), ("Transfer-Encoding", "chunked")]
    body = request.body or b""
    chunks = [body[:3], body[3:]]
    data = request_bytes(request.method, request.target, headers) + b"".join(
        b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks
    )
    hub.note_raw(data)
    with hub.listen(topic) as stream, hub.connect() as connection:
        connection.send(data + b"0\r\n\r\n")
        answer = connection.answer()
        if answer.status == 411:
            return "refused with 411, as RFC 9110 allows"
        expect(answer.is_accepted, f"answered with {answer.status}")
        found = stream.next().data
    expect(found == "in chunks", f"received {found!r}")
    return None


@check("http.byte_by_byte", "Requests that come byte by byte are understood", source="RFC 9112 2.2")
def byte_by_byte(case: Case) -> None:
    hub, topic = case.hub, case.hub.topic()
    with ExitStack() as stack:
        connection = stack.enter_context(hub.connect())
        data = hub.written(hub.adapter.listen([topic]))
        hub.note_raw(data)
        connection.send_pieces(data[n : n + 1] for n in range(len(data)))
        status, _ = connection.head()
        expect(status == 200, f"the subscription is answered with {status}")
        publisher = stack.enter_context(hub.connect())
        data = hub.written(_publish(hub, "slowly", topic))
        publisher.send_pieces(data[n : n + 1] for n in range(len(data)))
        expect(publisher.answer().is_accepted, "the publish is refused")


@check("http.pipelined", "Two publishes in one segment are both answered", source="RFC 9112 9.3.2")
def pipelined(case: Case) -> None:
    hub, topic = case.hub, case.hub.topic()
    with hub.listen(topic) as stream, hub.connect() as connection:
        data = [hub.written(_publish(hub, text, topic)) for text in "ab"]
        hub.note_raw(b"".join(data))
        connection.send(b"".join(data))
        for number in range(2):
            answer = connection.answer()
            expect(answer.is_accepted, f"publish {number + 1} is answered with {answer.status}")
        found = [message.data for message in stream.take(2)]
        expect(found == ["a", "b"], f"received {found}")


@check("http.absolute_target", "A target in absolute form is understood", source="RFC 9112 3.2.2")
def absolute_target(case: Case) -> None:
    hub = case.hub
    request = hub.adapter.listen([hub.topic()])
    target = f"http://{hub.authority}{request.target}"
    data = hub.written(Request("GET", target, request.headers))
    hub.note_raw(data)
    with hub.connect() as connection:
        connection.send(data)
        status, _ = connection.head()
    expect(status == 200, f"answered with {status}")


@check("http.header_case", "Header names have no case", source="RFC 9110 5.1", needs=["resume"])
def header_case(case: Case) -> str | None:
    hub, topic = case.hub, case.hub.topic()
    with hub.listen(topic) as stream:
        hub.send(topic, "first")
        stream.next()
        place = stream.place
    if hub.adapter.captures:
        return "the place is no header"
    hub.send(topic, "missed")
    request = hub.adapter.listen([topic])
    data = hub.written(Request("GET", request.target, (*request.headers, ("LAST-EVENT-ID", place))))
    hub.note_raw(data)
    with hub.connect() as connection:
        connection.send(data)
        body = b""
        while b"missed" not in body:
            more = connection.receive()
            expect(more, "the stream ended")
            body += more
    return None


@check("http.old_version", "An HTTP/1.0 client gets a stream without chunks", source="RFC 9112 7.1")
def old_version(case: Case) -> str:
    hub, topic = case.hub, case.hub.topic()
    data = hub.written(hub.adapter.listen([topic])).replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)
    hub.note_raw(data)
    with hub.connect() as connection:
        connection.send(data)
        status, headers = connection.head()
        if status in (426, 505):
            return f"refused with {status}"
        expect(status == 200, f"answered with {status}")
        expect("transfer-encoding" not in headers, "the answer has chunks")
        hub.send(topic, END)
        body = b""
        while END.encode() not in body:
            more = connection.receive()
            expect(more, "the stream ended")
            body += more
    return "without chunks"


@check("http.expect_continue", "Expect: 100-continue holds nothing up", source="RFC 9110 10.1.1")
def expect_continue(case: Case) -> str:
    hub = case.hub
    request = _publish(hub, "continued")
    body = request.body or b""
    headers = [
        *_headers(hub, request),
        ("Content-Length", str(len(body))),
        ("Expect", "100-continue"),
    ]
    data = request_bytes(request.method, request.target, headers)
    hub.note_raw(data)
    with hub.connect() as connection:
        connection.send(data)
        status, _ = connection.head()
        if status == 100:
            connection.send(body)
            expect(connection.answer().is_accepted, "refused behind 100 Continue")
            return "100 Continue"
        expect(status >= 200, f"answered with {status}")
        return f"answered with {status} at once"


@check("http.methods", "A method that is not served is refused", source="RFC 9110 15.5.6")
def methods(case: Case) -> str:
    request = case.hub.adapter.listen([case.hub.topic()])
    return _refused(case, case.hub.written(Request("BREW", request.target, request.headers, b"")))


@check("http.garbage", "What is not HTTP is refused, and the hub goes on")
def garbage(case: Case) -> str:
    seen = _refused(
        case, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40 + b"\r\n\r\n"
    )
    hub, topic = case.hub, case.hub.topic()
    with hub.listen(topic) as stream:
        hub.send(topic, END)
        stream.until(END)
    return seen
