"""A reload applies topic rules to a service that runs, and no stream ends."""

import asyncio
import json
import secrets
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.auth.minting import SECRET, mint
from tests.http.raw import get, opened
from tests.supervisor.service import reload

BEFORE = """
[[topics]]
match = "few/*"
history_events = 5
"""
AFTER = """
[[topics]]
match = "few/*"
history_events = 2
[[topics]]
match = "typed/*"
types = ["tick"]
[[topics]]
match = "shy/*"
private = true
[[topics]]
match = "slow/*"
max_publish_rate = 1
[[topics]]
match = "wrapped/*"
envelope = "json"
"""
KEY = ("--jwt-key", SECRET, "--anonymous")
TOKEN = mint({"mercure": {"publish": ["*"]}}, key=SECRET).decode()


@pytest.mark.parametrize(
    ("workers", "store"), [(1, "memory"), (1, "sqlite"), (2, "memory"), (2, "sqlite")]
)
async def test_reload_applies_topic_rules_without_ending_a_stream(
    serve, tmp_path: Path, workers: int, store: str
) -> None:
    file, pidfile = tmp_path / "f.toml", str(tmp_path / "pid")
    file.write_text(BEFORE)
    service = await serve(
        "--workers", str(workers), "--config", str(file), "--pidfile", pidfile,
        *KEY, "--store", "memory" if store == "memory" else f"sqlite:{tmp_path / 'h.db'}",
    )  # fmt: skip
    before = service.children()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=20))
        streams = await _open(stack, service.url, 6)
        post = _poster(client, service.url)
        for number in range(6):
            assert (await post("few/a", str(number))).status_code == 200
        for topic in ("typed/a", "shy/a", "slow/a", "slow/a"):  # Natively, and known from now on.
            assert (await post(topic, "before")).status_code == 200
        file.write_text(AFTER)
        assert await reload("--pidfile", pidfile) == (0, "Reloaded.\n")

        refused = await post("typed/a", "after")
        assert (refused.status_code, "typed/a" in refused.text) == (400, True)
        assert (await post("typed/a", "after", event="tick")).status_code == 200
        assert (await post("shy/a", "after")).status_code == 200
        statuses = [(await post("slow/a", "x")).status_code for _ in range(4)]
        assert statuses[0] == 200
        assert statuses[-1] == 429
        assert await _settled(client, service.url, "few/a") == ["4", "5"]
        assert await _page(client, service.url, "shy/a") == ["before"]
        await _wrapped(stack, service.url, post)

        # All streams are the ones that were opened first, and got what they may.
        await post("last", "last")
        for stream in streams:
            seen = [""]
            while seen[-1] != "last":
                seen.append((await stream.next()).data)
            assert seen.count("before") == 4
            assert seen.count("after") == 1  # The one of typed/a: that of shy/a is private.
    assert service.children() == before
    if store == "sqlite" and workers == 1:
        await service.stop()
        again = await serve(*KEY, "--store", f"sqlite:{tmp_path / 'h.db'}")
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            # The file itself was shortened, not only what memory has of it.
            assert await _page(client, again.url, "few/a") == ["4", "5"]


async def test_log_options_are_taken_over_by_all_processes(serve, tmp_path: Path) -> None:
    file, pidfile = tmp_path / "f.toml", str(tmp_path / "pid")
    file.write_text("")
    service = await serve("--workers", "2", "--config", str(file), "--pidfile", pidfile)
    before = service.children()
    file.write_text('log_level = "warning"\n')
    assert await reload("--pidfile", pidfile) == (0, "Reloaded.\n")
    seen = len(service.log)
    async with AsyncExitStack() as stack:
        await _open(stack, service.url, 4)
    file.write_text('log_level = "info"\n')
    assert await reload("--pidfile", pidfile) == (0, "Reloaded.\n")
    async with AsyncExitStack() as stack:
        await _open(stack, service.url, 1)
        await service.logged("Stream opened.")
    events = [record["event"] for record in service.log[seen:]]
    assert events.count("Stream opened.") == 1
    assert service.children() == before


async def test_reload_of_topic_rules_and_more_replaces_workers(serve, tmp_path: Path) -> None:
    file, pidfile = tmp_path / "f.toml", str(tmp_path / "pid")
    file.write_text(BEFORE)
    service = await serve("--workers", "2", *KEY, "--config", str(file), "--pidfile", pidfile)
    before = service.children()
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        post = _poster(client, service.url)
        for number in range(6):
            await post("few/a", str(number))
        await _counted(client, service.url, 'fastsse_topic_rule_events_total{rule="few/*"} 6.0')
        file.write_text('heartbeat = "5s"\n' + AFTER)
        assert await reload("--pidfile", pidfile) == (0, "Reloaded: 2 workers replaced.\n")
        after = await service.replaced(before)
        assert after["hub"] == before["hub"]
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        assert await _settled(client, service.url, "few/a") == ["4", "5"]


async def _open(stack: AsyncExitStack, url: str, count: int) -> list[Any]:
    streams = []
    for _ in range(count):
        raw = await stack.enter_async_context(opened(url))
        await raw.send(get("/events?topic=*"))
        streams.append(await raw.stream())
        await streams[-1].opening()
    return streams


def _poster(client: httpx.AsyncClient, url: str) -> Any:
    def post(topic: str, data: str, **more: str) -> Any:
        params = {"topic": topic, **more}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return client.post(f"{url}/events", params=params, content=data, headers=headers)

    return post


async def _page(client: httpx.AsyncClient, url: str, topic: str, *more: str) -> list[str]:
    """What a newcomer gets of a topic, of one worker or another."""
    params = {"topic": [topic, *more], "since": "earliest", "wait": "0"}
    answer = await client.get(f"{url}/events", params=params, headers={"connection": "close"})
    return [event["data"] for event in answer.json()["events"]]


async def _counted(client: httpx.AsyncClient, url: str, line: str) -> None:
    """Returns when all workers have reported; each has the whole log, and it counts once."""
    async with asyncio.timeout(60):
        while line not in (await client.get(f"{url}/metrics")).text:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _settled(client: httpx.AsyncClient, url: str, topic: str) -> list[str]:
    """The same once it is what all workers answer: they evict in steps. Each time with a topic of
    its own, because a page that was made before is answered again."""
    async with asyncio.timeout(60):
        while True:
            pages = [await _page(client, url, topic, secrets.token_hex(4)) for _ in range(8)]
            if all(page == pages[0] for page in pages) and len(pages[0]) < 3:
                return pages[0]


async def _wrapped(stack: AsyncExitStack, url: str, post: Any) -> None:
    raw = await stack.enter_async_context(opened(url))
    await raw.send(get("/events?topic=wrapped/a"))
    stream = await raw.stream()
    await stream.opening()
    await post("wrapped/a", "inside")
    assert json.loads((await stream.next()).data)["data"] == "inside"
