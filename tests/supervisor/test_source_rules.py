"""Topic rules hold for events of sources, whatever process runs them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.auth.minting import SECRET, mint
from tests.supervisor.service import reload

KEY = ("--jwt-key", SECRET, "--anonymous")
READER = mint({"mercure": {"subscribe": ["secret/a"]}}, key=SECRET).decode()
PRIVATE = """
[[topics]]
match = "secret/*"
private = true
data_schema = '{"type": "integer"}'
"""
SOURCE = """
[[sources]]
name = "lines"
files = ["%s/*.log"]
place = "%s/places"
start = "earliest"
topic = "secret/a"
"""


@pytest.mark.parametrize("workers", [1, 2])
async def test_rules_make_events_of_a_source_private_and_refuse_others(
    serve: Any, tmp_path: Path, workers: int
) -> None:
    file, pidfile = tmp_path / "f.toml", str(tmp_path / "pid")
    source, lines = SOURCE % (tmp_path, tmp_path), tmp_path / "a.log"
    file.write_text(PRIVATE + source)
    lines.write_text("17\nno number\n")
    service = await serve(
        "--workers", str(workers), *KEY, "--config", str(file), "--pidfile", pidfile,
        "--store", f"sqlite:{tmp_path / 'h.db'}",
    )  # fmt: skip
    async with httpx.AsyncClient(base_url=service.url, trust_env=False, timeout=20) as client:
        await _read(client, ["17"], READER)
        await _skipped(client, 1)
        assert await _page(client) == []
        # By other rules, from a reload on.
        file.write_text('[[topics]]\nmatch = "secret/*"\ntypes = ["message"]\n' + source)
        assert await reload("--pidfile", pidfile) == (0, "Reloaded.\n")
        with lines.open("a") as output:
            output.write("no number either\n")
        await _read(client, ["no number either"], None)
        file.write_text('[[topics]]\nmatch = "secret/*"\ntypes = ["none"]\n' + source)
        assert await reload("--pidfile", pidfile) == (0, "Reloaded.\n")
        with lines.open("a") as output:
            output.write("of no allowed type\n")
        await _skipped(client, 2)
        assert await _page(client) == ["no number either"]


async def _page(client: httpx.AsyncClient, token: str | None = None) -> list[str]:
    params = {"topic": "secret/a", "since": "earliest", "wait": "0"}
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    answer = await client.get("/events", params=params, headers=headers)
    return [str(event["data"]) for event in json.loads(answer.text)["events"]]


async def _read(client: httpx.AsyncClient, wanted: list[str], token: str | None) -> None:
    async with asyncio.timeout(60):
        while await _page(client, token) != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _skipped(client: httpx.AsyncClient, count: int) -> None:
    line = f'fastsse_sources_total{{what="skipped"}} {count}.0'
    async with asyncio.timeout(60):
        while line not in (await client.get("/metrics")).text:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
