"""Feeds: selections of very many topics, stored by `POST /feeds` and read by `?feed=ID`."""

import asyncio
import json
from typing import Any
from unittest.mock import Mock

import pytest

from fastsse.api.feeds import FEED_BYTES_MAX, FEED_TOPICS_MAX, FeedsInUse, read_feed
from fastsse.client import listen
from fastsse.config import Config
from fastsse.control.feeds import (
    CACHE_BYTES_MAX,
    REPORTED_MAX,
    FeedBounds,
    Feeds,
    FeedService,
    FeedTopics,
)
from fastsse.control.service import LocalControlClient, MemoryControlStore
from fastsse.errors import FastsseError, InvalidSubscription, Unavailable
from fastsse.reserved import HUB_PATH
from fastsse.server import Server
from tests.auth.minting import SECRET, grants, mint
from tests.http.conftest import asked
from tests.http.raw import connected, get, request, until

SYMBOLS = [f"prices/{n:03}" for n in range(300)]
UNKNOWN = "0" * 32
JSON = "Content-Type: application/json"


async def store(ask, topics: object, *headers: str) -> str:
    answer = await ask("POST", "/feeds", JSON, *headers, body=json.dumps(topics).encode())
    assert answer.status == 200, answer.json
    assert answer.json["expires_in_s"] == 7 * 24 * 3600
    return answer.json["feed"]


async def test_300_symbols_by_feed_begin_with_their_values_and_resume(ask, server) -> None:
    ids = [server.publish(symbol, {"n": n}) for n, symbol in enumerate(SYMBOLS)]
    feed = await store(ask, SYMBOLS)
    assert feed == await store(ask, [{"topic": one} for one in reversed(SYMBOLS)] + SYMBOLS)
    async with connected(server) as raw:
        await raw.send(get(f"/events?feed={feed}&last_each=1&envelope=json"))
        stream = await raw.stream()
        found = [json.loads((await stream.next()).data) for _ in SYMBOLS]
        assert [one["topic"] for one in found] == SYMBOLS
        assert (await stream.next()).type == "fastsse.snapshot"
        server.publish("prices/999", "of another")
        last = server.publish(SYMBOLS[7], "live")
        assert (await stream.next()).last_event_id == last
    async with connected(server) as raw:
        await raw.send(get(f"/events?feed={feed}", f"Last-Event-ID: {ids[-1]}"))
        assert (await (await raw.stream()).next()).data == "live"


async def test_feed_of_10000_topics_delivers_and_replays(ask, server) -> None:
    topics = [f"device/{n}" for n in range(FEED_TOPICS_MAX)]
    feed = await store(ask, topics)
    async with connected(server) as raw:
        await raw.send(get(f"/events?feed={feed}"))
        stream = await raw.stream()
        first = server.publish(topics[-1], "live")
        server.publish("other", "x")
        second = server.publish(topics[0], "next")
        assert [(await stream.next()).last_event_id for _ in range(2)] == [first, second]
    async with connected(server) as raw:
        await raw.send(get(f"/events?feed={feed}", f"Last-Event-ID: {first}"))
        assert (await (await raw.stream()).next()).data == "next"
    answer = await ask("GET", f"/events?feed={feed}&wait=0&last=1")
    assert [one["data"] for one in answer.json["events"]] == ["next"]


async def test_rights_are_those_of_each_subscriber_not_of_the_maker(start) -> None:
    server = await start(jwt_key=SECRET)
    tokens = {
        name: f"Authorization: Bearer {mint(claims).decode()}"
        for name, claims in {
            "maker": grants(subscribe=["*"]),
            "reader": grants(subscribe=["b"]),
            "publisher": grants(publish=["*"]),
        }.items()
    }
    async with connected(server) as raw:
        await raw.send(request("POST", "/feeds", body=b'["a"]'))
        assert (await raw.answer()).status == 401
    async with connected(server) as raw:
        await raw.send(request("POST", "/feeds", tokens["maker"], body=b'["a","b"]'))
        feed = (await raw.answer()).json["feed"]
    async with connected(server) as raw, connected(server) as publisher:
        await raw.send(get(f"/events?feed={feed}", tokens["reader"]))
        stream = await raw.stream()
        await until(lambda: server.stream_count == 1)
        for topic in ("a", "b"):
            path = f"/events?topic={topic}&private=true"
            await publisher.send(request("POST", path, tokens["publisher"], body=topic.encode()))
            assert (await publisher.answer()).status == 200
        assert (await stream.next()).data == "b"
    async with connected(server) as raw:
        await raw.send(get(f"/events?feed={feed}"))
        assert (await raw.answer()).status == 401


@pytest.mark.parametrize("feed", [UNKNOWN, "x", "", "0" * 31, "%F0%9F%99%82", "0" * 4000])
async def test_unknown_feed_is_a_gap_and_the_end(ask, feed: str) -> None:
    path = f"/events?feed={feed}"
    answer = await ask("GET", path, 'Last-Event-ID: "x"<')
    assert answer.status == 200
    lines = answer.body.decode().splitlines()
    assert lines[1:] == [
        "event: fastsse.gap",
        'data: {"reason":"feed","requested":"\\"x\\"<","from":""}',
        "",
    ]
    for more in ("&refuse=status", "&wait=0"):
        answer = await ask("GET", path + more)
        assert (answer.status, answer.field) == (404, "feed")
    answer = await ask("GET", path + "&fastsse=false")
    assert b"fastsse.gap" not in answer.body


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (f"/events?feed={UNKNOWN}&feed={UNKNOWN}", "feed"),
        (f"/events?feed={UNKNOWN}&topic=a", "feed"),
        (f"/events?feed={UNKNOWN}&filter=%3E", "filter"),
        (f"/events?feed={UNKNOWN}&last_each=x", "last_each"),
    ],
)
async def test_mistakes_next_to_a_feed_are_named(ask, path: str, field: str) -> None:
    answer = await ask("GET", path)
    assert (answer.status, answer.field) == (400, field)


@pytest.mark.parametrize(
    ("body", "status", "field", "detail"),
    [
        (b"", 400, "body", "JSON list"),
        (b"{}", 400, "body", "JSON list"),
        (b"[]", 400, "body", "JSON list"),
        (b'["a",1]', 400, "body[1]", "must be a topic"),
        (b'[{"topic":["a"]}]', 400, "body[0]", "must be a topic"),
        (b'[{"topic":"a","filter":"x"}]', 400, "body[0]", "filter holds for all topics"),
        (b'["a",""]', 400, "body[1]", "must not be empty"),
        (b'["$a"]', 400, "body[0]", "reserved"),
        (b'["a\\u0000"]', 400, "body[0]", "control"),
        (b"[" * 100_000, 400, "body", "JSON list"),
        (json.dumps([str(n) for n in range(FEED_TOPICS_MAX + 1)]).encode(), 400, "body", "10001"),
        (json.dumps([f"{n:0900}" for n in range(600)]).encode(), 413, "body", "524288 bytes"),
        (b" " * (2 * FEED_BYTES_MAX + 1), 413, "body", "1048576 bytes"),
    ],
    ids=range(13),
)
async def test_bad_selections_are_refused_with_their_place(
    ask, body: bytes, status: int, field: str, detail: str
) -> None:
    answer = await ask("POST", "/feeds", JSON, body=body)
    assert (answer.status, answer.field) == (status, field)
    assert detail in answer.json["detail"]


async def test_parameters_of_a_stream_are_not_taken_by_the_store(ask) -> None:
    answer = await ask("POST", "/feeds?last_each=1", JSON, body=b'["a"]')
    assert (answer.status, answer.field) == (400, "last_each")


async def test_every_topic_absorbs_the_others(ask) -> None:
    assert await store(ask, ["*", "a"]) == await store(ask, ["*"])


async def test_server_stores_feeds_from_its_own_program(ask, server) -> None:
    feed = await server.store_feed(SYMBOLS)
    assert feed == await store(ask, SYMBOLS)
    for topics in ([], [""], ["a"] * (FEED_TOPICS_MAX + 1)):
        with pytest.raises(InvalidSubscription):
            await server.store_feed(topics)


async def test_too_many_feeds_are_refused_and_counted(start) -> None:
    server = await start(max_feeds=2)
    async with connected(server) as raw:
        for n, status in enumerate((200, 200, 503)):
            await raw.send(request("POST", "/feeds", JSON, body=b'["%d"]' % n))
            answer = await raw.answer()
            assert answer.status == status
        assert answer.json["reason"] == "feeds"
        assert int(answer.headers["retry-after"]) == 60
        await raw.send(request("POST", "/feeds", JSON, body=b'["1"]'))  # It is there.
        assert (await raw.answer()).status == 200
    counters = server._worker.frontend.counters()
    assert (counters["feeds_stored"], counters["feeds_unknown"]) == (3, 0)


class Node:
    """A service, and a worker's view of it, with clocks of their own."""

    def __init__(self, store: MemoryControlStore, bounds: FeedBounds) -> None:
        self.now_s = 1_000.0
        makers = {"feeds": lambda *args: FeedService(*args, now_s=lambda: self.now_s)}
        self.control = LocalControlClient(makers, lambda events, done: done(True), store)
        self.bounds = bounds
        self.feeds = self.worker()

    def worker(self) -> Feeds:
        return Feeds(self.control, self.bounds, now_s=lambda: self.now_s)

    def store(self, *topics: str) -> FastsseError | None:
        found: list[FastsseError | None] = []
        self.feeds.store(FeedTopics.of(topics), found.append)
        return found[0]

    def find(self, *topics: str) -> bool:
        found: list = []
        self.worker().ask(FeedTopics.of(topics).feed, found.append)
        return found == [FeedTopics.of(topics)]


async def test_feed_ends_when_unused_for_its_lifetime_and_survives_a_start() -> None:
    store = MemoryControlStore()
    node = Node(store, FeedBounds(10, 1 << 20, 100_000))
    assert node.store("a") is node.store("b") is None
    node.now_s += 60
    assert node.find("a")  # In use.
    node.now_s += 50
    node = Node(store, node.bounds)  # Another start.
    node.now_s = 1_110
    assert (node.find("a"), node.find("b")) == (True, False)
    node.now_s += 101
    assert not node.find("a")
    assert not store.items()


async def test_stream_that_stays_open_keeps_its_feed() -> None:
    node = Node(MemoryControlStore(), FeedBounds(10, 1 << 20, 100_000))
    node.store("a")
    for _ in range(10):
        node.now_s += 90
        node.feeds.use(FeedTopics.of("a"))
    assert node.find("a")


async def test_feeds_of_open_streams_are_reported_as_used(ask, server) -> None:
    feed = await store(ask, SYMBOLS)
    used: list[str] = []
    recorder = Mock(use_every_s=60.0, use=lambda topics: used.append(topics.feed))
    reports = FeedsInUse(recorder, server._worker._hub.channels)
    async with connected(server) as raw:
        await raw.send(get(f"/events?feed={feed}"))
        await raw.stream()
        reports.step(1.0)
        assert used == [feed]


async def test_service_without_its_store_gets_feeds_in_use_again() -> None:
    node = Node(MemoryControlStore(), FeedBounds(10, 1 << 20, 1_000_000))
    node.store("a")
    node.control = LocalControlClient(
        {"feeds": FeedService}, lambda events, done: done(True), MemoryControlStore()
    )
    node.feeds._control = node.control
    assert not node.find("a")
    node.now_s += 61
    assert node.feeds.find(FeedTopics.of("a").feed) is not None
    assert node.find("a")


async def test_new_feed_evicts_only_those_not_in_use_lately() -> None:
    node = Node(MemoryControlStore(), FeedBounds(2, 1 << 20, 7 * 86_400_000))
    assert node.store("a") is node.store("b") is None
    assert isinstance(node.store("c"), Unavailable)
    node.now_s += 3_000
    node.store("a")
    node.now_s += 1_000
    assert node.store("c") is None
    assert (node.find("a"), node.find("b"), node.find("c")) == (True, False, True)


async def test_feeds_are_bounded_by_their_bytes() -> None:
    node = Node(MemoryControlStore(), FeedBounds(10, 4_000, 100_000))
    assert node.store("x" * 1_000) is node.store("y" * 1_000) is None
    assert isinstance(node.store("z" * 1_000), Unavailable)
    assert node.store("z") is None


async def test_what_a_worker_caches_is_bounded() -> None:
    node = Node(MemoryControlStore(), FeedBounds(1_000, 1 << 30, 100_000))
    for n in range(40):
        node.store(*(f"{n}/{topic}" for topic in range(10_000)))
    assert node.feeds._cached_bytes <= CACHE_BYTES_MAX
    assert 10 < len(node.feeds._cached) < 40
    assert node.find(*(f"0/{topic}" for topic in range(10_000)))


def test_equal_selections_have_the_same_id_and_others_have_not() -> None:
    one = FeedTopics.of(["b", "a", "a"])
    assert one.feed == read_feed(b'["a","b"]').feed != read_feed(b'["a,b"]').feed
    assert FeedTopics.unpack(one.feed, one.pack()) == ("a", "b")


@pytest.mark.parametrize("count", [101, REPORTED_MAX + 1])
async def test_streams_of_feeds_are_present_in_their_topics(count: int) -> None:
    topics = [f"prices/{n:04}" for n in range(count)]
    options: Any = {"jwt_key": SECRET, "anonymous": True, "subscriptions": True}
    reader = mint(grants(subscribe=[f"{HUB_PATH}/subscriptions{{/topic}}{{/subscriber}}"]))
    async with Server(Config(port=0, drain=0, **options)) as server:

        async def present(topic: str) -> int:
            by = f"Authorization: Bearer {reader.decode()}"
            answer = await asked(server, "GET", f"/presence?topic={topic}", by)
            return answer.json["count"]

        async with listen(server.addresses[0], topics) as events:
            server.publish(topics[-1], "x")
            assert (await anext(events)).data == "x"
            assert [await present(topics[n]) for n in (0, -2, -1)] == [1, 1, int(count == 101)]
        async with asyncio.timeout(20):
            while await present(topics[0]):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
