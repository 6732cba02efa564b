"""The intake of single publishes takes the usual ones, answers them as any others are answered, and
leaves everything else to its connection."""

import asyncio
import json
import socket

import pytest

from fastsse._intake import Intake
from fastsse.errors import Unavailable
from fastsse.server import Server
from tests.http.conftest import Start, asked
from tests.http.fuzz_intake import Comparator, Difference, read_corpus, run
from tests.http.raw import HOST, Answer, Raw, connected, get, request, until
from tests.mercure.client import KEY, bearer

POST = b"POST /events?topic=t HTTP/1.1\r\n" + HOST
USUAL = POST + b"Content-Length: 5\r\n\r\nhello"
SLOW = "Content-Encoding: identity"


def intake_of(server: Server) -> Intake:
    intake = server._worker.frontend._acceptors[0].context.intake  # type: ignore[union-attr]
    assert intake is not None
    return intake


async def metric(server: Server, name: str) -> float:
    text = (await asked(server, "GET", "/metrics")).body.decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


async def exchange(raw: Raw, data: bytes) -> Answer:
    await raw.send(data)
    return await raw.answer()


# ── What it takes ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("query", "headers", "body"),
    [
        ("topic=t", (), b"hello"),
        ("topic=t", ("User-Agent: x", "Accept: */*", "Content-Type: text/plain"), b"hello"),
        ("topic=t", ("Content-Type: application/json ; charset=utf-8",), b"[1]"),
        ("topic=t", ("X-Request-Id: 7", "traceparent: 00-1-2-01", "baggage: a=b"), b"hello"),
        ("topic=a&topic=b&topic=c", (), "größer €".encode()),
        ("topic=t&private=true&event=tick&retry=5000", (), b"\r\n\0\n"),
        ("topic=t&id=order-17", (), b"hello"),
        ("id=%41%2fb&topic=t", (), b"hello"),
        ("topic=%C3%A9%20x", ("connection: keep-alive",), b"x" * 3_000),
    ],
)
async def test_a_usual_publish_is_taken_and_answered_as_any_other(
    server: Server, query: str, headers: tuple[str, ...], body: bytes
) -> None:
    target = f"/events?{query}"
    async with connected(server) as reader, connected(server) as raw:
        await reader.send(get("/events?topic=*"))
        stream = await reader.stream()
        usual = await exchange(raw, request("POST", target, *headers, body=body))
        assert intake_of(server).taken == 1
        other = await exchange(raw, request("POST", target, *headers, SLOW, body=body))
        assert intake_of(server).taken == 1
        assert (usual.status, other.status) == (200, 200)
        for answer in (usual, other):
            answer.headers["content-length"] = str(len(answer.body) - len(answer.json["id"]))
        assert usual.headers == other.headers
        if "private" not in query:
            first, second = await stream.next(), await stream.next()
            assert first.last_event_id == usual.json["id"]
            assert (first.data, first.type) == (second.data, second.type)
    assert await metric(server, 'fastsse_requests_total{route="/events",status="200"}') == 3
    assert await metric(server, "fastsse_publishes_batched_total") == 1


async def test_a_pipeline_is_answered_in_order_in_a_few_batches(server: Server) -> None:
    count = 1_000
    async with connected(server) as raw:
        await raw.send(USUAL * count + get("/healthz"))
        ids = [(await raw.answer()).json["id"] for _ in range(count)]
        assert (await raw.answer()).body == b"alive\n"
    places = [tuple(map(int, one.split("-"))) for one in ids]
    assert places == sorted(set(places))
    intake = intake_of(server)
    # A read may end within a request; its connection reads that one.
    assert intake.taken > 0.9 * count
    assert intake.batches <= count / 32


async def test_requests_of_both_kinds_are_answered_in_their_order(server: Server) -> None:
    slow = request("POST", "/events?topic=t", SLOW, body=b"x")
    async with connected(server) as raw:
        await raw.send(USUAL + get("/healthz") + USUAL + slow + USUAL[:-2])
        answers = [await raw.answer() for _ in range(4)]
        assert [answer.status for answer in answers] == [200] * 4
        assert answers[1].body == b"alive\n"
        assert (await exchange(raw, USUAL[-2:])).status == 200


async def test_a_publish_that_comes_in_pieces_is_published_once(server: Server) -> None:
    async with connected(server) as raw:
        await raw.trickle(USUAL)
        assert (await raw.answer()).status == 200
        assert (await exchange(raw, USUAL)).status == 200
    assert await metric(server, "fastsse_events_published_total") == 2


async def test_many_connections_share_a_call(server: Server) -> None:
    raws = [connected(server) for _ in range(40)]
    opened = [await raw.__aenter__() for raw in raws]
    for raw in opened:  # The loop gets no turn between them.
        raw.writer.write(USUAL)
    answers = await asyncio.gather(*[raw.answer() for raw in opened])
    assert len({answer.json["id"] for answer in answers}) == 40
    for raw in raws:
        await raw.__aexit__(None, None, None)
    assert intake_of(server).taken == 40
    assert intake_of(server).batches < 40


async def test_answers_to_a_peer_that_does_not_read_wait_and_come_whole(server: Server) -> None:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", server.port))
    count = 20_000
    sending = asyncio.create_task(loop.sock_sendall(sock, USUAL * count))
    await until(lambda: intake_of(server).taken >= 100)
    answers, ids = b"", []
    while len(ids) < count:
        answers += await loop.sock_recv(sock, 65536)
        *whole, answers = answers.split(b"}\n")
        ids += [one.rpartition(b'{"id":"')[2] for one in whole]
        assert all(one.startswith(b"HTTP/1.1 200 OK\r\n") for one in whole)
    await sending
    sock.close()
    assert len(set(ids)) == count


async def test_a_store_answers_later_and_the_next_request_waits(start: Start, tmp_path) -> None:
    server = await start(store=f"sqlite:{tmp_path / 'h.db'}")
    async with connected(server) as raw, connected(server) as other:
        await raw.send(USUAL * 300 + get("/healthz"))
        assert (await exchange(other, USUAL)).status == 200
        ids = [(await raw.answer()).json["id"] for _ in range(300)]
        assert (await raw.answer()).body == b"alive\n"
    assert len(set(ids)) == 300
    assert intake_of(server).taken > 270


# ── What it leaves ───────────────────────────────────────────────────────────────────────────

BODY = b"\r\n\r\nhello"
SMUGGLED = {
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6" + BODY,
    "two equal lengths": POST + b"Content-Length: 5\r\ncontent-length: 5" + BODY,
    "list of lengths": POST + b"Content-Length: 5, 5" + BODY,
    "signed length": POST + b"Content-Length: +5" + BODY,
    "hexadecimal length": POST + b"Content-Length: 0x5" + BODY,
    "bare LF": POST.replace(b"\r\nHost", b"\nHost") + b"Content-Length: 5" + BODY,
    "bare LF in a header": POST + b"X: a\nContent-Length: 5\r\nContent-Length: 5" + BODY,
    "bare CR": POST + b"X: a\rb\r\nContent-Length: 5" + BODY,
    "folding": POST + b"X: a\r\n b\r\nContent-Length: 5" + BODY,
    "folding with a tab": POST + b"X: a\r\n\tContent-Length: 9\r\nContent-Length: 5" + BODY,
    "chunked and a length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5" + BODY,
    "a length and chunked": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked" + BODY,
    "blank before the colon": POST + b"Content-Length : 5" + BODY,
    "tab before the colon": POST + b"Content-Length\t: 5" + BODY,
    "NUL in a value": POST + b"X: a\0b\r\nContent-Length: 5" + BODY,
    "NUL in a name": POST + b"X\0: a\r\nContent-Length: 5" + BODY,
    "no name": POST + b": a\r\nContent-Length: 5" + BODY,
    "two Hosts": POST + b"Host: localhost\r\nContent-Length: 5" + BODY,
    "fragment": USUAL.replace(b"topic=t", b"topic=t#u"),
    "bad escape": USUAL.replace(b"topic=t", b"topic=%zz"),
    "HTTP/1.2": USUAL.replace(b"HTTP/1.1", b"HTTP/1.2"),
    "two blanks": USUAL.replace(b" HTTP", b"  HTTP"),
}


@pytest.mark.parametrize("bad", SMUGGLED.values(), ids=SMUGGLED)
async def test_what_could_be_smuggled_is_left_to_llhttp(server: Server, bad: bytes) -> None:
    async with connected(server) as raw:
        assert (await exchange(raw, USUAL)).status == 200
        assert (await exchange(raw, bad)).status == 400
    assert intake_of(server).taken == 1
    assert await metric(server, "fastsse_events_published_total") == 1


@pytest.mark.parametrize(
    ("query", "header", "status"),
    [
        ("topic=t", "Accept: text/event-stream", 406),
        ("topic=t", "Content-Type: Text/Event-Stream", 200),
        ("topic=t", "Content-Encoding: gzip", 415),
        ("topic=t", "Expect: tea", 417),
        ("topic=t", "Host: evil.example", 400),
        ("topic=t", "Origin: https://evil.example", 403),
        ("topic=t", "Cookie: a=b", 200),
        ("topic=t", "Connection: upgrade", 200),
        ("topic=t", "Connection: close", 200),
        ("topic=t", "Idempotency-Key: \x80", 400),
        ("topic=t&id=a", "Idempotency-Key: a", 200),
        ("topic=t&key=a", "Idempotency-Key: a", 400),
        ("topic=t&topic=u", "If-Match: 1-1", 400),
        ("topic=t", "If-Match: *", 400),
        ("topic=t&event=error", "", 200),
        ("topic=t&event=fastsse.x", "", 400),
        ("topic=t&id=earliest", "", 400),
        ("topic=t&id=17-1", "", 400),
        ("topic=t&id=a%0ab", "", 400),
        ("topic=t&id=a&id=b", "", 400),
        ("topic=t&id=%22", "", 200),
        ("topic=t&private=maybe", "", 400),
        ("topic=t&colour=red", "", 400),
        ("topic=$x", "", 400),
        ("topic=", "", 400),
        ("topic=/.well-known/mercure/x", "", 403),
        ("topic=typed", "", 400),
        ("event=a", "", 400),
    ],
)
async def test_what_needs_a_closer_look_is_left(
    start: Start, query: str, header: str, status: int
) -> None:
    server = await start(topics=[{"match": "typed", "event_types": "known"}])
    async with connected(server) as raw:
        lines = [header] if header else []
        answer = await exchange(raw, request("POST", f"/events?{query}", *lines, body=b"hello"))
    assert answer.status == status
    assert intake_of(server).taken == 0


async def test_bodies_that_are_no_text_or_too_large_are_left(start: Start) -> None:
    server = await start(max_event="100B", max_body="1KiB")
    async with connected(server) as raw:
        for body, status in [(b"\xff", 400), (b"x" * 101, 413), (b"x" * 100, 200), (b"", 400)]:
            answer = await exchange(raw, request("POST", "/events?topic=t", body=body))
            assert answer.status == status
    assert intake_of(server).taken == 1


async def test_pages_of_allowed_origins_are_taken_once_they_are_known(start: Start) -> None:
    page = "Origin: https://a.example"
    server = await start(cors_origins=["https://a.example"])
    async with connected(server) as raw:
        answers = [
            await exchange(raw, request("POST", "/events?topic=t", page, body=b"x"))
            for _ in range(3)
        ]
        other = await exchange(raw, USUAL)
    assert [one.headers["access-control-allow-origin"] for one in answers] == [page[8:]] * 3
    assert "access-control-allow-origin" not in other.headers
    assert other.headers["vary"] == "Origin"
    assert intake_of(server).taken == 3


async def test_publishes_are_counted_for_their_clients(start: Start) -> None:
    server = await start(address_publishes=5, trusted_proxies=["127.0.0.1"])
    async with connected(server) as raw, connected(server) as other:
        await raw.send(USUAL * 11)
        answers = [await raw.answer() for _ in range(11)]
        of_other = request("POST", "/events?topic=t", "X-Forwarded-For: 192.0.2.7", body=b"x")
        assert (await exchange(other, of_other)).status == 200
    assert [answer.status for answer in answers] == [200] * 10 + [429]
    assert answers[-1].headers["retry-after"] == "1"
    assert intake_of(server).taken == 11
    assert await metric(server, 'fastsse_limited_total{limit="address_publishes"}') == 1


async def test_publishes_of_a_subject_are_counted_on_all_its_connections(start: Start) -> None:
    server = await start(subject_publishes=5, jwt_key=KEY)
    publish = request("POST", "/events?topic=t", bearer(["*"], sub="me"), body=b"x")
    async with connected(server) as first, connected(server) as other:
        sent = [first, first, first, *[other] * 8]
        statuses = [(await exchange(raw, publish)).status for raw in sent]
    assert statuses == [200] * 10 + [429]
    assert intake_of(server).taken == 8  # A token is known once a connection has shown it twice.


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


async def test_a_failure_of_the_hub_is_answered_and_ends_the_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub = server._worker._hub  # type: ignore[union-attr]

    def fail(*arguments: object) -> None:
        raise RuntimeError("broken")

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


# ── The comparison with llhttp ───────────────────────────────────────────────────────────────


def test_both_ways_agree_on_mutated_requests() -> None:
    assert run(read_corpus(), seed=20, inputs=60_000) == []


def test_requests_of_the_corpus_are_taken() -> None:
    taken = [Comparator(token="secret").compare(data) for data in read_corpus()]
    taken = [Comparator(origins=["*"]).compare(data) for data in read_corpus()]
    assert sum(map(bool, taken)) >= 6


def test_the_comparison_finds_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    side = Comparator()
    assert side.compare(USUAL) == len(USUAL)
    monkeypatch.setattr("tests.http.fuzz_intake.fields", id)
    with pytest.raises(Difference, match="events"):
        side.compare(USUAL)


def test_answers_are_json_with_any_plain_id() -> None:
    side = Comparator()
    own = "".join(map(chr, range(0x21, 0x7F))).translate({ord(c): None for c in '"\\%&+#'})
    side.compare(USUAL.replace(b"topic=t", b"topic=t&id=" + own.encode()))
    assert side.intake.taken == 1
    assert json.loads(side._lane.written.partition(b"\r\n\r\n")[2]) == {"id": own}
