"""What `POST /events` takes, what it answers, and what it refuses without changing anything."""

import pytest

from fastsse.errors import SchemaMismatch
from tests.api.published import FORM, JSON, NDJSON, newest, published_count
from tests.http.conftest import asked
from tests.http.raw import connected, get, request

# ── The topic in the query: the body is the data ──────────────────────────────────────────────


@pytest.mark.parametrize(
    "body",
    ["hello", "a\nb\r\nc\rd", '{"topic": "other"}', "﻿bom", "nul \0", "ünï 🎉", "x" * 20_000],
    ids=range(7),
)
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/json", "application/x-www-form-urlencoded", "?"]
)
async def test_body_is_the_data_untouched_whatever_its_type(ask, server, body, kind) -> None:
    answer = await ask("POST", "/events?topic=a", f"Content-Type: {kind}", body=body.encode())
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    event = (await newest(server))[0]
    assert event.data == body.replace("\r\n", "\n").replace("\r", "\n")
    assert answer.json == {"id": event.last_event_id}


async def test_largest_body_arrives_whole(ask, server) -> None:
    body = bytes(range(32, 127)) * (1024 * 1024 // 95)
    assert (await ask("POST", "/events?topic=a&id=big", body=body)).status == 200
    async with connected(server) as raw:
        await raw.send(b"GET /events?topic=a&last=1 HTTP/1.0\r\n\r\n")
        await raw.head()
        await raw.reader.readuntil(b"id: big\ndata: ")
        assert await raw.reader.readexactly(len(body) + 2) == body + b"\n\n"


@pytest.mark.parametrize("body", [None, b""])
async def test_publish_without_a_body_is_refused(ask, server, body) -> None:
    answer = await ask("POST", "/events?topic=a", body=body)
    assert (answer.status, answer.field) == (400, "body")
    assert await published_count(server) == 0
    empty = b'{"topic": "a", "data": ""}'
    assert (await ask("POST", "/events", JSON, body=empty)).status == 200
    assert (await newest(server))[0].data == ""


@pytest.mark.parametrize("path", ["/events?topic=a", "/events", "/.well-known/mercure"])
@pytest.mark.parametrize("accept", ["text/event-stream", "application/json, Text/Event-Stream"])
async def test_post_that_asks_for_a_stream_publishes_nothing(ask, server, path, accept) -> None:
    """The body is a question to a model, say, and no subscriber may read it."""
    body = b'{"topic": "a", "data": "my secret prompt"}'
    answer = await ask("POST", path, f"Accept: {accept}", JSON, body=body)
    assert (answer.status, answer.field) == (406, "Accept")
    assert "GET" in answer.json["detail"]
    assert await published_count(server) == 0


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/*", ""])
async def test_post_that_takes_any_answer_publishes(ask, server, accept) -> None:
    answer = await ask("POST", "/events?topic=a", f"Accept: {accept}", body=b"x")
    assert answer.status == 200


async def test_event_stream_as_a_body_of_mercure_is_refused(ask, server) -> None:
    kind = "Content-Type: text/event-stream; charset=utf-8"
    answer = await ask("POST", "/.well-known/mercure", kind, body=b"data: one\n\ndata: two\n\n")
    assert (answer.status, answer.field) == (415, "Content-Type")
    assert "accept-post" in answer.headers
    assert await published_count(server) == 0


@pytest.mark.parametrize("kind", ["error", "open"])
async def test_publisher_is_warned_of_a_type_that_eventsource_has_itself(ask, kind) -> None:
    line = b'{"topic": "a", "data": "x", "event": "%b"}\n' % kind.encode()
    for path, *rest in (
        (f"/events?topic=a&event={kind}", "Content-Type: text/plain"),
        ("/events", JSON),
        ("/events", NDJSON),
    ):
        answer = await ask("POST", path, *rest, body=line)
        assert answer.status == 200
        assert f"the type {kind} collides" in answer.headers["fastsse-warning"]
    answer = await ask("POST", "/events?topic=a&event=errors", body=b"x")
    assert "fastsse-warning" not in answer.headers


async def test_query_gives_type_id_and_retry(ask, server) -> None:
    path = "/events?topic=a&topic=b%2Fc&event=tick&id=n%C3%BC%221&retry=4000"
    assert (await ask("POST", path, body=b"x")).json == {"id": 'nü"1'}
    async with connected(server) as raw:
        await raw.send(get("/events?topic=b/c&last=1"))
        stream = await raw.stream()
        event = await stream.next()
    assert (event.type, event.last_event_id) == ("tick", 'nü"1')
    assert stream.parsed.retry_ms == 4000


@pytest.mark.parametrize(("asked", "given"), [("1", 1000), ("99999999", 3_600_000)])
async def test_retry_is_clamped(ask, server, asked, given) -> None:
    await ask("POST", f"/events?topic=a&retry={asked}", body=b"x")
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a&last=1"))
        stream = await raw.stream()
        await stream.next()
    assert stream.parsed.retry_ms == given


REFUSED_QUERIES = {
    "topic=": "topic",
    "topic=a&topic=": "topic",
    "topic=%0a": "topic",
    "topic=%24SYS": "topic",
    "topic=" + "a" * 1025: "topic",
    "&".join(f"topic={n}" for n in range(101)): "topic",
    "topic=a&event=a%0ab": "event",
    "topic=a&event=a%0db": "event",
    "topic=a&event=%00": "event",
    "topic=a&event=fastsse.gap": "event",
    "topic=a&event=a&event=a": "event",
    "topic=a&id=": "id",
    "topic=a&id=a%0ab": "id",
    "topic=a&id=a%0db": "id",
    "topic=a&id=a%00b": "id",
    "topic=a&id=12-3": "id",
    "topic=a&id=earliest": "id",
    "topic=a&id=" + "a" * 257: "id",
    "topic=a&id=a&id=b": "id",
    "topic=a&retry=": "retry",
    "topic=a&retry=1s": "retry",
    "topic=a&retry=-1": "retry",
    "topic=a&retry=%2B1": "retry",
    "topic=a&retry=1e3": "retry",
    "topic=a&evnt=tick": "evnt",
    "topic=a&TOPIC=b": "TOPIC",
    "event=tick": "event",
    "topic=%ff": "topic",
}


@pytest.mark.parametrize("query", REFUSED_QUERIES, ids=range(len(REFUSED_QUERIES)))
async def test_wrong_query_is_refused_naming_the_field(ask, server, query) -> None:
    answer = await ask("POST", f"/events?{query}", body=b"x")
    assert (answer.status, answer.field) == (400, REFUSED_QUERIES[query])
    assert await published_count(server) == 0


@pytest.mark.parametrize("body", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\x80"])
async def test_data_must_be_utf8(ask, server, body) -> None:
    answer = await ask("POST", "/events?topic=a", body=body)
    assert (answer.status, answer.field) == (400, "data")
    assert await published_count(server) == 0


# ── Refusals and rights ───────────────────────────────────────────────────────────────────────


async def test_publish_is_refused_while_memory_is_full(start) -> None:
    server = await start(
        memory_limit="1MiB", history_total="512KiB", max_body="1MiB", lag_policy="skip"
    )
    async with connected(server) as raw:
        await raw.send(request("POST", "/events?topic=a", body=b"x" * (1024 * 1024)))
        answer = await raw.answer()
        assert (answer.status, answer.json["reason"]) == (503, "memory")
        assert int(answer.headers["retry-after"]) > 0
        await raw.send(request("POST", "/events?topic=a", body=b"small"))
        assert (await raw.answer()).status == 200


async def test_event_types_that_a_topic_forbids_are_refused(start) -> None:
    server = await start(topics=[{"match": "stocks/*", "event_types": "tick|halt"}])
    async with connected(server) as raw:
        await raw.send(request("POST", "/events?topic=stocks/x&event=buy", body=b"x"))
        answer = await raw.answer()
        assert (answer.status, answer.field) == (400, "event")
        await raw.send(request("POST", "/events?topic=stocks/x&event=tick", body=b"x"))
        assert (await raw.answer()).status == 200


@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        (None, 'Bearer realm="fastsse"'),
        ("Bearer wrong", 'Bearer realm="fastsse", error="invalid_token"'),
        ("Bearer s3cre", 'Bearer realm="fastsse", error="invalid_token"'),
        ("Bearer s3cret x", 'Bearer realm="fastsse", error="invalid_token"'),
        ("Bearer", 'Bearer realm="fastsse", error="invalid_token"'),
        ("s3cret", 'Bearer realm="fastsse", error="invalid_token"'),
        ("Basic s3cret", 'Bearer realm="fastsse", error="invalid_token"'),
    ],
)
async def test_publishing_needs_the_token(start, authorization, challenge) -> None:
    server = await start(publish_token="s3cret")
    headers = [] if authorization is None else [f"Authorization: {authorization}"]
    for body in (b"x", None):
        async with connected(server) as raw:
            await raw.send(request("POST", "/events?topic=a", *headers, body=body))
            answer = await raw.answer()
            assert (answer.status, answer.field) == (401, "Authorization")
            assert answer.headers["www-authenticate"] == challenge
            assert b"s3cret" not in answer.body
    assert await published_count(server) == 0


@pytest.mark.parametrize("authorization", ["Bearer s3cret", "bearer s3cret", "Bearer  s3cret "])
async def test_right_token_publishes(start, authorization) -> None:
    server = await start(publish_token="s3cret")
    async with connected(server) as raw:
        header = f"Authorization: {authorization}"
        await raw.send(request("POST", "/events?topic=a", header, body=b"x"))
        assert (await raw.answer()).status == 200


async def test_two_tokens_are_refused(start) -> None:
    server = await start(publish_token="s3cret")
    async with connected(server) as raw:
        both = ["Authorization: Bearer s3cret", "Authorization: Bearer s3cret"]
        await raw.send(request("POST", "/events?topic=a", *both, body=b"x"))
        assert (await raw.answer()).status == 401


SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}


@pytest.fixture
async def ruled(start):
    return await start(
        topics=[
            {"match": "orders/*", "data_schema": SCHEMA},
            {"match": "users/*", "types": ["user.login.*", "message"]},
        ]
    )


async def test_data_that_a_schema_refuses_is_422_with_a_pointer(ruled) -> None:
    for path, kind, body in (
        ("/events?topic=orders/1", JSON, b'{"n": "secret"}'),
        ("/events", JSON, b'{"topic": ["free", "orders/1"], "data": {"n": "secret"}}'),
        ("/.well-known/mercure", FORM, b"topic=orders/1&data=%7B%22n%22%3A%22secret%22%7D"),
    ):
        answer = await asked(ruled, "POST", path, kind, body=body)
        assert (answer.status, answer.field, answer.json["pointer"]) == (422, "data", "/n")
        assert answer.json["topic"] == "orders/1"
        assert b"secret" not in answer.body
    lines = b'{"topic":"orders/1","data":{"n":1}}\n{"topic":"orders/1","data":"x"}\n'
    answer = await asked(ruled, "POST", "/events", NDJSON, body=lines)
    assert (answer.status, answer.json["event"]) == (422, 2)
    answer = await asked(ruled, "POST", "/events?stream=true", NDJSON, body=lines)
    assert (answer.status, answer.json["count"], answer.json["pointer"]) == (422, 1, "")
    with pytest.raises(SchemaMismatch):
        ruled.publish("orders/1", {"n": None})
    ruled.publish("orders/1", {"n": 1})
    assert await published_count(ruled) == 2
    answer = await asked(ruled, "GET", "/metrics")
    assert b'fastsse_publish_refused_total{reason="schema"} 7.0' in answer.body


async def test_types_are_patterns_and_refused_ones_are_counted(ruled) -> None:
    for kind, status in (
        ("user.login.failed", 200),
        ("user.login.", 200),
        ("message", 200),
        ("", 200),
        ("user.login", 400),
        ("xuser.login.a", 400),
        ("Message", 400),
    ):
        answer = await asked(ruled, "POST", f"/events?topic=users/7&event={kind}", body=b"x")
        assert answer.status == status, kind
        assert status == 200 or answer.field == "event"
    answer = await asked(ruled, "GET", "/metrics")
    assert b'fastsse_publish_refused_total{reason="type"} 3.0' in answer.body
