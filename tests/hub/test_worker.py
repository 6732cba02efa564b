"""A server with a store: history outlives it, publishing waits for the commit."""

import asyncio
from pathlib import Path

import pytest

from fastsse import Config, FastsseError, Server
from fastsse.client import listen
from fastsse.hub import channels, time_budget


def config(path: Path) -> Config:
    return Config(port=0, store=f"sqlite:{path / 'history'}", log_level="error", drain="0s")


async def first_events(server: Server, count: int, **query: str) -> list[str]:
    found: list[str] = []
    url = f"{server.addresses[0]}/events"
    async with asyncio.timeout(60):
        async for message in listen(url, "a", **query):  # type: ignore[arg-type]
            found.append(message.data)
            if len(found) == count:
                return found
    raise AssertionError


async def test_resuming_after_a_restart_brings_what_came_before_it(tmp_path: Path) -> None:
    async with Server(config(tmp_path)) as server:
        first = await server.publish_later("a", "0")
        await asyncio.gather(*(server.publish_later("a", str(n)) for n in range(1, 20)))
    async with Server(config(tmp_path)) as server:
        assert await first_events(server, 19, last_event_id=first) == [str(n) for n in range(1, 20)]
        last = await server.publish_later("a", {"n": 20})
        found = await first_events(server, 20, last_event_id=first)
        assert found[-1] == '{"n":20}'
        assert last > first


async def test_publishing_at_once_needs_a_store_that_answers_at_once(tmp_path: Path) -> None:
    async with Server(config(tmp_path)) as server:
        with pytest.raises(RuntimeError, match="publish_later"):
            server.publish("a", "x")
        async with asyncio.timeout(60):
            await server.publish_later("a", "kept")
        assert await first_events(server, 1, since="earliest") == ["kept"]


async def test_publishing_later_works_with_memory_too() -> None:
    async with Server(Config(port=0, log_level="error")) as server:
        assert await server.publish_later("a", "x") < await server.publish_later("a", "y")


async def test_streams_whose_templates_need_time_open_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time_budget, "BURST_S", 0.0)
    monkeypatch.setattr(channels, "LOOKS_AT_ONCE", 1)
    monkeypatch.setattr(channels, "LOOKS_A_STEP", 10)
    async with Server(Config(port=0, log_level="error")) as server, asyncio.timeout(60):
        for index in range(100):
            server.publish(f"user/{index}", "x")
        for index in range(3):
            url = f"{server.addresses[0]}/events"
            async with listen(url, f"{{x}}/{{y}}{index}") as stream:
                server.publish(f"user/0{index}", "seen")
                assert (await anext(aiter(stream))).data == "seen"


async def test_a_store_that_can_not_be_opened_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "history").mkdir()
    server = Server(config(tmp_path))
    with pytest.raises(FastsseError):
        await server.start()
    with pytest.raises(RuntimeError):
        _ = server.port
