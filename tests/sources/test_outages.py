"""All systems away at once, for as long as operators must be reminded: what they see, and what
comes when the systems are there again."""

import asyncio
import contextlib
import pathlib
from typing import Any

import pytest

from fastsse.redis import health
from tests.redis import cluster
from tests.redis.cluster import subscribers
from tests.sources.systems import SYSTEMS

AWAY = "A source is away."
# Twice as often as in service there would be 120 in an hour.
_REMINDERS_S = 1.0
_AWAY_S = 4.0
NAMES = ("redis-stream", "kafka", "jetstream", "postgres-outbox", "mqtt", "files")


def _texts(name: str, first: int, behind: int) -> list[str]:
    return [f"{name}-{number}" for number in range(first, behind)]


async def _states(url: str) -> dict[str, dict[str, Any]]:
    answer = await cluster.get(url, "/admin/sources")
    return {one["name"]: one for one in answer.json()["sources"]}


async def _until_all_are(url: str, state: str) -> dict[str, dict[str, Any]]:
    async with asyncio.timeout(120):
        while True:
            found = await _states(url)
            if all(one["state"] == state for one in found.values()):
                return found
            await asyncio.sleep(0.1)


def _logged(caplog: pytest.LogCaptureFixture, what: str, name: str) -> int:
    return sum(one.message == what and one.__dict__.get("source") == name for one in caplog.records)


async def test_systems_that_are_away_for_long_are_shown_everywhere_and_lose_and_repeat_nothing(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "REMINDERS_EACH_S", _REMINDERS_S)
    with contextlib.ExitStack() as stack:
        systems: dict[str, Any] = {}
        for name in NAMES:
            systems[name] = SYSTEMS[name](tmp_path / name)
            stack.callback(systems[name].close)
            systems[name].start()
        sources = [{"name": name, "topic": "t", **system.rule} for name, system in systems.items()]
        async with (
            cluster.node(f"sqlite:{tmp_path}/h.db", sources=sources) as url,
            subscribers([url]) as (reader,),
        ):
            await _send(systems, reader, 0, 5)
            for system in systems.values():
                system.kill()
            await _until_all_are(url, "away")
            await asyncio.sleep(_AWAY_S)
            found = await _until_all_are(url, "away")
            ready = (await cluster.get(url, "/readyz")).text
            assert f"sources are away: {', '.join(sorted(NAMES))}" in ready
            for name in NAMES:
                assert found[name]["trouble"], found[name]
                assert 2 <= _logged(caplog, AWAY, name) <= 20
            for system in systems.values():
                system.start()
            await _until_all_are(url, "ready")
            await _send(systems, reader, 5, 10)
        for name in NAMES:
            seen = [text for text in reader.seen if text.startswith(name)]
            assert seen == _texts(name, 0, 10)


async def _send(systems: dict[str, Any], reader: Any, first: int, behind: int) -> None:
    """Sends to all, and returns when the stream has it."""
    for name, system in systems.items():
        async with asyncio.timeout(90):
            while not system.is_read():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await asyncio.to_thread(
            system.send, [text.encode() for text in _texts(name, first, behind)]
        )
    await reader.saw(*(text for name in systems for text in _texts(name, first, behind)))
