"""Appends that the native intake takes are answered and stored as all others are."""

import asyncio
import json
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from fastsse.server import Server
from tests.http.conftest import Start, asked
from tests.http.raw import connected, request
from tests.streams.test_protocol import CLOSED, JSON, TEXT, content, created, producer, tail

BYTES = "Content-Type: application/octet-stream"


def taken(server: Server) -> int:
    """How many requests the intake took."""
    return sum(intake.taken for intake in server._worker.frontend._endpoints._intakes)


@pytest.mark.parametrize("headers", [(), producer(1)], ids=["plain", "producer"])
@pytest.mark.parametrize(
    ("kind", "body"),
    [(TEXT, b"text"), (JSON, b'{"a": [1]}'), (BYTES, b"\x00\xff\r")],
    ids=["text", "json", "bytes"],
)
async def test_an_append_that_was_taken_is_answered_as_one_that_was_not(
    server: Server, kind: str, body: bytes, headers: tuple[str, ...]
) -> None:
    ask = partial(asked, server)
    answers = []
    for path in ("/streams/fast", "/streams/slow"):
        await created(ask, path, kind)
        await ask("POST", path, kind, *(producer(0) if headers else ()), body=body)
        before = taken(server)
        # A query and a header that changes nothing leave it to the connection.
        other = ("Cookie: a=b",) if path == "/streams/slow" else ()
        answers.append(await ask("POST", path, kind, *headers, *other, body=body))
        assert taken(server) - before == (path == "/streams/fast")
    fast, slow = answers
    assert fast.status == slow.status == (200 if headers else 204)
    assert list(fast.headers) == list(slow.headers)
    offset = fast.headers.pop("stream-next-offset")
    slow.headers.pop("stream-next-offset")
    assert fast.headers == slow.headers
    head = await ask("HEAD", "/streams/fast")
    assert head.headers["stream-next-offset"] == offset
    assert await content(ask, "/streams/fast") == await content(ask, "/streams/slow")


async def test_bytes_of_every_length_are_read_as_they_were_appended(ask, server) -> None:
    await created(ask, "/streams/log", BYTES)
    await ask("POST", "/streams/log", BYTES, body=b"x")
    before = taken(server)
    pieces = [bytes((37 * n + size) % 256 for n in range(size)) for size in range(1, 80)]
    for piece in pieces:
        await ask("POST", "/streams/log", BYTES, body=piece)
    assert taken(server) - before == len(pieces)
    assert await content(ask, "/streams/log") == b"x" + b"".join(pieces)


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_many_writers_at_once_get_each_their_own_answer(
    start: Start, tmp_path: Path, store: str
) -> None:
    options = {} if store == "memory" else {"store": f"sqlite:{tmp_path}/h.db"}
    server = await start(**options)
    ask = partial(asked, server)
    for n in range(8):
        await created(ask, f"/streams/s{n}")
        await ask("POST", f"/streams/s{n}", TEXT, *producer(0), body=b"0 ")
    wanted = [
        (200, producer(1)),
        (204, producer(0)),  # Known already.
        (409, producer(7)),  # Some are missing.
        (204, ()),
        (403, producer(0, epoch=0)),  # Another instance has begun.
        (409, ()),  # Closed.
        (404, ()),  # Deleted.
        (204, ()),  # Deleted and created again.
    ]
    await ask("POST", "/streams/s4", TEXT, *producer(0, epoch=1), body=b"x")
    await ask("POST", "/streams/s5", CLOSED)
    await ask("DELETE", "/streams/s6")
    await ask("DELETE", "/streams/s7")
    await created(ask, "/streams/s7")
    before = taken(server)

    async def append(n: int) -> tuple[int, str | None]:
        async with connected(server) as raw:
            await barrier.wait()  # All send in the same turn of the loop.
            data = request("POST", f"/streams/s{n}", TEXT, *wanted[n][1], body=b"new ")
            # Another request behind it is not overtaken.
            await raw.send(data + request("GET", f"/streams/s{n}"))
            answer = await raw.answer()
            reading = await raw.answer()
            return answer.status, reading.body.decode() if reading.status == 200 else None

    barrier = asyncio.Barrier(8)
    found = await asyncio.gather(*map(append, range(8)))
    assert [status for status, _ in found] == [status for status, _ in wanted]
    texts = ["0 new ", "0 ", "0 ", "0 new ", "0 x", "0 ", None, "new "]
    assert [text for _, text in found] == texts
    assert taken(server) - before >= 4


async def test_an_append_that_is_not_plainly_right_is_left_to_the_connection(ask, server) -> None:
    await created(ask, "/streams/log", body=b"0")
    await ask("POST", "/streams/log", TEXT, body=b"1")
    before = taken(server)
    bad = [
        (409, (JSON,), b"2"),
        (400, (), b"2"),
        (400, (TEXT, "Producer-Id: p"), b"2"),
        (400, (TEXT, "Producer-Id: p", "Producer-Epoch: 00", "Producer-Seq: 0"), b"2"),
        (400, (TEXT, *producer(0, epoch=1 << 53)), b"2"),
        (400, (TEXT, f"Producer-Id: {'p' * 257}", "Producer-Epoch: 0", "Producer-Seq: 0"), b"2"),
        (415, (TEXT, "Content-Encoding: gzip"), b"2"),
    ]
    for status, headers, body in bad:
        assert (await ask("POST", "/streams/log", *headers, body=body)).status == status
    assert (await ask("POST", "/streams/log", TEXT, body=b"")).status == 400
    assert taken(server) == before
    assert await content(ask, "/streams/log") == b"01"
    # Right, but not for the intake.
    for headers, body in (((TEXT, "Stream-Seq: a\t"), b"2"), ((TEXT,), b"\r"), ((TEXT,), b"\xff")):
        assert (await ask("POST", "/streams/log", *headers, body=body)).status == 204
    assert taken(server) == before
    assert await content(ask, "/streams/log") == b"012\r\xff"


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_stream_seq_that_was_taken_is_judged_as_any_other(
    start: Start, tmp_path: Path, store: str
) -> None:
    server = await start(**({} if store == "memory" else {"store": f"sqlite:{tmp_path}/h.db"}))
    ask = partial(asked, server)
    await created(ask, "/streams/log")
    await ask("POST", "/streams/log", TEXT, body=b"0")
    before = taken(server)
    wanted = [
        (204, "Stream-Seq: 2", ()),
        (409, "Stream-Seq: 2", ()),
        (204, "Stream-Seq: 3", ()),
        (409, "Stream-Seq: 1", ()),
        (200, "Stream-Seq: 4", producer(0)),
        (204, "Stream-Seq: 5", producer(0)),  # Known already.
        (204, "Stream-Seq: 5", ()),
        (400, f"Stream-Seq: {'9' * 257}", ()),
        (400, "Stream-Seq:", ()),
    ]
    for n, (status, seq, headers) in enumerate(wanted, 1):
        answer = await ask("POST", "/streams/log", TEXT, seq, *headers, body=b"%d" % n)
        assert answer.status == status, (n, answer)
        if status != 204 or headers:
            await ask("POST", "/streams/log", TEXT, body=b".")  # Known as open again.
    assert await content(ask, "/streams/log") == b"01.3.5..7.."
    assert taken(server) - before == 10


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_one_number_that_two_connections_bring_at_once_is_stored_once(
    start: Start, tmp_path: Path, store: str
) -> None:
    server = await start(**({} if store == "memory" else {"store": f"sqlite:{tmp_path}/h.db"}))
    ask = partial(asked, server)
    await created(ask, "/streams/log")
    await ask("POST", "/streams/log", TEXT, *producer(0), body=b"0")
    data = request("POST", "/streams/log", TEXT, *producer(1), body=b"1")
    before = taken(server)
    batches = sum(intake.batches for intake in server._worker.frontend._endpoints._intakes)
    async with connected(server) as first, connected(server) as second:
        # Both are there before the loop reads either, so they are of one batch.
        for raw in (first, second):
            raw.writer.write(data)
        statuses = [(await raw.answer()).status for raw in (first, second)]
    assert taken(server) - before == 2
    assert sum(one.batches for one in server._worker.frontend._endpoints._intakes) == batches + 1
    assert sorted(statuses) == [200, 204]
    assert await content(ask, "/streams/log") == b"01"


async def test_appends_of_several_turns_share_a_batch_while_the_store_takes_its_time(
    start: Start, tmp_path: Path
) -> None:
    server = await start(store=f"sqlite:{tmp_path}/h.db")
    ask = partial(asked, server)
    await created(ask, "/streams/log")
    for body in (b"0", b"1"):
        await ask("POST", "/streams/log", TEXT, body=body)
    count, before = 20, taken(server)
    batches = sum(intake.batches for intake in server._worker.frontend._endpoints._intakes)
    data = request("POST", "/streams/log", TEXT, body=b"x")
    async with AsyncExitStack() as stack:
        raws = [await stack.enter_async_context(connected(server)) for _ in range(count)]
        for raw in raws:
            raw.writer.write(data)
            await asyncio.sleep(0)  # The loop reads it, and has another turn.
        assert [(await raw.answer()).status for raw in raws] == [204] * count
    assert taken(server) - before == count
    made = sum(one.batches for one in server._worker.frontend._endpoints._intakes) - batches
    assert made <= 0.75 * count
    assert await content(ask, "/streams/log") == b"01" + b"x" * count


async def test_readers_get_what_the_intake_took(ask, server) -> None:
    await created(ask, "/streams/log", JSON)
    await ask("POST", "/streams/log", JSON, body=b"0")
    async with connected(server) as raw:
        live = await tail(raw, "/streams/log?offset=now&live=sse")
        await live.next()
        before = taken(server)
        for n in range(1, 6):
            await ask("POST", "/streams/log", JSON, body=b"%d" % n)
            data, control = await live.next(), await live.next()
            assert json.loads(data.data) == [n]
            assert json.loads(control.data)["upToDate"] is True
        assert taken(server) - before == 5
    counted = (await ask("GET", "/metrics")).body.decode()
    assert 'fastsse_requests_total{route="/streams/*",status="204"} 6.0' in counted


async def test_an_append_that_the_intake_gave_back_is_counted_once(start: Start) -> None:
    server = await start(address_publishes=10)  # A bucket of 20, used up by the 20 requests.
    ask = partial(asked, server)
    await created(ask, "/streams/log")
    before = taken(server)
    for n in range(8):
        for status in (200, 204):  # The repeat is taken, and given back.
            answer = await ask("POST", "/streams/log", TEXT, *producer(n), body=b"x")
            assert answer.status == status
    assert taken(server) - before == 8
    await ask("POST", "/streams/log", TEXT, body=b"x")
    server._worker._hub.refuses = True
    for _ in "12":
        assert (await ask("POST", "/streams/log", TEXT, body=b"x")).status == 503
    assert taken(server) - before == 9
    counted = (await ask("GET", "/metrics")).body.decode()
    assert 'fastsse_publish_refused_total{reason="draining"} 2.0' in counted
    assert 'fastsse_requests_total{route="/streams/*",status="503"} 2.0' in counted
    assert 'fastsse_requests_total{route="/streams/*",status="204"} 9.0' in counted
