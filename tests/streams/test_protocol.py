"""The protocol over sockets: what other servers of it got wrong, and what is ours alone. The suite
of the protocol's authors tests the rest (`test_suite.py`)."""

import asyncio
import gc
import json
from contextlib import AsyncExitStack

import pytest

from fastsse.api.stream_reads import StreamRead
from fastsse.config import Config
from fastsse.http import accept
from fastsse.server import Server
from tests.auth.minting import SECRET, grants, mint
from tests.http.conftest import asked
from tests.http.raw import Answer, Raw, Stream, connected, get, until

TEXT = "Content-Type: text/plain"
JSON = "Content-Type: application/json"
CLOSED = "Stream-Closed: true"


def producer(sequence: int, epoch: int = 0, name: str = "p") -> tuple[str, str, str]:
    return f"Producer-Id: {name}", f"Producer-Epoch: {epoch}", f"Producer-Seq: {sequence}"


async def created(ask, path: str, *headers: str, body: bytes | None = None) -> Answer:
    answer = await ask("PUT", path, *(headers or (TEXT,)), body=body)
    assert answer.status == 201
    return answer


async def tail(raw: Raw, path: str) -> Stream:
    """A stream of `data` and `control` events."""
    await raw.send(get(path))
    status, headers = await raw.head()
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    return Stream(raw.reader, headers)


async def content(ask, path: str, offset: str = "-1") -> bytes:
    answer = await ask("GET", f"{path}?offset={offset}")
    assert answer.status == 200
    return answer.body


async def test_what_is_appended_arrives_at_events_and_the_other_way_round(ask, server) -> None:
    await created(ask, "/streams/chat")
    async with connected(server) as raw:
        await raw.send(get("/events?topic=chat"))
        stream = await raw.stream()
        await stream.opening()
        await ask("POST", "/streams/chat", TEXT, body=b"from a stream")
        assert (await stream.next()).data == "from a stream"
        await ask("POST", "/events?topic=chat", body=b", from events")
        assert await content(ask, "/streams/chat") == b"from a stream, from events"
        await ask("POST", "/streams/chat", CLOSED)
        assert [(await stream.next()).type for _ in "12"] == ["message", "fastsse.end"]
    refused = await ask("POST", "/events?topic=chat", body=b"late")
    assert (refused.status, refused.json["reason"]) == (409, "ended")


async def test_a_topic_that_was_ended_is_a_closed_stream(ask) -> None:
    await created(ask, "/streams/run", body=b"all")
    await ask("POST", "/topics/end?topic=run")
    answer = await ask("GET", "/streams/run")
    assert answer.headers["stream-closed"] == "true"
    assert (await ask("POST", "/streams/run", TEXT, body=b"more")).status == 409


async def test_a_topic_that_was_not_created_as_a_stream_is_none(ask) -> None:
    await ask("POST", "/events?topic=plain", body=b"x")
    assert (await ask("GET", "/streams/plain")).status == 404
    assert (await ask("POST", "/streams/plain", TEXT, body=b"x")).status == 404


async def test_text_does_not_get_into_a_stream_of_json(ask) -> None:
    await created(ask, "/streams/json", JSON)
    refused = await ask("POST", "/events?topic=json", body=b"text")
    assert (refused.status, refused.json["reason"]) == (422, "stream_type")
    assert (await ask("POST", "/events?topic=json", JSON, body=b'{"a": 1}')).status == 200
    assert json.loads(await content(ask, "/streams/json")) == [{"a": 1}]


async def test_bytes_reach_events_as_base64(ask, server) -> None:
    await created(ask, "/streams/b", "Content-Type: application/octet-stream", body=b"\x00\xff")
    async with connected(server) as raw:
        await raw.send(get("/events?topic=b&last_event_id=earliest&envelope=json"))
        stream = await raw.stream()
        assert json.loads((await stream.next()).data)["data"] == "AP8="


async def test_two_equal_appends_are_two(ask) -> None:
    await created(ask, "/streams/tokens")
    for sequence in (0, 1):
        answer = await ask("POST", "/streams/tokens", TEXT, *producer(sequence), body=b"the ")
        assert answer.status == 200
    for sequence in (0, 1):
        again = await ask("POST", "/streams/tokens", TEXT, *producer(sequence), body=b"other")
        assert (again.status, again.headers["producer-seq"]) == (204, "1")
    assert await content(ask, "/streams/tokens") == b"the the "


async def test_a_repeated_fork_or_deletion_counts_once(ask) -> None:
    await created(ask, "/streams/source", body=b"data")
    for status in (201, 200, 200):
        fork = await ask("PUT", "/streams/fork", TEXT, "Stream-Forked-From: /streams/source")
        assert fork.status == status
    assert [(await ask("DELETE", "/streams/source")).status for _ in "123"] == [204, 410, 410]
    assert await content(ask, "/streams/fork") == b"data"
    assert [(await ask("DELETE", "/streams/fork")).status for _ in "123"] == [204, 404, 404]
    assert (await ask("GET", "/streams/source")).status == 404
    await created(ask, "/streams/source", body=b"new")
    assert await content(ask, "/streams/source") == b"new"


async def test_forks_of_forks_have_a_bound_and_a_clear_error(ask) -> None:
    await created(ask, "/streams/f0", body=b"0")
    for n in range(1, 110):
        answer = await ask(
            "PUT", f"/streams/f{n}", TEXT, f"Stream-Forked-From: /streams/f{n - 1}", body=b"."
        )
        if answer.status != 201:
            break
    assert (n, answer.status, answer.field) == (101, 400, "Stream-Forked-From")
    assert await content(ask, "/streams/f100") == b"0" + b"." * 100


async def test_a_client_that_is_cut_within_an_append_changes_nothing(ask, server) -> None:
    await created(ask, "/streams/cut", body=b"whole")
    before = (await ask("HEAD", "/streams/cut")).headers["stream-next-offset"]
    for head in ("Content-Length: 10", "Transfer-Encoding: chunked"):
        async with connected(server) as raw:
            body = b"par" if head.startswith("Content") else b"3\r\npar\r\n4\r\nti"
            start = f"POST /streams/cut HTTP/1.1\r\nHost: localhost\r\n{TEXT}\r\n{head}\r\n\r\n"
            await raw.send(start.encode() + body)
    after = await ask("HEAD", "/streams/cut")
    assert after.headers["stream-next-offset"] == before
    assert await content(ask, "/streams/cut") == b"whole"


async def test_json_over_an_event_stream_is_one_array_before_each_control_event(
    ask, server
) -> None:
    await created(ask, "/streams/list", JSON, body=b'[1, {"a": [2]}, "\\n"]')
    async with connected(server) as raw:
        stream = await tail(raw, "/streams/list?offset=-1&live=sse")
        data, control = await stream.next(), await stream.next()
        assert (data.type, json.loads(data.data)) == ("data", [1, {"a": [2]}, "\n"])
        assert control.type == "control"
        assert json.loads(control.data)["upToDate"] is True
        await ask("POST", "/streams/list", JSON, body=b"[[3], 4]")
        seen = [await stream.next() for _ in range(4)]
        assert [one.type for one in seen] == ["data", "control"] * 2
        assert [json.loads(one.data) for one in seen[::2]] == [[[3]], [4]]
        offset = json.loads(seen[-1].data)["streamNextOffset"]
    assert offset == (await ask("HEAD", "/streams/list")).headers["stream-next-offset"]


async def test_tails_of_a_stream_that_is_deleted_end(ask, server) -> None:
    await created(ask, "/streams/gone")
    async with connected(server) as raw:
        stream = await tail(raw, "/streams/gone?offset=now&live=sse")
        assert (await stream.next()).type == "control"
        assert (await ask("DELETE", "/streams/gone")).status == 204
        await stream.to_end()


async def test_a_tail_at_the_end_of_a_stream_opens_without_a_transport(
    ask, server, monkeypatch
) -> None:
    made: list[object] = []
    make = accept.Connection
    monkeypatch.setattr(accept, "Connection", lambda *given: made.append(given) or make(*given))
    await created(ask, "/streams/log")
    made.clear()
    async with connected(server) as now, connected(server) as begin:
        first = await tail(now, "/streams/log?offset=now&live=sse")
        assert json.loads((await first.next()).data)["upToDate"]
        assert made == []
        # What may be a page, or no stream at all, is read by a connection.
        second = await tail(begin, "/streams/log?offset=-1&live=sse")
        await second.next()
        assert len(made) == 1
        await ask("POST", "/streams/log", TEXT, body=b"x")
        for stream in (first, second):
            assert [(await stream.next()).type for _ in "12"] == ["data", "control"]
    assert (await ask("GET", "/streams/none?offset=now&live=sse")).status == 404
    assert (await ask("GET", "/streams/log?offset=now&live=other")).status == 400
    await ask("POST", "/streams/log", CLOSED)
    closed = await ask("GET", "/streams/log?offset=now&live=sse")
    assert b'"streamClosed":true' in closed.body


async def test_opening_a_tail_leaves_no_circle_of_objects(ask, server) -> None:
    await created(ask, "/streams/log")
    gc.collect()
    gc.disable()
    try:
        async with AsyncExitStack() as stack:
            for offset in ("now", "-1") * 3:
                raw = await stack.enter_async_context(connected(server))
                stream = await tail(raw, f"/streams/log?offset={offset}&live=sse")
                await stream.next()
            await asyncio.sleep(0)  # Transports report their end in a turn of its own.
            assert [one for one in gc.get_objects() if type(one) is StreamRead] == []
    finally:
        gc.enable()


async def test_tails_that_open_alike_share_their_first_frame(ask, server) -> None:
    await created(ask, "/streams/log")
    streams = server._worker._hub.streams
    async with AsyncExitStack() as stack:

        async def opened(offset: str = "now") -> object:
            raw = await stack.enter_async_context(connected(server))
            stream = await tail(raw, f"/streams/log?offset={offset}&live=sse")
            first.append((await stream.next()).data)
            return streams._shared_first

        first: list[str] = []
        frames = [await opened() for _ in range(3)]
        assert frames[0] is frames[1] is frames[2]
        assert first[0] == first[1] == first[2]
        await ask("POST", "/streams/log", TEXT, body=b"x" * 2_000)
        moved = await opened()
        assert moved is not frames[0]
        assert first[3] != first[0]
        # A large one is not kept.
        assert await opened("-1") is moved
        assert first[4] == "x" * 2_000


async def test_a_tail_leaves_nothing_behind_when_its_last_stream_is_gone(ask, server) -> None:
    await created(ask, "/streams/brief")
    topics = server._worker._hub.topics.by_name
    async with connected(server) as raw:
        stream = await tail(raw, "/streams/brief?offset=now&live=sse")
        await stream.next()
        assert any(name.startswith("$tail:") for name in topics)
    await until(lambda: not any(name.startswith("$tail:") for name in topics))
    assert (await ask("GET", "/streams/brief")).status == 200


async def test_subscribers_of_everything_are_not_sent_the_blocks_of_tails(ask, server) -> None:
    await created(ask, "/streams/one")
    async with connected(server) as other, connected(server) as everything:
        await everything.send(get("/events?topic=*"))
        events = await everything.stream()
        await events.opening()
        blocks = await tail(other, "/streams/one?offset=now&live=sse")
        await blocks.next()
        await ask("POST", "/streams/one", TEXT, body=b"x")
        assert (await blocks.next()).type == "data"
        await ask("POST", "/events?topic=other", body=b"y")
        assert [(await events.next()).data for _ in "12"] == ["x", "y"]


async def test_a_long_poll_is_answered_when_there_is_content_or_an_end(ask, server) -> None:
    answer = await created(ask, "/streams/poll")
    offset = answer.headers["stream-next-offset"]
    for change, status in (((TEXT,), 200), ((CLOSED,), 204)):
        async with connected(server) as raw:
            await raw.send(get(f"/streams/poll?offset={offset}&live=long-poll"))
            await until(lambda: server_waiters(server) == 1)
            body = b"x" if status == 200 else None
            await ask("POST", "/streams/poll", *change, body=body)
            answer = await raw.answer()
            assert answer.status == status
            offset = answer.headers["stream-next-offset"]
    assert answer.headers["stream-closed"] == "true"


async def test_a_long_poll_of_a_client_that_is_gone_is_forgotten(ask, server) -> None:
    offset = (await created(ask, "/streams/poll")).headers["stream-next-offset"]
    poll = get(f"/streams/poll?offset={offset}&live=long-poll")
    async with connected(server) as raw, connected(server) as gone:
        await raw.send(poll)
        await gone.send(poll)
        await until(lambda: server_waiters(server) == 2)
        gone.reset()
        await until(lambda: server_waiters(server) == 1)
        await ask("POST", "/streams/poll", TEXT, body=b"x")
        assert (await raw.answer()).body == b"x"


def server_waiters(server: Server) -> int:
    counted = server._worker.frontend.counters()
    return int(counted["streams_waiting"])


async def test_streams_are_not_evicted_and_have_a_bound_of_their_own(start) -> None:
    server = await start(history_events=2, history_age="1s", streams_total="16KiB")
    ask = _asker(server)
    await created(ask, "/streams/long")
    statuses = []
    for _ in range(200):
        answer = await ask("POST", "/streams/long", TEXT, body=b"x" * 100)
        statuses.append(answer.status)
    assert statuses.count(204) > 50
    assert set(statuses[statuses.count(204) :]) == {507}
    assert len(await content(ask, "/streams/long")) == 100 * statuses.count(204)
    assert (await ask("DELETE", "/streams/long")).status == 204
    await created(ask, "/streams/long", body=b"again")


async def test_events_of_other_topics_are_evicted_as_without_streams(start) -> None:
    server = await start(history_total="4MiB", streams_total="64MiB")
    ask = _asker(server)
    await created(ask, "/streams/big", body=b"x" * 900_000)
    for _ in range(7):
        await ask("POST", "/streams/big", TEXT, body=b"x" * 900_000)
    for n in range(3):
        await ask("POST", "/events?topic=t", body=b"%d" % n)
    assert len(await content(ask, "/streams/big")) == 900_000
    offset, total = "-1", 0
    while True:
        page = await ask("GET", f"/streams/big?offset={offset}")
        total += len(page.body)
        offset = page.headers["stream-next-offset"]
        if "stream-up-to-date" in page.headers:
            break
    assert total == 8 * 900_000


def _asker(server: Server):
    async def ask(method: str, path: str, *headers: str, body: bytes | None = None) -> Answer:
        return await asked(server, method, path, *headers, body=body)

    return ask


@pytest.mark.parametrize(
    "path",
    [
        "/streams/",
        "/streams/a/../b",
        "/streams/a%2Fb",
        "/streams/a//b",
        "/streams/%00",
        "/streams/$a",
        "/streams/%FF",
        "/streams/" + "a" * 1025,
    ],
)
async def test_names_that_can_not_be_are_refused(ask, path: str) -> None:
    for method in ("PUT", "GET", "DELETE"):
        assert (await ask(method, path, TEXT)).status == 400


async def test_the_reserved_prefix_names_no_stream(ask) -> None:
    assert (await ask("PUT", "/streams/__ds/x", TEXT)).status == 404


async def test_a_sealed_page_is_cacheable_and_an_empty_one_is_not(start) -> None:
    server = await start(streams_total="64MiB")
    ask = _asker(server)
    first = await created(ask, "/streams/pages", body=b"x" * 700_000)
    for _ in range(2):
        await ask("POST", "/streams/pages", TEXT, body=b"x" * 700_000)
    offset = first.headers["stream-next-offset"]
    sealed = await ask("GET", f"/streams/pages?offset={offset}")
    assert "stream-up-to-date" not in sealed.headers
    assert "immutable" in sealed.headers["cache-control"]
    end = sealed.headers["stream-next-offset"]
    etag = sealed.headers["etag"]
    again = await ask("GET", f"/streams/pages?offset={offset}", f"If-None-Match: {etag}")
    assert (again.status, again.body) == (304, b"")
    rest = await ask("GET", f"/streams/pages?offset={end}")
    empty = await ask("GET", f"/streams/pages?offset={rest.headers['stream-next-offset']}")
    assert empty.headers["cache-control"] == "no-cache"


async def test_reading_a_private_stream_needs_a_grant_and_writing_one_for_the_topic() -> None:
    def bearer(**claims: object) -> str:
        return f"Authorization: Bearer {mint(grants(**claims)).decode()}"

    config = Config(port=0, drain=0, jwt_key=SECRET, anonymous=True)
    async with Server(config) as server:
        ask, writer = _asker(server), bearer(publish=["mine/{n}"])
        path = "/streams/mine/1"
        assert (await ask("PUT", path, TEXT)).status == 401
        assert (await ask("PUT", "/streams/yours", TEXT, writer)).status == 403
        secret = await ask("PUT", path, TEXT, writer, "Stream-Private: true", body=b"secret")
        assert secret.status == 201
        for live in ("", "&live=sse"):
            assert (await ask("GET", f"{path}?offset=-1{live}")).status == 401
            other = bearer(subscribe=["yours"])
            assert (await ask("GET", f"{path}?offset=-1{live}", other)).status == 403
        answer = await ask("GET", path, bearer(subscribe=["mine/1"]))
        assert (answer.body, answer.headers["cache-control"]) == (b"secret", "private, no-store")


async def test_a_stream_expires_when_it_is_not_read_and_has_no_tail(ask, server) -> None:
    for name in ("read", "left"):
        await created(ask, f"/streams/{name}", TEXT, "Stream-TTL: 2")
    async with connected(server) as raw:
        stream = await tail(raw, "/streams/read?offset=now&live=sse")
        await stream.next()
        while (await ask("HEAD", "/streams/left")).status == 200:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        assert (await ask("HEAD", "/streams/read")).status == 200
        await ask("POST", "/streams/read", TEXT, body=b"x")
        assert (await stream.next()).data == "x"
