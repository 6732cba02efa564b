"""The end of a topic: what is refused then, and how streams end."""

import httpx
import pytest

from tests.http.raw import connected, get, request, until

NDJSON = "Content-Type: application/x-ndjson"


async def read_all(raw) -> tuple[int, str]:
    """Status and body of an answer that is over, which its last chunk says."""
    status, headers = await raw.head()
    body = b""
    rest = await raw.rest()
    assert status == 204 or headers["transfer-encoding"] == "chunked"
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length + 2 :]
    assert status == 204 or size == b"0"
    return status, body.decode()


@pytest.mark.parametrize("way", ["route", "last event", "last line"])
async def test_streams_of_an_ended_topic_get_its_end_and_are_over(ask, server, way) -> None:
    async with connected(server) as raw:
        await raw.send(get("/events?topic=run/1"))
        await until(lambda: server.stream_count == 1)
        await ask("POST", "/events?topic=run/1", body=b"one")
        if way == "route":
            answer = await ask("POST", "/topics/end?topic=run/1", body=b"")
            assert answer.status == 200
        elif way == "last event":
            await ask("POST", "/events?topic=run/1&end=true", body=b"two")
        else:
            body = b'{"topic": "run/1", "data": "two", "end": true}'
            await ask("POST", "/events", NDJSON, body=body)
        status, body = await read_all(raw)
    assert status == 200
    *_, last = body.strip().split("\n\n")
    assert last.startswith("event: fastsse.end\nid: ")
    assert last.endswith('data: {"topic":"run/1"}')
    assert ("data: two" in body) is (way != "route")
    if way == "route":
        assert answer.json["id"] in last


async def test_an_ended_topic_takes_no_more_events_on_any_interface(ask, server) -> None:
    end = (await ask("POST", "/topics/end?topic=run", body=b"")).json["id"]
    for path, headers, body in (
        ("/events?topic=run", (), b"x"),
        ("/events?topic=a&topic=run", (), b"x"),
        ("/events", (NDJSON,), b'{"topic": "a", "data": 1}\n{"topic": "run", "data": 2}'),
        (
            "/.well-known/mercure",
            ("Content-Type: application/x-www-form-urlencoded",),
            b"topic=run&data=x",
        ),
    ):
        answer = await ask("POST", path, *headers, body=body)
        assert answer.status == 409
        assert answer.json["reason"] == "ended"
        assert answer.json["topic"] == "run"
    with pytest.raises(Exception, match="has ended"):
        server.publish("run", "x")
    assert (await ask("POST", "/topics/end?topic=run", body=b"")).json["id"] == end
    assert await server.end_topic("run") == end
    assert (await ask("POST", "/events?topic=a", body=b"x")).status == 200


async def test_a_new_reader_of_an_ended_topic_gets_history_and_the_end(ask, server) -> None:
    await ask("POST", "/events?topic=run", body=b"one")
    await ask("POST", "/events?topic=run&end=true", body=b"two")
    for query, expected in (("&last_event_id=earliest", ["one", "two"]), ("&last=1", ["two"])):
        async with connected(server) as raw:
            await raw.send(get(f"/events?topic=run{query}"))
            status, body = await read_all(raw)
        assert status == 200
        data = [line[6:] for line in body.split("\n") if line.startswith("data: ")]
        assert data == [*expected, '{"topic":"run"}']


async def test_a_return_with_everything_gets_204_and_one_that_misses_something_does_not(
    ask, server
) -> None:
    first = (await ask("POST", "/events?topic=run", body=b"one")).json["id"]
    last = (await ask("POST", "/events?topic=run&end=true", body=b"two")).json["id"]
    end = (await ask("POST", "/topics/end?topic=run", body=b"")).json["id"]
    for place, status in ((end, 204), (last, 204), (first, 200)):
        for path in ("/events?topic=run", "/.well-known/mercure?topic=run"):
            async with connected(server) as raw:
                await raw.send(get(path, f"Last-Event-ID: {place}", "Origin: https://a.example"))
                found, body = await read_all(raw)
            assert found == status
            assert ("two" in body) is (status == 200)


async def test_a_stream_that_follows_an_open_topic_too_goes_on(ask, server) -> None:
    async with connected(server) as raw, connected(server) as other:
        await raw.send(get("/events?topic=a&topic=b"))
        await other.send(get("/events?topic=*"))
        stream, everything = await raw.stream(), await other.stream()
        await ask("POST", "/topics/end?topic=a", body=b"")
        await ask("POST", "/events?topic=b", body=b"on")
        assert (await stream.next()).data == "on"
        assert (await everything.next()).data == "on"
        await ask("POST", "/topics/end?topic=b", body=b"")
        assert (await stream.next()).type == "fastsse.end"


@pytest.mark.parametrize(
    "path",
    [
        "/events?topic=a&since=earliest",
        "/.well-known/mercure?topic=a",
        "/streams/a?live=sse&offset=now",
    ],
)
async def test_a_client_sends_no_request_on_the_connection_of_a_stream(server, path) -> None:
    """The server closes it behind the stream: a pool that has kept it fails now and then."""
    async with httpx.AsyncClient(base_url=server.addresses[0], trust_env=False) as client:
        await client.put("/streams/a", headers={"Content-Type": "text/plain"})
        async with client.stream("GET", path) as stream:
            assert stream.headers["connection"] == "close"
            assert stream.headers["transfer-encoding"] == "chunked"
            await client.post("/topics/end?topic=a")
            await stream.aread()


async def test_quiet_readers_get_a_clean_end_without_an_event(ask, server) -> None:
    async with connected(server) as raw:
        await raw.send(get("/.well-known/mercure?topic=run"))
        await until(lambda: server.stream_count == 1)
        await ask("POST", "/events?topic=run&end=true", body=b"one")
        status, body = await read_all(raw)
    assert status == 200
    assert "fastsse" not in body.replace(": fastsse", "")
    assert "data: one" in body


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/topics/end", b"", "topic"),
        ("/topics/end?topic=", b"", "topic"),
        ("/topics/end?topic=a&id=1", b"", "id"),
        ("/topics/end?topic=$sys", b"", "topic"),
        ("/topics/end?topic=a", b"x", "body"),
        ("/events?topic=a&end=perhaps", b"x", "end"),
        ("/events?topic=a&end=true&end=true", b"x", "end"),
    ],
)
async def test_an_end_that_can_not_be_is_refused(ask, path, body, field) -> None:
    answer = await ask("POST", path, body=body)
    assert (answer.status, answer.field) == (400, field)


async def test_a_topic_of_which_nothing_is_kept_is_open_again(start) -> None:
    server = await start(history_events=2)
    await server.end_topic("run")
    with pytest.raises(Exception, match="has ended"):
        server.publish("run", "x")
    async with connected(server) as raw:
        # Another topic does not matter; its own history does, which `history_events` bounds.
        for n in range(3):
            server.publish("other", str(n))
        await raw.send(request("POST", "/events?topic=run", body=b"x"))
        assert (await raw.answer()).status == 409
