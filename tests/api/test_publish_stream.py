"""A streamed body is published while it arrives, and what was published is never in doubt."""

import asyncio
import json
import time

import jwt
import pytest

from fastsse.api import publish_stream
from tests.api.streamed_bodies import END, RELAY, chunk, reading, streaming
from tests.http.raw import Raw, connected, get, request, until

LINES = "Content-Type: application/x-ndjson"
ANSWERED = "Accept: application/x-ndjson"
SECRET = "a secret of the tests, which has at least 32 bytes"


def line(data: object, topic: str = "a", **fields: object) -> bytes:
    return json.dumps({"topic": topic, "data": data, **fields}).encode() + b"\n"


async def answered_lines(raw: Raw) -> list[dict]:
    """The next chunk of an answer, as lines."""
    size = int(await raw.reader.readuntil(b"\r\n"), 16)
    chunk = await raw.reader.readexactly(size + 2)
    return [json.loads(one) for one in chunk.splitlines() if one]


async def answered_line(raw: Raw) -> dict:
    (one,) = await answered_lines(raw)
    return one


async def metric(server, name: str) -> float:
    async with connected(server) as raw:
        await raw.send(get("/metrics"))
        text = (await raw.answer()).body.decode()
    return float(text.split(f"\n{name} ")[1].split("\n")[0])


async def test_each_line_is_published_as_it_comes(server) -> None:
    async with reading(server) as stream, streaming(server, "/events?stream=true", LINES) as raw:
        for number in range(3):
            await raw.send(chunk(line(number)))
            assert (await stream.next()).data == str(number)
        await raw.send(chunk(b'{"topic":"a",'))
        await raw.send(chunk(b'"data":"in two, and without a line end"}'))
        await raw.send(END)
        last = await stream.next()
        assert last.data.startswith("in two")
        answer = await raw.answer()
        assert (answer.status, answer.json["count"]) == (200, 4)
        assert answer.json["last"] == last.last_event_id
        # The connection goes on.
        await raw.send(request("POST", "/events?topic=a", body=b"next"))
        assert (await raw.answer()).status == 200


@pytest.mark.parametrize("wrong", [{"topic": "over"}, {"expect": "v9"}])
async def test_lines_before_a_refused_one_are_published_and_their_keys_known(server, wrong) -> None:
    server.publish("over", "last", end=True)
    lines = [line(number, key=str(number)) for number in range(4)]
    body = b"".join([*lines[:2], line("x", **{"topic": "a", **wrong}), *lines[2:]])
    answers = []
    for sent in (body, b"".join(lines), body):
        async with streaming(server, "/events?stream=true", LINES) as raw:
            await raw.send(chunk(sent) + END)
            answers.append(await raw.answer())
    status = 409 if "topic" in wrong else 412
    assert [answer.status for answer in answers] == [status, 200, status]
    assert [answer.json["count"] for answer in answers] == [2, 4, 2]
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a&wait=0&since=earliest"))
        kept = [event["data"] for event in (await raw.answer()).json["events"]]
    assert kept == [0, 1, 2, 3]


async def test_the_last_line_of_the_answer_is_one_that_no_rule_has_dropped(start) -> None:
    rules = [{"name": "d", "action": "drop", "topics": ["dropped"]}]
    server = await start(rules=rules)
    async with reading(server) as stream, streaming(server, "/events?stream=true", LINES) as raw:
        await raw.send(chunk(line("kept")))
        kept = await stream.next()
        await raw.send(chunk(line("no", topic="dropped")) + END)
        answer = (await raw.answer()).json
    assert answer == {"count": 1, "first": kept.last_event_id, "last": kept.last_event_id}


async def test_each_line_is_answered_when_the_publisher_reads_lines(server) -> None:
    async with streaming(server, "/events?stream=true", LINES, ANSWERED) as raw:
        await raw.send(chunk(line("x", id="mine") + b"\n"))
        status, headers = await raw.head()
        assert (status, headers["content-type"]) == (200, "application/x-ndjson")
        assert await answered_line(raw) == {"id": "mine"}
        await raw.send(chunk(line("y")) + END)
        assert "-" in (await answered_line(raw))["id"]
        assert await raw.reader.readexactly(5) == b"0\r\n\r\n"
        await raw.send(get("/healthz"))
        assert (await raw.answer()).status == 200


@pytest.mark.parametrize("answered", [False, True])
async def test_bad_line_ends_it_and_the_answer_says_what_was_published(server, answered) -> None:
    headers = (LINES, ANSWERED) if answered else (LINES,)
    async with streaming(server, "/events?stream=true", *headers) as raw:
        await raw.send(chunk(line(1) + line(2) + b'{"topic":"a"}\n' + line(4)))
        if answered:
            await raw.head()
            assert len(await answered_lines(raw)) == 2
            problem = await answered_line(raw)
            assert await raw.reader.readexactly(5) == b"0\r\n\r\n"
        else:
            answer = await raw.answer()
            assert answer.status == 400
            problem = answer.json
        assert (problem["status"], problem["line"], problem["count"]) == (400, 3, 2)
        assert problem["field"] == "data"
        assert await raw.is_closed()
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a&last=10"))
        stream = await raw.stream()
        assert [(await stream.next()).data for _ in range(2)] == ["1", "2"]


async def test_event_that_the_hub_refuses_stops_it_and_those_before_it_stay(start) -> None:
    server = await start(max_event="10B")
    async with streaming(server, "/events?stream=true", LINES) as raw:
        await raw.send(chunk(line("1") + line("2") + line("x" * 11) + line("4")))
        answer = await raw.answer()
    assert (answer.status, answer.json["field"], answer.json["count"]) == (413, "data", 2)


async def test_cut_body_has_published_what_came_whole_and_is_logged(start, caplog) -> None:
    server = await start(access_lines=100)
    async with reading(server) as stream:
        async with streaming(server, "/events?stream=true", LINES) as raw:
            await raw.send(chunk(line(1) + line(2) + b'{"topic":"a","data":"lost"'))
            assert [(await stream.next()).data for _ in range(2)] == ["1", "2"]
        await until(lambda: "A streamed publish was cut." in caplog.text)
    (record,) = (one for one in caplog.records if "was cut" in one.message)
    assert (record.events, record.dropped_bytes) == (2, 26)
    assert await metric(server, "fastsse_publish_streams_cut_total") == 1
    assert await metric(server, "fastsse_publish_streams") == 0


async def test_body_and_line_bounds(start) -> None:
    """A body has any size, and a line that of a body."""
    server = await start(max_body="1KiB")
    async with streaming(server, "/events?stream=true", LINES) as raw:
        for _ in range(20):
            await raw.send(chunk(line("x" * 900)))
        await raw.send(END)
        assert (await raw.answer()).json["count"] == 20
    async with streaming(server, "/events?stream=true", LINES) as raw:
        await raw.send(chunk(line(1)) + chunk(b" " * 600) + chunk(b" " * 600))
        answer = await raw.answer()
        assert (answer.status, answer.json["line"], answer.json["count"]) == (413, 2, 1)
    body = line("x" * 900) * 20
    async with connected(server) as raw:
        head = request("POST", "/events?stream=true", LINES, body=body)
        await raw.send(head)
        assert (await raw.answer()).json["count"] == 20
        # Without `stream` the bound is that of a body.
        await raw.send(request("POST", "/events", LINES, body=body))
        assert (await raw.answer()).status == 413


async def test_slow_store_stops_the_publisher(server, monkeypatch) -> None:
    hub = server._worker._hub
    publish, waiting = hub.publish, []
    monkeypatch.setattr(hub, "publish", lambda events, done: waiting.append((events, done)))
    piece = chunk(line("x" * 1000) * 1000)
    async with reading(server) as stream, streaming(server, "/events?stream=true", LINES) as raw:
        sent = 0

        async def send() -> None:
            nonlocal sent
            while sent < 64:
                await raw.send(piece)
                sent += 1

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send(), 1)
        assert len(waiting) == 1, "one batch at a time"
        assert sent < 32
        events, done = waiting[0]
        assert len(events) < 5000
        monkeypatch.setattr(hub, "publish", publish)
        publish(events, done)
        await raw.writer.drain()
        await raw.send(END)
        count = (await raw.answer()).json["count"]
        assert count >= sent * 1000
        assert (await stream.next()).data == "x" * 1000


async def test_silent_publisher_is_answered_408(start) -> None:
    server = await start(idle_timeout="200ms")
    async with streaming(server, "/events?stream=true", LINES) as raw:
        await raw.send(chunk(line(1)))
        answer = await raw.answer()
    assert (answer.status, answer.json["count"]) == (408, 1)


async def test_malformed_chunk_is_answered_with_what_was_published(server) -> None:
    async with streaming(server, "/events?stream=true", LINES) as raw:
        await raw.send(chunk(line(1)))
        await raw.send(b"zz\r\n")
        answer = await raw.answer()
        assert (answer.status, answer.json["count"]) == (400, 1)
        assert await raw.is_closed()


async def test_drain_ends_it_with_503_and_what_was_published(start) -> None:
    server = await start()
    async with streaming(server, "/events?stream=true", LINES) as raw:
        async with reading(server) as stream:
            await raw.send(chunk(line(1)))
            await stream.next()
        draining = asyncio.create_task(server.drain(5))
        answer = await raw.answer()
        assert (answer.status, answer.json["count"]) == (503, 1)
        assert "retry-after" in answer.headers
        await draining


async def test_expired_token_ends_it(start, monkeypatch) -> None:
    monkeypatch.setattr(publish_stream, "CHECK_S", 0.0)
    server = await start(jwt_key=SECRET)
    claims = {"mercure": {"publish": ["a"]}, "exp": int(time.time()) + 2}
    token = f"Authorization: Bearer {jwt.encode(claims, SECRET)}"
    async with streaming(server, "/events?stream=true", LINES, token) as raw:
        answer = asyncio.create_task(raw.answer())
        while not answer.done():
            await raw.send(chunk(line(1)))
            await asyncio.sleep(0.02)
        assert (await answer).status == 401
        assert (await answer).json["count"] > 0
    async with streaming(server, "/events?stream=true", LINES, token) as raw:
        assert (await raw.answer()).status == 401
    claims |= {"exp": int(time.time()) + 60}
    token = f"Authorization: Bearer {jwt.encode(claims, SECRET)}"
    async with streaming(server, "/events?stream=true", LINES, token) as raw:
        await raw.send(chunk(line(1) + line(2, "b") + line(3)))
        answer = await raw.answer()
        assert (answer.status, answer.json["count"]) == (403, 1)
    assert await metric(server, "fastsse_publish_streams") == 0


async def test_rate_of_a_client_delays_it(start) -> None:
    server = await start(address_publishes=20)
    begun = asyncio.get_running_loop().time()
    async with streaming(server, "/events?stream=true", LINES) as raw:
        for number in range(4):
            await raw.send(chunk(line(number) * 15))
            async with reading(server, "none"):
                pass
        await raw.send(END)
        assert (await raw.answer()).json["count"] == 60
    # 40 may come at once; 20 more need a second.
    assert asyncio.get_running_loop().time() - begun > 0.2


REFUSED = {
    "/events?stream=perhaps": (LINES, 400, "stream"),
    "/events?stream=true&stream=true": (LINES, 400, "stream"),
    "/events?stream=true&topic=a": (LINES, 415, "stream"),
    "/events?stream=true&event=x": (LINES, 400, "event"),
    "/events?stream=true": ("Content-Type: application/json", 415, "stream"),
    "/events?stream=true&ids=own": (LINES, 400, "ids"),
    "/events?topic=a&ids=own": ("Content-Type: text/plain", 400, "ids"),
    "/events": (RELAY, 400, "topic"),
    "/events?topic=a&stream=false": (RELAY, 400, "stream"),
    "/events?topic=a&ids=some": (RELAY, 400, "ids"),
    "/events?topic=a&id=x": (RELAY, 400, "id"),
    "/events?topic=%00": (RELAY, 400, "topic"),
    "/events?topic=a&meta=x": (RELAY, 400, "meta"),
    "/events?topic=a&retry=x": (RELAY, 400, "retry"),
    "/events?topic=a&event=fastsse.x": (RELAY, 400, "event"),
    "/events?topic=a&color=red": (RELAY, 400, "color"),
    "/events?topic=a&end=true": (RELAY, 400, "end"),
    "/events?topic=a&end_on_close=x": (RELAY, 400, "end_on_close"),
    "/events?topic=a&end_on_close=true": ("Content-Type: text/plain", 400, "end_on_close"),
    "/events?end_on_close=true": (LINES, 400, "end_on_close"),
}


@pytest.mark.parametrize("path", REFUSED)
async def test_wrong_parameters_are_refused_before_the_body(server, path) -> None:
    kind, status, field = REFUSED[path]
    async with streaming(server, path, kind) as raw:
        answer = await raw.answer()
        assert (answer.status, answer.field) == (status, field)
    assert await metric(server, "fastsse_publish_streams") == 0


@pytest.mark.parametrize("how", ["complete", "cut", "bad"])
@pytest.mark.parametrize("kind", [LINES, RELAY])
async def test_topics_end_with_the_body_if_asked_and_stay_open_after_an_error(
    start, kind, how
) -> None:
    server = await start()
    relays = kind == RELAY
    path = f"/events?end_on_close=true&{'topic=a' if relays else 'stream=true'}"
    async with reading(server) as stream:
        async with streaming(server, path, kind) as raw:
            await raw.send(chunk(b"data: 1\n\n" if relays else line(1)))
            assert (await stream.next()).data == "1"
            if how == "complete":
                await raw.send(END)
                assert (await raw.answer()).json["count"] == 1
            elif how == "bad":
                await raw.send(
                    chunk(b"event: " + b"x" * 300 + b"\ndata: 1\n\n" if relays else b"x\n")
                )
                assert (await raw.answer()).status == 400
        if how != "bad":
            assert (await stream.next()).type == "fastsse.end"
    async with connected(server) as raw:
        await raw.send(request("POST", "/events?topic=a", body=b"more"))
        assert (await raw.answer()).status == (200 if how == "bad" else 409)
