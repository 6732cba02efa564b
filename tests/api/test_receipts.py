"""Receipts: how many streams match a publish; and deletions, which wait for the other workers."""

import asyncio
import contextlib
import json
from collections import Counter

import httpx
import pytest

from fastsse.api import receipts
from fastsse.client import Publisher, listen
from fastsse.hub.time_budget import TimeBudget
from fastsse.selectors import compile_selector
from tests.auth.minting import SECRET, grants, mint
from tests.http.raw import connected, get, request, until
from tests.supervisor.conftest import serve

__all__ = ["serve"]


async def test_a_receipt_counts_each_matching_stream_once_and_no_other(ask, server) -> None:
    queries = ("topic=a", "topic=a&topic=b", "topic=*", "topic={x}", "topic=other", "topic=b")
    queries += ("topic=a&filter=data.n%3E5", "topic=a&filter=data.n%3E5")
    async with streams_of(server, queries):
        answer = await ask("POST", "/events?topic=a&receipt=true", body=b"x")
        assert answer.json["receipt"] == {"node": 6, "cluster": 6}
        answer = await ask("POST", "/events?topic=a&topic=b&receipt=true", body=b"x")
        assert answer.json["receipt"] == {"node": 7, "cluster": 7}
        lines = b'{"topic": "other", "data": 1}\n{"topic": "b", "data": 2}'
        ndjson = "Content-Type: application/x-ndjson"
        answer = await ask("POST", "/events?receipt=true", ndjson, body=lines)
        assert (answer.json["count"], answer.json["receipt"]["node"]) == (2, 5)
        count = await server.count_streams("nothing/at/all")
        assert (count.node, count.cluster, count.missing) == (1, 1, ())
    for path in ("/events?topic=a", "/events?topic=a&receipt=false"):
        assert "receipt" not in (await ask("POST", path, body=b"x")).json


async def test_a_receipt_leaves_the_loop_to_others_however_many_templates_are_open(
    ask, server, monkeypatch
) -> None:
    turns, turn = Counter(), 0

    def compiled(text):
        turns[turn] += 1
        return compile_selector(text)

    async def count_turns():
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    queries = []
    for feed in range(3):
        topics = json.dumps([f"{feed}/{n}/{{x}}" for n in range(1_000)]).encode()
        answer = await ask("POST", "/feeds", "Content-Type: application/json", body=topics)
        queries.append(f"feed={answer.json['feed']}")
    monkeypatch.setattr(receipts, "compile_selector", compiled)
    # One step in each turn; on a fast machine several would fit.
    server._worker.frontend.receipts._budget = TimeBudget(share=1e6, burst_s=0)
    async with streams_of(server, queries):
        counting = asyncio.create_task(count_turns())
        answer = await ask("POST", "/events?topic=2/999/a&receipt=true", body=b"x")
        counting.cancel()
    assert answer.json["receipt"] == {"node": 1, "cluster": 1}
    assert turns.total() >= 1_000
    assert max(turns.values()) <= 256


@contextlib.asynccontextmanager
async def streams_of(server, queries):
    async with contextlib.AsyncExitStack() as stack:
        for query in queries:
            raw = await stack.enter_async_context(connected(server))
            await raw.send(get(f"/events?{query}"))
        await until(lambda: server.stream_count == len(queries))
        yield


async def test_equal_questions_within_a_second_share_an_answer(server) -> None:
    now_s = 0.0
    receipts = server._worker.frontend.receipts
    receipts.now_s = lambda: now_s
    first = await asyncio.gather(*(server.count_streams("a") for _ in range(200)))
    assert {count.cluster for count in first} == {0}
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a"))
        await until(lambda: server.stream_count == 1)
        assert await server.count_streams("a") == first[0]
        now_s = 1.1
        assert (await server.count_streams("a")).cluster == 1


async def test_of_a_private_event_only_streams_with_a_grant_count(start) -> None:
    server = await start(jwt_key=SECRET, anonymous=True)
    publisher = f"Authorization: Bearer {mint(grants(publish=['*'])).decode()}"
    reader = f"Authorization: Bearer {mint(grants(subscribe=['a'])).decode()}"
    async with connected(server) as one, connected(server) as two, connected(server) as raw:
        await one.send(get("/events?topic=a"))
        await two.send(get("/events?topic=a", reader))
        await until(lambda: server.stream_count == 2)
        for private, expected in (("true", 1), ("false", 2)):
            path = f"/events?topic=a&receipt=true&private={private}"
            await raw.send(request("POST", path, publisher, body=b"x"))
            assert (await raw.answer()).json["receipt"]["node"] == expected


@pytest.mark.parametrize(
    "query",
    ["topic=a&receipt=maybe", "topic=a&receipt=true&receipt=true", "stream=true&receipt=true"],
)
async def test_a_receipt_that_can_not_be_is_refused(ask, query) -> None:
    ndjson = "Content-Type: application/x-ndjson"
    answer = await ask("POST", f"/events?{query}", ndjson, body=b'{"topic": "a", "data": 1}')
    assert (answer.status, answer.field) == (400, "receipt")


async def test_workers_are_counted_together_and_deletions_are_known_to_all(serve, tmp_path) -> None:
    service = await serve("--workers", "2", "--store", f"sqlite:{tmp_path / 'h.db'}")
    streams = [listen(service.url, "a") for _ in range(4)]
    async with Publisher(service.url) as publisher:
        for stream in streams:
            await stream.__aenter__()
        counted = await publisher.publish("a", "x", receipt=True)
        assert counted.streams == {"node": 4, "cluster": 4}
        for n in range(20):
            sent = await publisher.publish("b", f"gone {n}")
            await publisher.delete_event("b", sent.id)
            pages = []
            for _ in range(4):  # Each on a connection of its own: both workers are asked.
                async with httpx.AsyncClient(trust_env=False) as client:
                    url = f"{service.url}/events?topic=b&wait=0&since=earliest"
                    pages.append((await client.get(url)).json()["events"])
            assert pages == [[]] * 4
    for stream in streams:
        await stream.__aexit__(None, None, None)
