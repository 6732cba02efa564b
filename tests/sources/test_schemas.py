"""What comes changes its form while a source reads: all that can be an event is one, the rest waits
with its reason."""

import asyncio
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from fastsse.config import Config
from fastsse.sources import Sources
from tests.sources import brokers
from tests.sources.test_contract import Log, count_of, reading, until


@pytest.fixture
def database(tmp_path: pathlib.Path) -> Iterator[brokers.PostgresServer]:
    server = brokers.PostgresServer(tmp_path / "postgres")
    server.start()
    yield server
    server.close()


async def test_a_table_may_get_and_lose_columns_and_be_made_again(
    database: brokers.PostgresServer, tmp_path: pathlib.Path
) -> None:
    log = Log()

    async def run(query: str) -> None:
        # In a thread: a lock that the source has ends only with its next step.
        await asyncio.to_thread(database.execute, query)

    await run("CREATE TABLE jobs (id bigserial PRIMARY KEY, kind text, data text)")
    rule = {
        "name": "s", "url": database.url, "table": "jobs", "topic": "t/{field.kind}",
        "dead_letter": f"file:{tmp_path}/bad.jsonl",
    }  # fmt: skip
    async with reading(rule, log) as sources:
        # More than the library sends before it prepares a statement.
        for n in range(8):
            await run(f"INSERT INTO jobs (kind, data) VALUES ('a', '{n}')")
            await until(lambda n=n: len(log.events) == n + 1)  # type: ignore[misc]
        await run("ALTER TABLE jobs ADD COLUMN more jsonb")
        await run("INSERT INTO jobs (kind, data, more) VALUES ('a', '8', '{}')")
        await until(lambda: len(log.events) == 9, sources.states)
        await run("ALTER TABLE jobs ALTER COLUMN kind TYPE integer USING length(kind)")
        await run("INSERT INTO jobs (kind, data) VALUES (5, '9')")
        await until(lambda: len(log.events) == 10, sources.states)
        await run("ALTER TABLE jobs DROP COLUMN kind")
        await run("INSERT INTO jobs (data) VALUES ('none')")
        await until(lambda: count_of(sources, "skipped") == 1, sources.states)
        await run("DROP TABLE jobs")
        await until(lambda: "jobs" in (sources.states()[0]["trouble"] or ""), sources.states)
        await run("CREATE TABLE jobs (id bigserial PRIMARY KEY, kind text, data text)")
        await run("INSERT INTO jobs (kind, data) VALUES ('a', '10')")
        await until(lambda: len(log.events) == 11, sources.states)
    assert log.data == [str(n) for n in range(11)]
    assert log.events[9].topics == ("t/5",)
    letter = json.loads((tmp_path / "bad.jsonl").read_text())
    assert (letter["payload"], letter["why"]) == ("none", "has no field.kind")


async def test_messages_of_a_new_form_are_set_aside_and_replayed_by_a_new_rule(
    tmp_path: pathlib.Path,
) -> None:
    file, log = tmp_path / "app.log", Log()
    old = [{"service": "a", "n": n} for n in range(3)]
    new = [{"v": 2, "app": {"name": "a"}, "n": n} for n in range(3, 6)]
    file.write_text("".join(json.dumps(one) + "\n" for one in (*old, *new)))
    rule: dict[str, Any] = {
        "name": "s", "files": [str(file)], "payload": "json", "topic": "{data.service}",
        "dead_letter": f"file:{tmp_path}/bad.jsonl",
    }  # fmt: skip
    async with reading(rule, log) as sources:
        await until(lambda: count_of(sources, "skipped") == 3)
        assert [json.loads(text)["n"] for text in log.data] == [0, 1, 2]
    changed = Sources(Config(sources=[{**rule, "topic": "{data.app.name}"}]), log.publish)
    await changed.letters({"source": "s", "count": 10, "replays": True})
    shown: dict[str, Any] = {"replay": {"state": "running"}}
    while shown["replay"]["state"] == "running":
        await asyncio.sleep(0.02)
        shown = await changed.letters({"source": "s", "count": 10})
    await changed.close()
    assert shown["letters"] == []
    assert [json.loads(text)["n"] for text in log.data] == [0, 1, 2, 3, 4, 5]
