"""Wire format: the grammar of event streams, and that no text can leave its field."""

from __future__ import annotations

import threading

from sse_conformance.hub import Hub
from sse_conformance.registry import Case, NotSupported, check, expect

HTML = "HTML 9.2"
#: A last event: what has not come before it does not come.
END = "the-end"
TEXT = "text"
#: Problems that data makes; unknown fields are a check of their own.
_OF_DATA = ("not UTF-8", "an id with NUL")
EVIL = "event: forged{0}data: forged{0}{0}"


def received(hub: Hub, *texts: str | bytes, **fields: str | None) -> list[str] | None:
    """What a subscriber receives of these texts; None when the hub refuses one."""
    topic = hub.topic()
    with hub.listen(topic) as stream:
        for text in texts:
            answer = hub.publish(topic, text, **fields)  # type: ignore[arg-type]
            if answer.is_refused:
                return None
            expect(answer.is_accepted, f"a publish was answered with {answer.status}")
        hub.send(topic, END)
        found = stream.until(END)
        problems = [text for text in stream.parsed.problems if text.startswith(_OF_DATA)]
        expect(not problems, "; ".join(problems[:3]))
        return [message.data for message in found]


def arrives(case: Case, text: str) -> str | None:
    """The check of one text, which a hub may also refuse. Line ends may become LF: an event stream
    has no other way, a JSON text has."""
    found = received(case.hub, text)
    if found is None:
        return "refused with 4xx"
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    expect(found in ([text], [lines]), f"received {_brief(found)}")
    return None


def _brief(found: list[str]) -> str:
    return repr([text if len(text) < 80 else f"{text[:60]}… ({len(text)})" for text in found])


@check("wire.head", "A stream is 200 with text/event-stream, in UTF-8", source=HTML)
def head(case: Case) -> None:
    with case.hub.subscribe(case.hub.topic()) as stream:
        kind = stream.headers.get("content-type", "").lower().replace(" ", "")
        expect(stream.status == 200, f"the status is {stream.status}")
        allowed = ("text/event-stream", "text/event-stream;charset=utf-8")
        expect(kind in allowed, f"Content-Type is {kind!r}")


@check("wire.head_at_once", "The response head comes before the first event", source=HTML)
def head_at_once(case: Case) -> None:
    # Stream.__init__ waits for the head; nothing is published.
    case.hub.listen(case.hub.topic()).close()


@check("wire.not_cached", "Caches may not keep the stream", source="RFC 9111 5.2.2")
def not_cached(case: Case) -> None:
    with case.hub.listen(case.hub.topic()) as stream:
        control = stream.headers.get("cache-control", "")
        expect("no-store" in control or "no-cache" in control, f"Cache-Control is {control!r}")


@check("wire.framing", "The body is chunked, or ends with the connection", source="RFC 9112 6.3")
def framing(case: Case) -> str:
    with case.hub.listen(case.hub.topic()) as stream:
        expect("content-length" not in stream.headers, "a stream has a Content-Length")
        coding = stream.headers.get("transfer-encoding", "").lower()
        expect(coding in ("", "chunked"), f"Transfer-Encoding is {coding!r}")
        return coding or "ends with the connection"


@check("wire.fields", "The stream has only fields of the standard", source=HTML)
def fields(case: Case) -> None:
    topic = case.hub.topic()
    with case.hub.listen(topic) as stream:
        case.hub.send(topic, "a", END)
        stream.until(END)
        expect(not stream.parsed.problems, "; ".join(stream.parsed.problems[:3]))


@check("wire.line_feeds", "Data of several lines arrives as such", source=HTML)
def line_feeds(case: Case) -> str | None:
    return arrives(case, "one\ntwo\n\nfour")


@check("wire.line_ends", "CRLF and CR in data arrive as line ends", source=HTML)
def line_ends(case: Case) -> str | None:
    return arrives(case, "one\r\ntwo\rthree")


@check("wire.spaces", "Spaces at the edges of data are kept", source=HTML)
def spaces(case: Case) -> str | None:
    return arrives(case, "  two before, two after  ")


@check("wire.colons", "Data that looks like a field or a comment stays data", source=HTML)
def colons(case: Case) -> str | None:
    return arrives(case, ": no comment\ndata: x\nid: 7\nretry: 1")


@check("wire.last_line", "Line ends at the end of data are kept", source=HTML)
def last_line(case: Case) -> str | None:
    return arrives(case, "one\n\n")


@check("wire.empty", "Empty data is an event, or refused", source=HTML)
def empty(case: Case) -> str | None:
    return arrives(case, "")


@check("wire.utf8", "Text of all planes arrives unchanged", source=HTML)
def utf8(case: Case) -> str | None:
    return arrives(case, "\u00e9 \u4e2d \U0001f600 \u2028 \u0085 \ufeff \u200d e\u0301")


@check("wire.not_utf8", "Bytes that are not UTF-8 never reach a stream", source=HTML)
def not_utf8(case: Case) -> str | None:
    if not case.hub.adapter.takes_bytes:
        return "publishes are JSON"
    # `received` fails on a stream that is not UTF-8.
    found = received(case.hub, b"a\xff\xfe\xc3(")
    return "refused with 4xx" if found is None else f"sent as {found}"


@check("wire.nul", "NUL in data arrives, or is refused", source=HTML)
def nul(case: Case) -> str | None:
    return arrives(case, "a\0b")


def _injected(case: Case, end: str) -> str | None:
    return arrives(case, f"x{end}{end}{EVIL.format(end)}y")


@check("wire.inject_lf", "LF in data forges no event", source=HTML)
def inject_lf(case: Case) -> str | None:
    return _injected(case, "\n")


@check("wire.inject_cr", "CR in data forges no event", source=HTML)
def inject_cr(case: Case) -> str | None:
    return _injected(case, "\r")


@check("wire.inject_crlf", "CRLF in data forges no event", source=HTML)
def inject_crlf(case: Case) -> str | None:
    return _injected(case, "\r\n")


def _injected_field(case: Case, name: str) -> str | None:
    """Line ends in a field are refused, or end up where no event is forged."""
    hub = case.hub
    remarks = set()
    for end in ("\n", "\r", "\r\n"):
        topic = hub.topic()
        with hub.listen(topic) as stream:
            value = f"a{end}data: forged{end}{end}data: forged{end}{end}"
            if _in_header(case, name):
                raise NotSupported("the field is sent as a header, which has no line ends")
            hub.publish(topic, TEXT, **{name: value})  # type: ignore[arg-type]
            hub.send(topic, END)
            found = [message.data for message in stream.until(END)]
            expect(all("forged" not in data for data in found), f"{end!r} forged {found}")
            remarks.add("refused" if not found else "sent without it")
    return ", ".join(sorted(remarks))


def _in_header(case: Case, name: str) -> bool:
    ours = {"type": "event"}.get(name, name)
    return case.hub.adapter.sends_in_header(ours)


@check("wire.inject_type", "Line ends in an event type forge nothing", source=HTML,
       needs=["event_type"])  # fmt: skip
def inject_type(case: Case) -> str | None:
    return _injected_field(case, "type")


@check("wire.inject_id", "Line ends in an id forge nothing", source=HTML, needs=["own_id"])
def inject_id(case: Case) -> str | None:
    return _injected_field(case, "id")


@check("wire.type", "An event type arrives", source=HTML, needs=["event_type"])
def type_(case: Case) -> None:
    topic = case.hub.topic()
    with case.hub.listen(topic) as stream:
        answer = case.hub.publish(topic, TEXT, type="tick")
        expect(answer.is_accepted, f"a publish was answered with {answer.status}")
        expect(stream.next().type == "tick", "the event has another type")


@check("wire.own_id", "An id of the publisher arrives", source=HTML, needs=["own_id"])
def own_id(case: Case) -> None:
    topic = case.hub.topic()
    with case.hub.listen(topic) as stream:
        answer = case.hub.publish(topic, TEXT, id=f"mine-{topic}")
        expect(answer.is_accepted, f"a publish was answered with {answer.status}")
        expect(stream.next().id == f"mine-{topic}", "the event has another id")


@check("wire.nul_in_id", "An id with NUL never reaches a stream", source=HTML, needs=["own_id"])
def nul_in_id(case: Case) -> str:
    if _in_header(case, "id"):
        raise NotSupported("the field is sent as a header, which has no NUL")
    found = received(case.hub, TEXT, id="a\0b")
    return "refused with 4xx" if found is None else "sent without it"


@check("wire.large", "An event of 500 KB arrives whole, or is refused")
def large(case: Case) -> str | None:
    return arrives(case, "0123456789" * 50_000)


@check("wire.many_lines", "An event of 5,000 lines arrives whole, or is refused")
def many_lines(case: Case) -> str | None:
    return arrives(case, "\n".join(map(str, range(5_000))))


@check("wire.whole_events", "Events of publishers at the same time do not mix")
def whole_events(case: Case) -> None:
    hub, topic = case.hub, case.hub.topic()
    texts = [f"{letter}\n" * 200 + letter for letter in "abcd"]
    repeats = 3 if case.is_short else 15

    def publish(text: str) -> None:
        for _ in range(repeats):
            hub.publish(topic, text)
        hub.hang_up()

    with hub.listen(topic) as stream:
        threads = [threading.Thread(target=publish, args=(text,)) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        hub.send(topic, END)
        found = [message.data for message in stream.until(END)]
    expect(sorted(found) == sorted(texts * repeats), f"{len(found)} events, or mixed ones")


@check("wire.heartbeat", "A quiet stream sends something within 20 s", is_long=True)
def heartbeat(case: Case) -> str:
    with case.hub.listen(case.hub.topic()) as stream:
        stream.settle()
        before = len(stream.body)
        stream.read(20.0)
        expect(len(stream.body) > before, "the stream ended")
        return f"{len(stream.body) - before} bytes"
