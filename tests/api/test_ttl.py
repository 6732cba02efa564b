"""Events with a time to live: no ring, page or cache sends them when it is over."""

import pytest

from tests.http.conftest import asked
from tests.http.raw import connected, get, until

JSON = "Content-Type: application/json"


async def kept(server, query: str = "&last_event_id=earliest") -> list[str]:
    """What a new reader gets up to a mark."""
    async with connected(server) as raw:
        await raw.send(get(f"/events?topic=a{query}"))
        stream = await raw.stream()
        data = []
        while (event := await stream.next()).data != "mark":
            data.append(event.data)
        return data


async def test_an_event_is_sent_until_its_time_is_over_and_that_is_no_gap(ask, server) -> None:
    clock = server._running._hub.history
    now_ms = clock.now_ms
    body = b'{"topic": "a", "data": "short", "ttl": 60}'
    assert (await ask("POST", "/events", JSON, body=body)).status == 200
    first = (await ask("POST", "/events?topic=a&ttl=1h", body=b"long")).json["id"]
    server.publish("a", "mark", ttl="2d")
    assert await kept(server) == ["short", "long"]
    assert await kept(server) == ["short", "long"]  # From the cache of pages.
    clock.now_ms = lambda: now_ms() + 61_000
    assert await kept(server) == ["long"]
    clock.now_ms = lambda: now_ms() + 3_601_000
    assert await kept(server) == []
    assert await kept(server, "&last=1") == []
    assert await kept(server, f"&last_event_id={first}") == []


async def test_a_stream_that_is_behind_is_not_sent_what_expired(start) -> None:
    server = await start(max_lag="64MiB", history_bytes="64MiB", max_event="64MiB")
    sender = server._running._sender
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a"))
        await raw.head()
        await until(lambda: server.stream_count == 1)
        for _ in range(64):
            server.publish("a", "x" * 200_000)
        await until(lambda: sender.counters()["blocked"] == 1)
        server.publish("a", "soon over", ttl=0.05)
        server.publish("a", "mark")
        await until(lambda: server._running._hub.history.is_expired(newest(server, 2)))
        await asked(server, "GET", "/healthz")
        body = b""
        while b"data: mark" not in body:
            body += await raw.reader.read(1 << 20)
    assert b"soon over" not in body


def newest(server, back: int):
    """A frame of the topic, counted from the newest."""
    frames = server._running._hub.topics.by_name["a"].log.frames
    return frames[-back]


@pytest.mark.parametrize(
    "value", ["0", "-1s", "", "1x", "99999999999", "true", "[1]", '"11y"', "1e400"]
)
async def test_a_time_to_live_that_can_not_be_is_refused(ask, value) -> None:
    body = b'{"topic": "a", "data": "", "ttl": %b}' % value.encode()
    in_json = await ask("POST", "/events", JSON, body=body)
    assert in_json.status == 400
    in_query = await ask("POST", f"/events?topic=a&ttl={value.strip(chr(34))}", body=b"x")
    assert (in_query.status, in_query.field) == (400, "ttl")
