"""An event stream as a body is taken apart into events, as a browser would."""

from hypothesis import given
from hypothesis import strategies as st

from fastsse.api.body_events import EventStreamEvents, Template
from tests.api.streamed_bodies import END, RELAY, chunk, reading, streaming
from tests.eventstream import parse
from tests.http.raw import connected, get, request

# ── Relays ────────────────────────────────────────────────────────────────────────────────────


async def test_event_stream_is_taken_apart_into_events(server) -> None:
    path = "/events?topic=run/1&event=token&meta=%7B%22n%22%3A1%7D"
    async with reading(server, "run/1") as stream, streaming(server, path, RELAY) as raw:
        await raw.send(chunk(b": hello\n\nid: 7\n\nretry: 5\r\ndata: one\r\r"))
        event = await stream.next()
        assert (event.data, event.type) == ("one", "token")
        assert "-" in event.last_event_id
        await raw.send(chunk(b"event: own\ndata: a\ndata\ndata:b\nid: 8\n") + chunk(b"\n"))
        event = await stream.next()
        assert (event.data, event.type) == ("a\n\nb", "own")
        await raw.send(chunk(b"event: fastsse.gap\ndata: {}\n\ndata: cut") + END)
        answer = await raw.answer()
        assert answer.json["count"] == 2
        assert answer.json["skipped"] == {"fastsse.gap": 1}


async def test_ids_of_the_stream_become_own_ids_if_asked(server) -> None:
    async with streaming(server, "/events?topic=a&ids=own", RELAY) as raw:
        await raw.send(chunk(b"id: x-1\ndata: 1\n\ndata: 2\n\nid\ndata: 3\n\nid: 5-1\ndata: 4\n\n"))
        answer = await raw.answer()
        assert (answer.status, answer.json["field"], answer.json["count"]) == (400, "id", 3)
        assert answer.json["first"] == "x-1"
        assert "-" in answer.json["last"] != "x-1"


async def test_stream_of_one_server_is_published_by_another(start) -> None:
    """What `curl -N upstream | curl -T - downstream` does."""
    upstream, downstream = await start(), await start()
    async with (
        reading(downstream) as stream,
        connected(upstream) as source,
        streaming(downstream, "/events?topic=a", RELAY) as raw,
        connected(upstream) as publisher,
    ):
        await source.send(get("/events?topic=up"))
        feed = await source.stream()
        await feed.opening()
        await raw.send(chunk(feed.body))
        for number in range(3):
            path = "/events?topic=up&event=tick"
            await publisher.send(request("POST", path, body=b"%d\nmore" % number))
            assert (await publisher.answer()).status == 200
            before = len(feed.body)
            await feed.next()
            await raw.send(chunk(feed.body[before:]))
            event = await stream.next()
            assert (event.data, event.type) == (f"{number}\nmore", "tick")


pieces = st.sampled_from(
    b"data|:| |\n|\r|\r\n|event|id|x|\n\n|\xef\xbb\xbf|\xff|retry: 5\n|data: y\n|\xc3\xa9|"
    b"data: z\n\n|: c\n|\0".split(b"|")
)


@given(st.lists(pieces, max_size=40), st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_relay_sees_the_events_that_a_browser_sees(body: list[bytes], sizes: list[int]) -> None:
    raw = b"".join(body)
    source = EventStreamEvents(Template("a", None, None, False, None, own_ids=False), 10_000)
    events, at, turn = [], 0, 0
    while at < len(raw):
        size = sizes[turn % len(sizes)]
        events += source.read(raw[at : at + size])
        at, turn = at + size, turn + 1
    seen = parse(raw).events
    if source.error is None:
        assert len(events) == len(seen)
    else:  # A type that is not allowed here.
        assert "\0" in seen[len(events)].type
    for event, message in zip(events, seen, strict=False):
        kind = "message" if event.event is None else event.event.decode()
        assert (event.data.decode(), kind) == (message.data, message.type)
