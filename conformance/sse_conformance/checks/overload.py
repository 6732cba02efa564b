"""Overload: what is refused is refused so that clients come back, and the hub goes on.

EventSource reconnects after a network error and after the end of a stream. Every status but 200
ends it for good (HTML 9.2.3), 429 and 503 too.
"""

from __future__ import annotations

from contextlib import ExitStack

from sse_conformance.hub import Hub, Stream
from sse_conformance.registry import Case, Failed, check, expect
from sse_conformance.wire import Connection, ProtocolError, request_bytes

END = "the-end"


def works(hub: Hub) -> None:
    """The hub still takes a subscriber and an event."""
    topic = hub.topic()
    with hub.listen(topic) as stream:
        hub.send(topic, END)
        stream.until(END)


@check("overload.full", "A subscriber over the limit is not ended for good", source="HTML 9.2.3",
       needs=["limited"], is_long=True)  # fmt: skip
def full(case: Case) -> str:
    with case.servers.started("limited") as server:
        hub = server.hub()
        hub.begin("overload.full")
        topic = hub.topic()
        with ExitStack() as stack:
            seen = "no limit was reached with 20 streams"
            for _ in range(20):
                try:
                    stream = stack.enter_context(hub.subscribe(topic))
                except (ProtocolError, OSError):
                    return "the connection is closed without an answer"
                if stream.status != 200:
                    raise Failed(f"answered with {stream.status}: EventSource gives up")
                if stream.headers.get("content-length") or _ends(stream):
                    seen = "200, and the end of the stream"
                    break
            if seen.startswith("no limit"):
                raise Failed(seen)
            retry = stream.parsed.retry_ms
        return seen + (f", retry: {retry}" if retry else "")


def _ends(stream: Stream) -> bool:
    stream.settle()
    return stream.is_ended


@check("overload.large_body", "A body over the limit is refused with 413, and the hub goes on",
       source="RFC 9110 15.5.14")  # fmt: skip
def large_body(case: Case) -> str:
    hub, topic = case.hub, case.hub.topic()
    with hub.listen(topic) as stream:
        try:
            answer = hub.publish(topic, "x" * (40 << 20))
        except (ProtocolError, OSError) as error:
            seen = f"the connection ended: {error}"
            answer = None
        hub.hang_up()
        if answer is not None and answer.is_accepted:
            return "40 MB are accepted"
        if answer is not None:
            expect(answer.is_refused, f"answered with {answer.status}")
            seen = f"answered with {answer.status}"
        hub.send(topic, END)
        stream.until(END)
    return seen


@check("overload.churn", "Clients that come and go leave the hub as it was")
def churn(case: Case) -> None:
    hub, topic = case.hub, case.hub.topic()
    for number in range(50 if case.is_short else 500):
        hub.listen(topic).close(reset=number % 2 == 1)
    works(hub)


@check("overload.half_requests", "Requests that stop in the middle block no other")
def half_requests(case: Case) -> None:
    hub = case.hub
    request = hub.adapter.listen([hub.topic()])
    written = hub.written(request)
    with ExitStack() as stack:
        for number in range(50):
            connection = stack.enter_context(hub.connect())
            connection.send(written[: number % (len(written) - 1) + 1])
        works(hub)


@check("overload.long_head", "A head of 4 MB is refused", source="RFC 6585 5")
def long_head(case: Case) -> str:
    hub = case.hub
    request = hub.adapter.listen([hub.topic()])
    headers = [("Host", hub.authority), *request.headers, ("X-Long", "x" * 4_000_000)]
    data = request_bytes("GET", request.target, headers)
    hub.note_raw(data)
    with hub.connect() as connection:
        seen = _refusal(connection, data)
    works(hub)
    return seen


def _refusal(connection: Connection, data: bytes) -> str:
    try:
        connection.send(data)
        status, _ = connection.head()
    except (ProtocolError, ConnectionError):
        return "the connection is closed without an answer"
    expect(400 <= status < 500, f"answered with {status}")
    return f"answered with {status}"


@check("overload.many_topics", "A thousand topics are no trouble", is_long=True)
def many_topics(case: Case) -> None:
    hub = case.hub
    for _ in range(1000):
        hub.send(hub.topic(), "x")
    works(hub)
