"""What `GET /events` can ask for, and where its stream begins."""

import re

import pytest

from fastsse.api.access import OpenAccess
from fastsse.http.cors import Cors
from tests.http.raw import Stream, connected, get

NOW_MS = 1_800_000_000_000
ANYONE = OpenAccess(None, Cors((), cross_publish=False))


async def streamed(server, path: str, *headers: str, count: int) -> list[str]:
    """The data of the first events of a stream."""
    async with connected(server) as raw:
        await raw.send(get(path, *headers))
        stream = await raw.stream()
        return [(await stream.next()).data for _ in range(count)]


async def first_event(server, path: str, *headers: str):
    async with connected(server) as raw:
        await raw.send(get(path, *headers))
        return await (await raw.stream()).next()


@pytest.fixture
def ids(server) -> list[str]:
    """Of five events, `0` to `4`."""
    return [server.publish("a", str(n)) for n in range(5)]


SPELLINGS = [
    "last_event_id",
    "lastEventID",
    "lastEventId",
    "lasteventid",
    "LAST_EVENT_ID",
    "last-event-id",
    "Last-Event-ID",
    "evs_last_event_id",
    "EVS-Last-Event-Id",
]


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("path", ["/events", "/.well-known/mercure"])
async def test_stream_resumes_after_an_id_in_the_query(server, ids, path, name) -> None:
    async with connected(server) as raw:
        await raw.send(get(f"{path}?topic=a&{name}={ids[2]}"))
        stream = Stream(raw.reader, (await raw.head())[1])
        assert [(await stream.next()).data for _ in range(2)] == ["3", "4"]
        assert stream.parsed.comments in ([" fastsse"], [""])


async def test_offset_minus_one_is_all_that_is_kept(server, ids) -> None:
    """Clients of Durable Streams ask so."""
    data = await streamed(server, "/events?topic=a&offset=-1", count=5)
    assert data == ["0", "1", "2", "3", "4"]
    assert await streamed(server, f"/events?topic=a&offset=-1&lastEventId={ids[3]}", count=1) == [
        "4"
    ]


UNKNOWN = {
    "topics=b": "the parameter topics is unknown; did you mean topic?",
    "topic[]=b": "the parameter topic[] is unknown; did you mean topic?",
    "Topic=b": "the parameter Topic is unknown; did you mean topic?",
    "channel=b": "the parameter channel is unknown; did you mean topic?",
    "from=7": "the parameter from is unknown; did you mean since?",
    "offset=7": "the parameter offset is unknown; did you mean last_event_id?",
    "offset=now": "the parameter offset is unknown; did you mean last_event_id?",
    "type=tick": "the parameter type is unknown",
    "initialId=1": "the parameter initialId is unknown; did you mean initial_id?",
    "filtre=x": "the parameter filtre is unknown; did you mean filter?",
    "maxRate=5": "the parameter maxRate is unknown; did you mean max_rate?",
    "lastEach=1": "the parameter lastEach is unknown; did you mean last_each?",
    "r=.5": "the parameter r is unknown",
    "a%0adata:%20x=1": "a parameter is unknown",
    "%00=1": "a parameter is unknown",
    "topic=b,c": "a topic with a comma is one topic; ask for several as topic=a&topic=b",
}


@pytest.mark.parametrize("query", UNKNOWN)
async def test_unknown_parameter_is_answered_with_a_comment(server, ids, query) -> None:
    """A comment ends no EventSource and breaks no reader of JSON."""
    async with connected(server) as raw:
        await raw.send(get(f"/events?topic=a&last=1&{query}"))
        stream = await raw.stream()
        assert (await stream.next()).data == "4"
        assert stream.parsed.comments == [" fastsse", f" fastsse: {UNKNOWN[query]}"]
    async with connected(server) as raw:
        await raw.send(get("/metrics"))
        assert b"\nfastsse_unknown_parameters_total 1.0\n" in (await raw.answer()).body


async def test_unknown_parameter_is_answered_with_a_comment_on_mercures_path(server) -> None:
    async with connected(server) as raw:
        await raw.send(get("/.well-known/mercure?topic=a&topics=b&last=1"))
        stream = Stream(raw.reader, (await raw.head())[1])
        await stream.opening()
        assert stream.parsed.events == []
        assert stream.parsed.comments == [
            "",
            f" fastsse: {UNKNOWN['topics=b']}",
            " fastsse: the parameter last is unknown",
        ]


async def test_comments_about_unknown_parameters_are_few_and_hold_no_values(server) -> None:
    async with connected(server) as raw:
        many = "&".join(f"unknown{n}=secret" for n in range(50))
        await raw.send(get(f"/events?topic=a&{many}"))
        opening = await (await raw.stream()).opening()
        assert opening.count(b"is unknown") == 8
        assert b"secret" not in opening


@pytest.mark.parametrize("query", ["topic=a{?b,c}", "topic=a&_=123", "topic=*", "topic=a&last=1"])
async def test_what_means_something_is_not_commented(server, query) -> None:
    async with connected(server) as raw:
        await raw.send(get(f"/events?{query}"))
        assert b"unknown" not in await (await raw.stream()).opening()


async def test_missing_topic_is_refused_with_the_parameter_that_was_meant(server) -> None:
    async with connected(server) as raw:
        await raw.send(get("/events?topics=a"))
        answer = await raw.answer()
        assert (answer.status, answer.field) == (400, "topic")
        assert "did you mean topic?" in answer.json["detail"]


async def test_stream_resumes_after_the_header(server, ids) -> None:
    header = f"Last-Event-ID: {ids[1]}"
    assert await streamed(server, "/events?topic=a", header, count=3) == ["2", "3", "4"]


async def test_header_wins_over_the_query(server, ids) -> None:
    path = f"/events?topic=a&last_event_id={ids[0]}&last=5"
    assert await streamed(server, path, f"Last-Event-ID: {ids[3]}", count=1) == ["4"]


async def test_id_in_the_query_wins_over_since_and_last(server, ids) -> None:
    path = f"/events?topic=a&last_event_id={ids[3]}"
    assert await streamed(server, path + "&last=5", count=1) == ["4"]
    assert await streamed(server, path + "&since=1h", count=1) == ["4"]


async def test_id_that_a_library_appended_wins_over_the_page_s_own(server, ids) -> None:
    path = f"/events?topic=a&last_event_id={ids[0]}&lastEventId={ids[3]}"
    assert await streamed(server, path, count=1) == ["4"]


async def test_empty_header_is_none(server, ids) -> None:
    assert await streamed(server, "/events?topic=a&last=1", "Last-Event-ID:", count=1) == ["4"]
    assert await streamed(server, "/events?topic=a&last=1", "Last-Event-ID:  ", count=1) == ["4"]


@pytest.mark.parametrize(
    "query", ["last_event_id=earliest", "since=earliest", "since=1h", "last=99"]
)
async def test_stream_begins_with_all_that_is_kept(server, ids, query) -> None:
    data = await streamed(server, f"/events?topic=a&{query}", count=5)
    assert data == ["0", "1", "2", "3", "4"]


async def test_last_gives_the_newest(server, ids) -> None:
    assert await streamed(server, "/events?topic=a&last=2", count=2) == ["3", "4"]


async def test_header_holds_utf8(server) -> None:
    server.publish("a", "0", id="schlüssel-…")
    server.publish("a", "1")
    header = "Last-Event-ID: schlüssel-…"
    assert await streamed(server, "/events?topic=a", header, count=1) == ["1"]


@pytest.mark.parametrize(
    "header",
    [b"x" * 257, b"x" * 10_000, b"\xff\xfe", b"no such id", b"99999999999999-1", b"a\tb", b"0-0-0"],
)
async def test_id_that_can_not_be_resumed_is_a_gap_and_never_an_error(server, ids, header) -> None:
    """An error would end an EventSource for good, and only a reconnect holds such an id."""
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a")[:-2] + b"Last-Event-ID: " + header + b"\r\n\r\n")
        stream = await raw.stream()
        assert (await stream.next()).type == "fastsse.gap"
        server.publish("a", "live")
        assert (await stream.next()).data == "live"


async def test_several_topics_and_all(server) -> None:
    for topic in "abc":
        server.publish(topic, topic)
    assert await streamed(server, "/events?topic=a&topic=c&topic=a&last=9", count=2) == ["a", "c"]
    assert await streamed(server, "/events?topic=*&last=9", count=3) == ["a", "b", "c"]


async def test_topics_are_decoded_as_browsers_write_them(server) -> None:
    server.publish("a b/ü{x}?", "x")
    for written in ("a+b/%C3%BC{x}?", "a%20b%2F%c3%bc%7Bx%7D%3F"):
        assert await streamed(server, f"/events?last=1&topic={written}", count=1) == ["x"]


async def opened(server, path: str, *headers: str) -> bytes:
    """The opening block."""
    async with connected(server) as raw:
        await raw.send(get(path, *headers))
        return await (await raw.stream()).opening()


EVENT_SOURCE = ("Accept: text/event-stream", "Cache-Control: no-cache")
BLOCK, LINE, DATA = rb"id: \d+-\d+\n\n", rb"id: \d+-\d+\n", rb"id: \d+-\d+\ndata:\n\n"
OPENINGS = [
    ((), BLOCK),
    (EVENT_SOURCE, BLOCK),
    ((*EVENT_SOURCE, "Sec-Fetch-Mode: cors", "Pragma: no-cache"), BLOCK),
    (("Accept: text/event-stream",), BLOCK),
    (("Accept: */*",), BLOCK),
    (("Accept: application/json",), LINE),
    (("Accept: text/event-stream", "Cache-Control: no-store"), LINE),
    (("Accept: text/event-stream", "Sec-Fetch-Mode: cors"), LINE),
    (("Accept: */*", "Sec-Fetch-Mode: cors"), LINE),
]


@pytest.mark.parametrize(("headers", "ending"), OPENINGS)
async def test_opening_names_the_place_as_the_request_takes_it(server, headers, ending) -> None:
    server.publish("a", "x")
    begin = rb": fastsse\nretry: 3000\n"
    for _ in range(2):
        assert re.fullmatch(begin + ending, await opened(server, "/events?topic=a", *headers))
    for text, wanted in (("true", BLOCK), ("data", DATA), ("DATA", DATA), ("false", b"")):
        path = f"/events?topic=a&initial_id={text}"
        assert re.fullmatch(begin + wanted, await opened(server, path, *headers))


@pytest.mark.parametrize(
    ("option", "ending"), [("true", BLOCK), ("data", DATA), ("false", b""), ("auto", LINE)]
)
async def test_option_decides_where_the_request_does_not(start, option, ending) -> None:
    server = await start(initial_id=option)
    opening = await opened(server, "/events?topic=a", "Accept: application/json")
    assert re.fullmatch(rb": fastsse\nretry: 3000\n" + ending, opening)
    opening = await opened(server, "/events?topic=a&initial_id=data")
    assert opening.endswith(b"data:\n\n")


async def test_stream_is_padded_and_beats_as_it_asked(server) -> None:
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a&heartbeat=2s&pad=1500"))
        stream = await raw.stream()
        opening = await stream.opening()
        assert opening.startswith(b": fastsse\nretry: 3000\n:" + b" " * 2046 + b"\nid: ")
        server._worker._sender.advance_clock(2000)
        await stream.read()
        assert stream.body[len(opening) :] == b":" + b" " * 2046 + b"\n"
        assert stream.parsed.events == []


@pytest.mark.parametrize(
    ("options", "query", "field"),
    [
        ({"min_heartbeat": "5s"}, "heartbeat=4s", "heartbeat"),
        ({"min_heartbeat": "1m"}, "heartbeat=30s", "heartbeat"),
        ({"max_pad": "1KiB"}, "pad=2KiB", "pad"),
        ({"max_pad": 0}, "pad=1", "pad"),
        ({"ping": "1s"}, "ping=true&fastsse=false", "ping"),
    ],
)
async def test_options_bound_what_a_stream_may_ask_for(start, options, query, field) -> None:
    server = await start(**options)
    async with connected(server) as raw:
        await raw.send(get(f"/events?topic=a&{query}"))
        answer = await raw.answer()
        assert (answer.status, answer.field) == (400, field)


async def test_opening_names_no_id_when_that_is_asked_for(server) -> None:
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a&initial_id=false"))
        assert await (await raw.stream()).opening() == b": fastsse\nretry: 3000\n"


INVALID = {
    "": "topic",
    "topic": "topic",
    "topic=": "topic",
    "topic=%00": "topic",
    "topic=a%0ab": "topic",
    "topic=%7f": "topic",
    "topic=%C2%85": "topic",
    "topic=$SYS": "topic",
    "topic=" + "a" * 1025: "topic",
    "topic=" + "%C3%BC" * 513: "topic",
    "&".join(f"topic={n}" for n in range(101)): "topic",
    "topic=a&last=x": "last",
    "topic=a&last=-1": "last",
    "topic=a&last=": "last",
    "topic=a&last=10001": "last",
    "topic=a&topic=b&last=5001": "last",
    "topic=a&last=99999999999999999999": "last",
    "topic=a&last=1&last=1": "last",
    "topic=a&last=1&since=1h": "last",
    "topic=a&since=": "since",
    "topic=a&since=yesterday": "since",
    "topic=a&since=600": "since",
    "topic=a&since=-1h": "since",
    "topic=a&since=2026-02-30T00:00:00Z": "since",
    "topic=a&since=2026-01-01": "since",
    "topic=a&since=2026-01-01T00:00:00": "since",
    "topic=a&since=1h&since=1h": "since",
    "topic=a&initial_id=maybe": "initial_id",
    "topic=a&initial_id=true&initial_id=true": "initial_id",
    "topic=a&offset=-1&last=1": "offset",
    "topic=a&fastsse=maybe": "fastsse",
    "topic=a&refuse=no": "refuse",
    "topic=a&refuse=": "refuse",
    "topic=a&heartbeat=": "heartbeat",
    "topic=a&heartbeat=0s": "heartbeat",
    "topic=a&heartbeat=500ms": "heartbeat",
    "topic=a&heartbeat=1.5s": "heartbeat",
    "topic=a&heartbeat=31s": "heartbeat",
    "topic=a&heartbeat=-1": "heartbeat",
    "topic=a&heartbeat=5s&heartbeat=5s": "heartbeat",
    "topic=a&pad=0": "pad",
    "topic=a&pad=x": "pad",
    "topic=a&pad=17KiB": "pad",
    "topic=a&pad=1e3": "pad",
}


@pytest.mark.parametrize("query", INVALID, ids=range(len(INVALID)))
@pytest.mark.parametrize("whole", [True, False])
async def test_wrong_subscription_is_refused_naming_the_field(server, query, whole) -> None:
    async with connected(server) as raw:
        await (raw.send if whole else raw.trickle)(get(f"/events?{query}"))
        answer = await raw.answer()
        assert (answer.status, answer.field) == (400, INVALID[query])
        await raw.send(get("/healthz"))
        assert (await raw.answer()).status == 200
    assert server.stream_count == 0


async def test_hundred_topics_are_allowed(server) -> None:
    async with connected(server) as raw:
        await raw.send(get("/events?" + "&".join(f"topic={n}" for n in range(100))))
        stream: Stream = await raw.stream()
        await stream.opening()
        server.publish("99", "x")
        assert (await stream.next()).data == "x"
