"""Bounds on requests: what is over one is refused early, and deadlines are absolute."""

import asyncio
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse.http.body import RequestBody
from fastsse.http.deadlines import LINGER_S
from fastsse.http.hosts import Hosts
from fastsse.http.parser import HeadLimits, RequestParser
from fastsse.http.request import Targets
from tests.http.conftest import asked
from tests.http.intakes import USUAL, exchange
from tests.http.raw import HOST, connected, get, narrow, request, until

POST = b"POST /events?topic=a HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "byte by byte"])
async def test_head_over_its_limit_is_refused(start, whole) -> None:
    server = await start(max_head="1KiB")
    async with connected(server) as raw:
        head = get("/healthz", "X: " + "x" * 1024)
        await (raw.send if whole else raw.trickle)(head)
        answer = await raw.answer()
        assert (answer.status, answer.field) == (431, "head")
        assert await raw.is_closed()


async def test_head_without_end_is_refused_at_the_limit(server) -> None:
    async with connected(server) as raw:
        await raw.send(b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 17_000)
        assert (await raw.answer()).status == 431


async def test_head_at_its_limit_is_read(start) -> None:
    server = await start(max_head="1KiB")
    async with connected(server) as raw:
        head = get("/healthz", "X: ")
        head = head.replace(b"X: ", b"X: " + b"x" * (1024 - len(head)))
        assert len(head) == 1024
        await raw.send(head)
        assert (await raw.answer()).status == 200


@pytest.mark.parametrize(("count", "status"), [(100, 200), (101, 431)])
async def test_hundred_headers_are_allowed_and_no_more(server, count, status) -> None:
    async with connected(server) as raw:
        await raw.send(get("/healthz", *[f"X-{n}: y" for n in range(count - 1)]))
        answer = await raw.answer()
        assert answer.status == status
        assert status == 200 or answer.field == "headers"


OVER = b"x" * 101


@pytest.mark.parametrize(
    ("path", "media_type", "body"),
    [
        ("/events?topic=a", "text/plain", OVER),
        ("/events", "application/json", b'{"topic":"a","data":"%b"}' % OVER),
        ("/events", "application/x-ndjson", b'{"topic":"a","data":"%b"}\n' * 2 % (b"x", OVER)),
        ("/.well-known/mercure", "application/x-www-form-urlencoded", b"topic=a&data=" + OVER),
    ],
)
async def test_an_event_over_max_event_is_refused_and_nothing_of_its_batch_is_published(
    start, path: str, media_type: str, body: bytes
) -> None:
    server = await start(max_event="100B")
    answer = await asked(server, "POST", path, f"Content-Type: {media_type}", body=body)
    assert (answer.status, answer.field) == (413, "data")
    assert "at most 100 bytes (max_event); got 101" in answer.json["detail"]
    text = "Content-Type: text/plain"
    whole = await asked(server, "POST", "/events?topic=a", text, body=OVER[:100])
    assert whole.status == 200
    assert server._worker._hub.history.events == 1


async def test_body_over_max_body_is_refused_from_its_length_alone(start) -> None:
    server = await start(max_body="1KiB")
    async with connected(server) as raw:
        await raw.send(POST + b"Content-Length: 1025\r\n\r\n")
        answer = await raw.answer()
        assert (answer.status, answer.field) == (413, "body")
        assert answer.headers["connection"] == "close"
        assert await raw.is_closed()


async def test_client_that_goes_on_sending_still_reads_the_refusal(start) -> None:
    server = await start(max_body="1KiB")
    async with connected(server) as raw:
        await raw.send(POST + b"Content-Length: 3000000\r\n\r\n")
        await raw.send(b"x" * 3_000_000)
        assert (await raw.answer()).status == 413
        assert await raw.is_closed()


async def test_chunked_body_is_refused_when_it_exceeds_max_body(start) -> None:
    server = await start(max_body="1KiB")
    async with connected(server) as raw:
        await raw.send(CHUNKED + b"400\r\n" + b"x" * 1024 + b"\r\n1\r\nx\r\n")
        answer = await raw.answer()
        assert (answer.status, answer.field) == (413, "body")
        assert await raw.is_closed()


@pytest.mark.parametrize(
    "chunks",
    [
        b"100000000\r\n",
        b"401\r\n",
        b"200;x=y\r\n" + b"x" * 512 + b"\r\n201\r\n",
        b"f" * 15 + b"\r\n",
    ],
    ids=["4 GiB", "one byte over", "over with the one before", "60 bits"],
)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "byte by byte"])
async def test_chunk_that_announces_too_much_is_refused_before_its_data(
    start, chunks, whole
) -> None:
    server = await start(max_body="1KiB", body_timeout="1h")
    async with connected(server) as raw:
        await (raw.send if whole else raw.trickle)(CHUNKED + chunks)
        answer = await raw.answer()
        assert (answer.status, answer.field) == (413, "body")
        assert await raw.is_closed()


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "byte by byte"])
async def test_body_of_exactly_max_body_is_taken(start, whole) -> None:
    server = await start(max_body="1KiB")
    async with connected(server) as raw:
        send = raw.send if whole else raw.trickle
        await send(request("POST", "/events?topic=a", body=b"x" * 1024))
        assert (await raw.answer()).status == 200
        await send(CHUNKED + b"400\r\n" + b"y" * 1024 + b"\r\n0\r\n\r\n")
        assert (await raw.answer()).status == 200
        await raw.send(get("/events?topic=a&last=2"))
        stream = await raw.stream()
        assert [(await stream.next()).data for _ in "12"] == ["x" * 1024, "y" * 1024]


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "byte by byte"])
async def test_chunks_extensions_and_trailers_leave_only_the_data(server, whole) -> None:
    body = b'3;a=b;c="d"\r\nabc\r\n001\r\n \r\n4\r\n\r\n\r\n\r\n0\r\nHost: x\r\nX-Sum: 1\r\n\r\n'
    async with connected(server) as raw:
        await (raw.send if whole else raw.trickle)(CHUNKED + body + get("/healthz"))
        assert (await raw.answer()).status == 200
        assert (await raw.answer()).body == b"alive\n"
        await raw.send(get("/events?topic=a&last=1"))
        assert (await (await raw.stream()).next()).data == "abc \n\n"


def test_data_of_blank_lines_costs_as_few_steps_as_any_other() -> None:
    pieces: list[bytes] = []
    upload = RequestBody(None)
    data = b"\r\n" * (1 << 19)
    body = b"%x\r\n%b\r\n" % (len(data), data)
    for at in range(0, len(body), 1 << 18):
        assert upload.read(body[at : at + (1 << 18)], pieces.append) == b""
    assert b"".join(pieces) == body
    assert len(pieces) <= 5


@given(
    chunks=st.lists(st.sampled_from([b"\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"x", b"1" * 20])),
    trailers=st.sampled_from([b"", b"A: b\r\n", b"0: 0\r\n0:\r\n"]),
    extension=st.sampled_from([b"", b";a", b';a="0"']),
    cuts=st.lists(st.integers(0, 200)),
)
def test_chunked_body_ends_at_its_end_however_it_comes(
    chunks: list[bytes], trailers: bytes, extension: bytes, cuts: list[int]
) -> None:
    sized = [b"%X%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks]
    head = CHUNKED.replace(b"/events", b"/other")
    body = b"".join([*sized, b"00", extension, b"\r\n", trailers, b"\r\n"])
    sent = body + get("/healthz")
    reader = RequestParser(HeadLimits(1 << 14, 100, 1 << 20), Targets(), Hosts((), enforced=False))
    request, rest = reader.read_head(head)
    assert request is not None
    assert rest == b""
    assert reader.expect_body(request)
    edges = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
    got = None
    for start, end in pairwise(edges):
        if got is None:
            got, rest = reader.read_body(sent[start:end])
            left = rest + sent[end:]
    assert got == b"".join(chunks)
    assert left == get("/healthz")


@pytest.mark.parametrize(
    "endless",
    [
        b"0\r\n" + b"X: y\r\n" * 10_000,
        b"0\r\nX: " + b"y" * 40_000,
        b"3;" + b"a" * 40_000,
        b"1;" + b"a" * 1000 + b"\r\nx\r\n" + (b"1;" + b"a" * 1000 + b"\r\nx\r\n") * 40,
        b"0" * 40_000,
    ],
    ids=["trailers", "trailer", "extension", "extensions", "size"],
)
async def test_trailers_and_extensions_are_bounded(server, endless) -> None:
    async with connected(server) as raw:
        await raw.send(CHUNKED + endless)
        assert (await raw.answer()).status in (400, 431)
        assert await raw.is_closed()


async def test_bodies_under_way_are_bounded_together(start) -> None:
    server = await start()
    context = server._worker.frontend._acceptors[0].context
    context.max_upload_bytes = 100_000
    async with connected(server) as first, connected(server) as second:
        await first.send(POST + b"Content-Length: 70000\r\n\r\n" + b"x" * 60_000)
        await until(lambda: context.upload_bytes)
        await second.send(POST + b"Content-Length: 70000\r\n\r\n" + b"x" * 60_000)
        answer = await second.answer()
        assert (answer.status, answer.json["reason"]) == (503, "memory")
        assert answer.headers["retry-after"] == "1"
        await first.send(b"x" * 10_000)
        assert (await first.answer()).status == 200
    assert context.upload_bytes == 0


async def test_answers_that_clients_do_not_read_are_bounded_together(start) -> None:
    server = await start()
    unsent = server._worker.frontend._acceptors[0].context.unsent
    unsent._max = 2_000_000
    async with AsyncExitStack() as stack:
        raws = []
        for n in range(4):
            server.publish(f"t{n}", "x" * 900_000)
            raws.append(await stack.enter_async_context(narrow(server)))
            await raws[-1].send(get(f"/events?topic=t{n}&wait=0&last=1"))
            await until(lambda: len(unsent._held) == min(len(raws), 2))
            await until(
                lambda n=n: server._worker.frontend.counters()["answers_unsent"] == max(0, n - 1)
            )
        for raw in raws[:2]:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await raw.answer()
        for raw in raws[2:]:
            assert len((await raw.answer()).body) > 900_000


async def test_given_up_bodies_are_not_counted_on(server) -> None:
    context = server._worker.frontend._acceptors[0].context
    async with connected(server) as raw:
        await raw.send(POST + b"Content-Length: 70000\r\n\r\n" + b"x" * 60_000)
        await until(lambda: context.upload_bytes)
        raw.writer.transport.abort()
    await until(lambda: not context.upload_bytes)


async def feed_slowly(raw, data: bytes, every_s: float) -> None:
    for index in range(len(data)):
        await raw.send(data[index : index + 1])
        await asyncio.sleep(every_s)


async def test_trickling_head_ends_at_the_deadline_with_408(server) -> None:
    deadlines = server._worker.frontend._deadlines
    async with connected(server) as raw:
        feeding = asyncio.create_task(feed_slowly(raw, get("/healthz", "X: " + "x" * 9999), 0.005))
        # A deadline that is over before the first byte has come would close it without a word.
        await until(lambda: any(one._parser.is_within_head for one in deadlines))
        deadlines.head.limit_s = 0.1
        answer = await raw.answer()
        assert (answer.status, answer.field) == (408, "head")
        assert answer.headers["connection"] == "close"
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)


async def test_trickling_body_ends_at_the_deadline_with_408(start) -> None:
    server = await start(body_timeout="100ms")
    async with connected(server) as raw:
        await raw.send(POST + b"Content-Length: 9999\r\n\r\n")
        feeding = asyncio.create_task(feed_slowly(raw, b"x" * 9999, 0.005))
        answer = await raw.answer()
        assert (answer.status, answer.field) == (408, "body")
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)


async def test_head_on_a_kept_connection_has_a_deadline_of_its_own(server) -> None:
    async with connected(server) as raw:
        await raw.send(get("/healthz"))
        assert (await raw.answer()).status == 200
        server._worker.frontend._deadlines.head.limit_s = 0.1
        await raw.send(b"GET /heal")
        assert (await raw.answer()).status == 408


async def test_connection_that_says_nothing_is_closed_without_a_word(start) -> None:
    server = await start(head_timeout="50ms")
    async with connected(server) as raw:
        assert await raw.is_closed()


async def test_idle_connection_is_closed_without_a_word(start) -> None:
    server = await start(idle_timeout="50ms")
    async with connected(server) as raw:
        await raw.send(get("/healthz"))
        assert (await raw.answer()).status == 200
        assert await raw.is_closed()


async def test_publish_that_waits_for_the_store_is_not_idle(start, tmp_path) -> None:
    server = await start(store=f"sqlite:{tmp_path}/h.db")
    deadlines, store = server._worker.frontend._deadlines, server._worker._hub._backbone
    now_s = deadlines.time()
    deadlines.time = lambda: now_s
    held, append = [], store.append

    def pass_time() -> None:
        nonlocal now_s
        now_s += deadlines.idle.limit_s * 0.9
        deadlines.stop()
        deadlines._sweep()

    async with connected(server) as raw, connected(server) as other:
        for one in (raw, other):
            assert (await exchange(one, USUAL)).status == 200  # It waits as idle from here on.
        pass_time()
        store.append = lambda *asked: held.append(asked)
        for one in (raw, other):
            await one.send(USUAL)
        await until(lambda: sum(len(events) for events, _ in held) == 2)
        pass_time()  # Longer idle than the limit, if it did not wait for an answer.
        assert not deadlines.linger.since
        for asked in held:
            append(*asked)
        for one in (raw, other):
            assert (await one.answer()).status == 200
        held.clear()
        await raw.send(USUAL)
        await until(lambda: held)
        for _ in range(4):  # Its answer never comes.
            pass_time()
        assert await raw.is_closed()


async def test_busy_connection_is_not_idle(server) -> None:
    deadlines = server._worker.frontend._deadlines
    now_s = deadlines.time()
    deadlines.time = lambda: now_s
    async with connected(server) as raw:
        for _ in range(10):
            await raw.send(get("/healthz"))
            assert (await raw.answer()).status == 200
            now_s += deadlines.idle.limit_s * 0.9
            deadlines.stop()
            deadlines._sweep()


async def test_refused_client_that_never_closes_is_not_kept(server, monkeypatch) -> None:
    deadlines = server._worker.frontend._deadlines
    deadlines.linger.limit_s = LINGER_S / 100
    async with connected(server) as raw:
        await raw.send(b"nonsense\r\n\r\n")
        assert (await raw.answer()).status == 400
        await until(lambda: not deadlines)
