"""The intake of single publishes takes the usual ones, answers them as any others are answered, and
leaves everything else to its connection."""

import asyncio
import json
import socket

import pytest

from fastsse.server import Server
from tests.http.conftest import Start
from tests.http.fuzz_intake import Comparator, Difference, read_corpus, run
from tests.http.intakes import POST, SLOW, USUAL, exchange, intake_of, metric
from tests.http.raw import connected, get, request, until
from tests.mercure.client import KEY, bearer

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
