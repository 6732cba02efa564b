"""Publishes that the intake took are judged as any others: keys, conditions, rights, refusals."""

import asyncio

import pytest

from fastsse.errors import Unavailable
from fastsse.server import Server
from tests.http.conftest import Start, asked
from tests.http.intakes import SLOW, USUAL, exchange, intake_of, metric
from tests.http.raw import connected, get, request, until

# ── Keys and conditions ──────────────────────────────────────────────────────────────────────


async def test_a_key_is_known_whichever_way_its_requests_take(start: Start, tmp_path) -> None:
    for store in ("memory", f"sqlite:{tmp_path / 'h.db'}"):
        server = await start(store=store)
        key, other = "Idempotency-Key: order-17", 'Idempotency-Key: "order-17"'
        async with connected(server) as raw:
            sent = [
                request("POST", "/events?topic=t", key, body=b"a"),
                request("POST", "/events?topic=t", key, SLOW, body=b"a"),
                request("POST", "/events?topic=t", other, body=b"a"),
                request("POST", "/events?topic=t", key, body=b"b"),
                request("POST", "/events?topic=t", key, SLOW, body=b"b"),
            ]
            first, *repeats, reused, slow = [await exchange(raw, one) for one in sent]
            assert [one.body for one in repeats] == [first.body] * 2
            assert (reused.status, slow.status) == (422, 422)
            assert reused.json == slow.json
        assert intake_of(server).taken == 3
        assert await metric(server, "fastsse_events_published_total") == 1


async def test_keys_of_one_turn_are_judged_apart_and_in_order(server: Server) -> None:
    def keyed(key: str, body: bytes) -> bytes:
        return request("POST", "/events?topic=t", f"Idempotency-Key: {key}", body=body)

    sent = [USUAL, keyed("a", b"1"), keyed("a", b"2"), keyed("a", b"1"), keyed("b", b"2"), USUAL]
    async with connected(server) as raw, connected(server) as reader:
        await reader.send(get("/events?topic=t"))
        stream = await reader.stream()
        await raw.send(b"".join(sent))
        answers = [await raw.answer() for _ in sent]
        assert [one.status for one in answers] == [200, 200, 422, 200, 200, 200]
        assert answers[3].json == answers[1].json
        assert [(await stream.next()).data for _ in range(4)] == ["hello", "1", "2", "hello"]
    assert intake_of(server).taken == 6


async def test_a_condition_is_judged_with_what_came_before_it(server: Server) -> None:
    def expecting(id: str, body: bytes = b"x") -> bytes:
        return request("POST", "/events?topic=t", f"If-Match: {id}", body=body)

    async with connected(server) as raw:
        first = await exchange(raw, expecting("earliest"))
        await raw.send(expecting(first.json["id"]) + expecting(first.json["id"]))
        second, third = await raw.answer(), await raw.answer()
    assert (first.status, second.status, third.status) == (200, 200, 412)
    assert third.json["current"] == second.json["id"]
    assert intake_of(server).taken == 3


async def test_it_is_off_while_each_publish_is_logged(start: Start) -> None:
    server = await start(log_level="debug", access_lines=10)
    async with connected(server) as raw:
        assert (await exchange(raw, USUAL)).status == 200
    assert intake_of(server).taken == 0


# ── Rights ───────────────────────────────────────────────────────────────────────────────────


async def test_a_token_must_be_whole_and_right_in_each_request(start: Start) -> None:
    server = await start(publish_token="secret-token-1")
    right, wrong = "Authorization: Bearer secret-token-1", "Authorization: Bearer secret-token-2"
    for header, status in [(right, 200), (wrong, 401), (right, 200), ("", 401), (right, 200)]:
        async with connected(server) as raw:  # A refusal before the body ends the connection.
            lines = [header] if header else []
            answer = await exchange(raw, request("POST", "/events?topic=t", *lines, body=b"x"))
            assert answer.status == status
    assert intake_of(server).taken == 3


# ── When it can't be published ───────────────────────────────────────────────────────────────


async def test_a_refused_batch_refuses_each_publish_and_counts_each(server: Server) -> None:
    hub = server._worker._hub  # type: ignore[union-attr]
    limit, hub._memory_limit_bytes = hub._memory_limit_bytes, 0
    async with connected(server) as raw:
        await raw.send(USUAL * 30 + get("/healthz"))
        answers = [await raw.answer() for _ in range(30)]
        assert (await raw.answer()).body == b"alive\n"
        assert {(one.status, one.headers["retry-after"]) for one in answers} == {(503, "5")}
        hub._memory_limit_bytes = limit
        assert (await exchange(raw, USUAL)).status == 200
    assert await metric(server, 'fastsse_publish_refused_total{reason="memory"}') == 30
    assert await metric(server, 'fastsse_requests_total{route="/events",status="503"}') == 30
    assert intake_of(server).taken == 31


async def test_a_topic_that_has_ended_refuses_its_own_publishes_alone(server: Server) -> None:
    ended = USUAL.replace(b"topic=t", b"topic=over&id=x")
    async with connected(server) as raw:
        answer = await exchange(raw, request("POST", "/topics/end?topic=over", body=b""))
        assert answer.status == 200
        await raw.send(
            USUAL + ended + USUAL.replace(b"topic=t", b"topic=t&id=mine") + get("/healthz")
        )
        answers = [await raw.answer() for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 409, 200, 200]
    assert answers[1].json["title"] == "Conflict"
    assert answers[2].json == {"id": "mine"}
    assert answers[3].body == b"alive\n"
    assert intake_of(server).taken == 3
    assert await metric(server, "fastsse_events_published_total") == 2


@pytest.mark.parametrize("is_now", [True, False])
async def test_a_failure_of_the_hub_is_answered_and_ends_the_connection(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_now: bool,
) -> None:
    hub = server._worker._hub  # type: ignore[union-attr]

    def fail(*arguments: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(hub._backbone, "append_now", fail if is_now else None)
    monkeypatch.setattr(hub._backbone, "append", fail)
    async with connected(server) as raw:
        assert (await exchange(raw, USUAL)).status == 500
        assert await raw.is_closed()
    monkeypatch.undo()
    caplog.clear()  # Its traceback keeps the hub.
    assert (await asked(server, "POST", "/events?topic=t", body=b"x")).status == 200


async def test_a_late_refusal_reaches_the_publisher(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = server._worker._hub  # type: ignore[union-attr]
    waiting = []
    monkeypatch.setattr(hub._backbone, "append_now", None)
    monkeypatch.setattr(hub._backbone, "append", lambda *call: waiting.append(call))
    async with connected(server) as raw, connected(server) as gone:
        await gone.send(USUAL)
        await raw.send(USUAL + get("/healthz"))
        await until(lambda: sum(len(events) for events, _ in waiting) == 2)
        gone.writer.transport.abort()
        await asyncio.sleep(0.01)
        for _, done in waiting:
            done(Unavailable("backbone", 1))
        assert (await raw.answer()).status == 503
        assert (await raw.answer()).body == b"alive\n"


async def test_connections_close_after_their_answer_while_the_server_drains(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = server._worker._hub  # type: ignore[union-attr]
    append, waiting = hub._backbone.append, []
    monkeypatch.setattr(hub._backbone, "append_now", None)
    monkeypatch.setattr(hub._backbone, "append", lambda *call: waiting.append(call))
    async with connected(server) as raw:
        await raw.send(USUAL * 3)
        await until(lambda: bool(waiting))
        server._worker.frontend.drain()  # type: ignore[union-attr]
        for events, done in waiting:
            append(events, done)
        answers = [await raw.answer() for _ in range(3)]
        closing = [one.headers.get("connection") for one in answers]
        assert closing == [None, None, "close"]
        assert await raw.is_closed()
