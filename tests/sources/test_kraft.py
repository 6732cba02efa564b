"""A source against Apache Kafka: credentials, TLS, outages, trimmed offsets, new partitions."""

import asyncio
import pathlib
import sys
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from fastsse.config.sources import SourceRule
from fastsse.sources import Sources
from fastsse.sources.kafka_client import client_settings
from tests.redis import cluster
from tests.sources import kraft, tansu
from tests.sources.flows import until_metric
from tests.sources.test_contract import Log, count_of, reading, until

_NUMBERS = count()
SETTINGS = {**tansu.SETTINGS, "topic.metadata.refresh.interval.ms": 500}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kraft.Kafka]:
    """One broker for all: it starts slowly."""
    if kraft.jars() is None:
        pytest.skip("no Apache Kafka here: see tests/sources/kraft.py")
    made = kraft.Kafka(tmp_path_factory.mktemp("kafka"), is_secure=True)
    made.start()
    yield made
    made.close()


@pytest.fixture
def topic(broker: kraft.Kafka) -> str:
    name = f"logs-{next(_NUMBERS)}"
    tansu.make_topic(broker.servers, name)
    return name


def rule(broker: kraft.Kafka, topic: str, **more: Any) -> dict[str, Any]:
    return {
        "name": "k", "url": broker.url, "topics": [topic], "topic": "t", "group": topic,
        "settings": SETTINGS, **more,
    }  # fmt: skip


def texts(first: int, behind: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, behind)]


def is_away(sources: Sources, *words: str) -> bool:
    state = sources.states()[0]
    said = (state["trouble"] or "").lower()
    return state["state"] == "away" and any(word in said for word in words)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "PLAIN"])
async def test_a_user_of_sasl_reads_over_tls(
    broker: kraft.Kafka, topic: str, mechanism: str
) -> None:
    log = Log()
    url = f"{broker.secure_url}?mechanism={mechanism}&ca={broker.ca}"
    tansu.produce(broker.servers, topic, texts(0, 50))
    async with reading(rule(broker, topic, url=url), log):
        await until(lambda: len(log.events) == 50)
    assert log.data == [str(number) for number in range(50)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("secret", "wrong"), ("authentication",)),
        (("alice", "mallory"), ("authentication",)),
        (("&ca=", "&ca=/nonexistent"), ("ssl.ca.location",)),
        (("kafkas://", "kafka://"), ("disconnect", "transport", "ssl", "brokers are down")),
    ],
)
async def test_wrong_credentials_are_named(
    broker: kraft.Kafka, topic: str, change: tuple[str, str], words: tuple[str, ...]
) -> None:
    url = f"{broker.secure_url}?mechanism=SCRAM-SHA-256&ca={broker.ca}".replace(*change)
    if url.startswith("kafka://"):
        url = url.partition("&ca")[0]
    log = Log()
    async with reading(rule(broker, topic, url=url), log) as sources:
        await until(lambda: is_away(sources, *words), sources.states)
    assert not log.events


async def test_an_untrusted_certificate_is_named(
    broker: kraft.Kafka, topic: str, tmp_path: pathlib.Path
) -> None:
    from tests.certificates import issue

    other, _ = issue(tmp_path, "localhost")
    url = f"{broker.secure_url}?mechanism=PLAIN&ca={other}"
    async with reading(rule(broker, topic, url=url), Log()) as sources:
        await until(lambda: is_away(sources, "certificate"), sources.states)


async def test_readyz_and_operators_are_given_the_reason(broker: kraft.Kafka, topic: str) -> None:
    url = f"{broker.secure_url}?mechanism=PLAIN&ca={broker.ca}".replace("secret", "hidden")
    async with cluster.node("memory", sources=[rule(broker, topic, url=url)]) as node:
        async with asyncio.timeout(60):
            while "away: k" not in (await cluster.get(node, "/readyz")).text:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        (source,) = (await cluster.get(node, "/admin/sources")).json()["sources"]
        assert source["state"] == "away"
        assert "uthentication" in source["trouble"]
        assert "hidden" not in source["trouble"]


async def test_a_broker_that_is_away_at_the_start_and_later_loses_and_repeats_nothing(
    broker: kraft.Kafka, topic: str
) -> None:
    tansu.produce(broker.servers, topic, texts(0, 20))
    broker.kill()
    log = Log()
    try:
        async with reading(rule(broker, topic), log) as sources:
            await until(lambda: sources.states()[0]["state"] == "away", sources.states)
            broker.start()
            await until(lambda: len(log.events) == 20, sources.states)
            broker.kill()
            await until(lambda: sources.states()[0]["state"] == "away", sources.states)
            broker.start()
            tansu.produce(broker.servers, topic, texts(20, 40))
            await until(lambda: len(log.events) >= 40, sources.states)
            assert sources.states()[0]["state"] == "ready"
    finally:
        if not broker.is_running:
            broker.start()
    # What was in the log before the broker had its offset comes again, with the same number.
    numbered = {one.directives.producer: one.data for one in log.events}
    assert list(numbered.values()) == [b"%d" % number for number in range(40)]


async def test_messages_that_kafka_deleted_before_they_were_read_are_reported(
    broker: kraft.Kafka, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    tansu.produce(broker.servers, topic, texts(0, 10))
    log = Log()
    async with reading(rule(broker, topic), log):
        await until(lambda: len(log.events) == 10)
    tansu.produce(broker.servers, topic, texts(10, 60))
    kraft.trim(broker.servers, topic, 50)
    async with reading(rule(broker, topic), log) as sources:
        await until(lambda: len(log.events) == 20, sources.states)
        assert count_of(sources, "missed") == 40
    assert log.data == [str(number) for number in (*range(10), *range(50, 60))]
    said = "Messages of a source were deleted before they were read."
    assert [record.message for record in caplog.records].count(said) == 1


async def test_partitions_that_are_added_are_read(broker: kraft.Kafka, topic: str) -> None:
    log = Log()
    async with reading(rule(broker, topic), log):
        tansu.produce(broker.servers, topic, texts(0, 10))
        await until(lambda: len(log.events) == 10)
        kraft.add_partitions(broker.servers, topic, 4)
        sent = 10
        while len({place_of(one) for one in log.events}) < 2:
            tansu.produce(
                broker.servers, topic, [(str(n), b"%d" % n) for n in range(sent, sent + 20)]
            )
            sent += 20
            await asyncio.sleep(0.2)
        await until(lambda: len(log.events) == sent)
    assert sorted(map(int, log.data)) == list(range(sent))


def place_of(event: Any) -> bytes:
    """The producer of an event: one for each partition."""
    producer = event.directives.producer
    return bytes(producer.key)


async def test_rebalances_in_a_loop_lose_nothing_and_repeats_are_known(
    broker: kraft.Kafka,
) -> None:
    name = f"logs-{next(_NUMBERS)}"
    tansu.make_topic(broker.servers, name, 4)
    log, sent = Log(), 0
    async with reading(rule(broker, name), log) as stays:
        for _ in range(4):
            async with reading(rule(broker, name), log) as goes:
                async with asyncio.timeout(60):
                    while not count_of(goes, "events"):
                        batch = [(str(n), b"%d" % n) for n in range(sent, sent + 40)]
                        tansu.produce(broker.servers, name, batch)
                        sent += 40
                        await asyncio.sleep(0.1)
        found = lambda: {(place_of(e), e.directives.producer.sequence) for e in log.events}  # noqa: E731
        await until(lambda: len(found()) == sent, stays.states)
    # The log knows a message that comes again by its partition and offset.
    assert {int(text) for text in log.data} == set(range(sent))


_MEMBER = """
import sys
from confluent_kafka import Consumer
settings = dict(one.split("=", 1) for one in sys.argv[2:])
member = Consumer(settings)
member.subscribe([sys.argv[1]])
while not member.assignment():
    member.poll(0.1)
print("has partitions", flush=True)
while True:
    member.poll(0.1)
"""


async def test_a_dead_member_and_a_new_one_do_not_stop_the_others(broker: kraft.Kafka) -> None:
    """A member is killed and another comes before the group has noticed: what the first one keeps
    is read on, although the group waits for the dead one."""
    name, session_s = f"logs-{next(_NUMBERS)}", 25
    tansu.make_topic(broker.servers, name, 6)
    settings = {**SETTINGS, "session.timeout.ms": session_s * 1000}
    mine = rule(broker, name, settings=settings)
    log, sent = Log(), 60
    tansu.produce(broker.servers, name, [(str(n), b"%d" % n) for n in range(sent)])
    async with reading(mine, log):
        # It is a member before the other comes.
        await until(lambda: len(log.events) == sent)
        given = client_settings(SourceRule.model_validate(mine), consumes=True)
        texts_of = [f"{name}={str(value).lower()}" for name, value in given.items()]
        member = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _MEMBER, name, *texts_of, stdout=asyncio.subprocess.PIPE
        )
        assert member.stdout is not None
        assert await member.stdout.readline() == b"has partitions\n"
        member.kill()
        await member.wait()
        begun_s = time.monotonic()
        async with reading(mine, log):
            while time.monotonic() < begun_s + 5:
                before = len(log.events)
                tansu.produce(
                    broker.servers, name, [(str(n), b"%d" % n) for n in range(sent, sent + 60)]
                )
                sent += 60
                await until(lambda before=before: len(log.events) > before)  # type: ignore[misc]
            assert time.monotonic() < begun_s + session_s - 5, "it waited for the dead member"
            await until(lambda: len(set(log.data)) == sent)
            assert time.monotonic() > begun_s + session_s - 5, "the dead one had no partition"


async def test_a_topic_of_1000_partitions_is_read_by_two_nodes(broker: kraft.Kafka) -> None:
    name, count = f"logs-{next(_NUMBERS)}", 1_000
    tansu.make_topic(broker.servers, name, count)
    log = Log()
    async with reading(rule(broker, name), log) as one, reading(rule(broker, name), log) as other:
        for batch in range(3):
            # A message to each partition.
            tansu.produce_each(broker.servers, name, texts(batch * count, (batch + 1) * count))
            await until(lambda batch=batch: len(set(log.data)) == (batch + 1) * count)  # type: ignore[misc]
        assert {int(text) for text in log.data} == set(range(3 * count))
        assert len({place_of(event) for event in log.events}) == count
        await until(lambda: count_of(one, "events") > 0 and count_of(other, "events") > 0)


async def test_a_message_of_50_mb_is_set_aside_and_the_next_is_read(
    broker: kraft.Kafka, topic: str, tmp_path: pathlib.Path
) -> None:
    tansu.produce(broker.servers, topic, [b"a", b"x" * 50_000_000, b"b"])
    letters = tmp_path / "letters"
    async with cluster.node(
        "memory", sources=[rule(broker, topic, dead_letter=f"file:{letters}")]
    ) as node:
        await until_metric(node, 'fastsse_sources_total{what="events"}', 2)
        await until(letters.exists)
    assert b"50000000 bytes are not kept" in letters.read_bytes()
