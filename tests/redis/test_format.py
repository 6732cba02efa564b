"""Which format of records is written, and that damaged ones are no event.

A node of the version before reads format 1 only. `old_event` is what it read records with.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from fastsse._records import crc32c
from fastsse.backbone.redis.codec import (
    DamagedRecord,
    SentEvent,
    decode_record,
    encode_event,
    id_at,
    place_of,
)
from fastsse.events import DATA_JSON, Event
from fastsse.positions import position_ms
from fastsse.subscriptions import Cursor
from tests.redis.onelog import Node, data_of, node_on, until
from tests.redis.server import RedisServer

NODES, STREAM = "{fastsse}:nodes", "fastsse"
KNOWN = set("tdeirpu")


def old_event(fields: dict[bytes, bytes], strict: bool = True) -> dict[str, Any]:
    """An entry of the stream as a node of the version before reads it: exactly these members. It
    ignores members of the record that it does not know, which `strict` does not allow."""
    assert list(fields) == [b"s", b"k", b"e"]
    _, group, nth, left = fields[b"k"].split(b" ")
    assert (int(group), int(nth), int(left)) >= (0, 0, 0)
    record = orjson.loads(fields[b"e"])
    assert not strict or set(record) <= KNOWN, "a member that it does not know"
    event = Event(record["t"], record["d"], record.get("e"), record.get("i"), record.get("r"))
    return {"topics": event.topics, "data": event.data.decode(), "private": record.get("p", False)}


def entries(redis: RedisServer) -> list[dict[bytes, bytes]]:
    """All events of the stream, in order."""
    found = redis.client.xrange(STREAM)
    return [fields for _, fields in found if b"e" in fields]


@asynccontextmanager
async def an_old_node(redis: RedisServer) -> AsyncIterator[None]:
    """A node of the version before is alive: it says so, and names no format."""

    async def beat() -> None:
        while True:
            redis.client.zadd(NODES, {"0123456789abcdef0000": time.time() * 1000 + 60_000})
            await asyncio.sleep(0.05)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        redis.client.zrem(NODES, "0123456789abcdef0000")


async def written_in(redis: RedisServer, format: int) -> None:
    await until(lambda: redis.client.get("{fastsse}:format") == b"%d" % format)


async def test_records_are_sealed_once_every_node_reads_them(redis: RedisServer) -> None:
    async with (
        node_on(redis.url, redis_node_timeout="1s") as one,
        node_on(redis.url, redis_node_timeout="1s") as two,
    ):
        await written_in(redis, 2)
        await one.answered("sealed", private=True, id="mine")
        await two.saw("sealed")
        (fields,) = entries(redis)
        assert fields[b"e"].startswith(b'{"c":"')
        event, time_ms = decode_record(one.positions[0], fields[b"e"])
        assert (event.private, event.id) == (True, b"mine")
        assert time_ms == position_ms(one.positions[0])
        assert list(map(data_of, (await two.read("t")).entries)) == ["sealed"]
        assert list(map(data_of, (await two.read("*")).entries)) == ["sealed"]
        # A node of before reads it as well, so that an upgrade can be taken back.
        assert old_event(fields, strict=False)["data"] == "sealed"


async def test_while_a_node_of_the_version_before_is_alive_it_can_read_every_record(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with an_old_node(redis), node_on(redis.url, redis_node_timeout="1s") as node:
        await node.answered("first")
        await until(lambda: "earlier version" in caplog.text)
        await node.answered(
            "second", private=True, id="x", retry=5_000, event="tick", data_kind=DATA_JSON
        )
        read = [old_event(fields) for fields in entries(redis)]
        assert [event["data"] for event in read] == ["first", "second"]
        assert read[1]["private"]
    async with node_on(redis.url, redis_node_timeout="1s") as node:
        await written_in(redis, 2)
        await node.answered("third")
        assert entries(redis)[-1][b"e"].startswith(b'{"c":"')
        # What was written before is read as before.
        assert list(map(data_of, (await node.read("t")).entries)) == ["first", "second", "third"]
        async with an_old_node(redis):
            await written_in(redis, 1)
            await node.answered("fourth")
            assert old_event(entries(redis)[-1])["data"] == "fourth"
        await written_in(redis, 2)
        found = (await node.read("*")).entries
        assert list(map(data_of, found)) == ["first", "second", "third", "fourth"]


async def test_a_cluster_of_two_versions_loses_nothing(redis: RedisServer) -> None:
    """Upgraded node by node, and one taken back."""
    published: list[str] = []

    async def publish(node: Node, count: int) -> None:
        texts = [f"{len(published) + n}" for n in range(count)]
        published.extend(texts)
        await node.answered(*texts)

    async with an_old_node(redis), node_on(redis.url, redis_node_timeout="1s") as node:
        await publish(node, 20)
    async with node_on(redis.url, redis_node_timeout="1s") as node:
        await written_in(redis, 2)
        await publish(node, 20)
        async with an_old_node(redis):
            await publish(node, 20)  # The next beat has not been yet, perhaps.
            await written_in(redis, 1)
            await publish(node, 20)
        assert node.broken == []
    assert [old_event(fields, strict=False)["data"] for fields in entries(redis)] == published
    async with node_on(redis.url) as node:
        stretch = await node.read("t", limit_bytes=1 << 24)
        assert list(map(data_of, stretch.entries)) == published
        assert stretch.damaged_through == 0


def tampered(record: bytes) -> bytes:
    """The record with a private event made public, say."""
    return record.replace(b"two", b"twO")


async def test_a_damaged_record_of_a_topic_is_a_gap_where_it_lies(redis: RedisServer) -> None:
    async with node_on(redis.url, redis_node_timeout="1s") as node:
        await written_in(redis, 2)
        await node.answered("one")
        await node.answered("two")
        await node.answered("three")
        key = "{fastsse}:topic:t"
        redis.client.lset(key, 1, tampered(redis.client.lindex(key, 1)))
        before = await node.read("t")
        assert list(map(data_of, before.entries)) == ["one"]
        assert before.through == node.positions[1] - 1
        after = await node.read("t", after=before.through)
        assert list(map(data_of, after.entries)) == ["three"]
        assert after.damaged_through == node.positions[1]
        assert node.backbone.counters()["redis_entries_damaged"] == 2
        # A list under another topic's name is not that topic's.
        redis.client.rename(key, "{fastsse}:topic:other")
        other = await node.read("other")
        assert not other.entries
        assert other.damaged_through == node.positions[2]


async def test_a_damaged_entry_of_the_log_is_reported_to_all(redis: RedisServer) -> None:
    async with node_on(redis.url, redis_node_timeout="1s") as node:
        await written_in(redis, 2)
        await node.answered("one")
        newest = redis.client.get("{fastsse}:newest")
        sequence, last = newest.split(b" ")
        sealed = entries(redis)[-1]
        ms, n = map(int, last.split(b"-"))
        damaged_id = b"%d-%d" % (ms, n + 1)
        # The same record at another place, as if the id had been damaged.
        running = b"%d" % (int(sequence) + 1)
        redis.client.xadd(
            STREAM, {"s": running, "k": sealed[b"k"], "e": sealed[b"e"]}, id=damaged_id
        )
        redis.client.set("{fastsse}:newest", b"%b %b" % (running, damaged_id))
        await node.until(lambda: node.broken == [("damaged", place_of(damaged_id))])
        await node.answered("three")
        assert node.seen == ["one", "three"]
        before = await node.read("*")
        assert list(map(data_of, before.entries)) == ["one"]
        after = await node.read("*", after=before.through)
        assert list(map(data_of, after.entries)) == ["three"]
        assert after.damaged_through == place_of(damaged_id)


async def test_since_goes_by_redis_s_clock_where_ids_are_ahead_of_it(redis: RedisServer) -> None:
    async with node_on(redis.url, redis_node_timeout="1s") as node:
        await written_in(redis, 2)
        await node.answered("as ever")
        sequence, last = redis.client.get("{fastsse}:newest").split(b" ")
        ahead = b"%d-1" % (int(last.split(b"-")[0]) + 3_600_000)
        redis.client.set("{fastsse}:newest", b"%b %b" % (sequence, ahead))
        await node.answered("ahead")
        seconds, micros = redis.client.time()
        asked_ms = seconds * 1000 + micros // 1000 + 150
        await until(lambda: redis.client.time()[0] * 1000 > asked_ms + 1_000)
        await node.answered("later")
        assert position_ms(node.positions[-1]) > asked_ms + 3_000_000
        place = await node.seek(Cursor("since", asked_ms), "t")
        found = (await node.read("t", after=place)).entries
        assert list(map(data_of, found)) == ["later"]
        assert asked_ms < found[0].frame.time_ms < asked_ms + 60_000


RECORD = encode_event(Event(("a", "b"), "text", "tick", "mine", 2_000, True))


@pytest.mark.parametrize(
    "record",
    [
        b'{"c":"0000000000000000","w":1,' + RECORD[1:],
        b'{"c":"0000000000000000","w":1}',
        b'{"b":"0000000000000000","w":1,' + RECORD[1:],
        b'{"c":1,"w":1,' + RECORD[1:],
        b'{"c":"',
        b"[]",
        b"",
    ],
)
def test_a_record_with_a_false_or_half_seal_is_no_event(record: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        decode_record(1, record)


def test_a_failed_checksum_is_distinguished_from_a_foreign_record() -> None:
    with pytest.raises(DamagedRecord):
        decode_record(1, b'{"c":"0000000000000000","w":1,' + RECORD[1:])
    assert decode_record(5 << 64, RECORD)[1] == 5


def sealed(position: int, record: bytes, written_ms: int = 7) -> bytes:
    """A record of format 2, as the append script writes it."""
    crc = b"%08x" % crc32c(record)
    place = hashlib.sha1(b"%b %b %d" % (id_at(position), crc, written_ms), usedforsecurity=False)
    head = b'{"c":"%b%b","w":%d,' % (crc, place.hexdigest()[:8].encode(), written_ms)
    return head + record[1:]


def test_a_node_takes_its_own_event_only_for_the_record_that_it_has_sent() -> None:
    position = 5 << 64 | 1
    event = Event("a", "text")
    record, other = encode_event(event), encode_event(Event("a", "other"))
    sent = SentEvent(event, record)
    assert decode_record(position, sealed(position, record), sent) == (event, 7)
    assert decode_record(position, sealed(position, record), sent)[0] is event
    assert decode_record(position, sealed(position, other), sent)[0].data == b"other"
    assert decode_record(position, record, sent)[0] is not event
    with pytest.raises(DamagedRecord):
        decode_record(position + 1, sealed(position, record), sent)
