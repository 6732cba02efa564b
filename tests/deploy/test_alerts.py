"""Alerts, dashboards and metrics, judged by Prometheus itself."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from fastsse.client.publisher import Publisher
from tests.docs.blocks import ROOT
from tests.docs.servers import Served
from tests.redis.server import program, running

PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")
DEPLOY = ROOT / "deploy"
BOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
RULES = yaml.safe_load((DEPLOY / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="no promtool here")
# Empty on a service without faults, sources or Redis.
MAY_BE_EMPTY = {"Firing alerts"}


def promtool(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None
    return subprocess.run(
        (PROMTOOL, *arguments), input=text, capture_output=True, text=True, cwd=DEPLOY, check=False
    )


def test_every_alert_fires_on_its_fault_and_is_quiet_without() -> None:
    done = promtool("test", "rules", "alerts-test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    tested = (DEPLOY / "alerts-test.yml").read_text("utf-8")
    for rule in RULES:
        assert f"{rule['alert']} fires" in tested
        assert f"{rule['alert']} is quiet" in tested
    assert promtool("check", "config", "prometheus.yml").returncode == 0


def test_every_alert_has_a_section_of_the_docs() -> None:
    page = (ROOT / "docs" / "guides" / "alerts.md").read_text("utf-8")
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", line[3:].lower()).strip().replace(" ", "-")
        for line in page.splitlines()
        if line.startswith("## ")
    }
    for rule in RULES:
        file, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (file, anchor in anchors) == ("docs/guides/alerts.md", True), rule["alert"]
        assert rule["alert"] in page


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Served]]:
    """Nodes with all that has metrics: workers, Redis and a source; a file."""
    folder = tmp_path_factory.mktemp("node")
    if program() is None:
        pytest.skip("no redis-server here")
    rule = '[[sources]]\nname = "jobs"\nstream = "jobs"\ntopic = "jobs"\n'
    (folder / "sources.toml").write_text(rule)
    with running(folder / "redis") as redis:
        options = f"--store {redis.url} --workers 2 --config {folder}/sources.toml"
        nodes = [
            Served(options, folder / "redis-node", {}),
            Served(f"--store sqlite:{folder}/history.db", folder / "sqlite-node", {}),
        ]
        yield nodes
        for node in nodes:
            node.stop()


def test_names_and_units_of_metrics_are_as_prometheus_wants(served: list[Served]) -> None:
    for node in served:
        text = httpx.get(f"http://{node.address}/metrics", trust_env=False).text
        done = promtool("check", "metrics", text=text)
        assert (done.returncode, done.stderr) == (0, "")


@asynccontextmanager
async def prometheus(served: list[Served], folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A Prometheus that scrapes a node every second."""
    assert PROMETHEUS is not None
    settings = yaml.safe_load((DEPLOY / "prometheus.yml").read_text("utf-8"))
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    settings["scrape_configs"][0]["static_configs"][0]["targets"] = [
        node.address for node in served
    ]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    shutil.copy(DEPLOY / "alerts.yml", folder)
    process = await asyncio.create_subprocess_exec(
        PROMETHEUS, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        "--web.listen-address=127.0.0.1:0", "--log.format=json",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        async with asyncio.timeout(60):
            while True:
                line = json.loads(await process.stderr.readline())
                if "address" in line and line.get("msg") == "Listening on":
                    break
        async with httpx.AsyncClient(
            base_url=f"http://{line['address']}", trust_env=False, timeout=30
        ) as client:
            reading = asyncio.create_task(process.stderr.read())
            yield client
            reading.cancel()
    finally:
        process.terminate()
        await process.wait()


async def result(client: httpx.AsyncClient, expression: str) -> list[Any]:
    answer = await client.get("/api/v1/query", params={"query": expression})
    assert answer.status_code == 200, (expression, answer.text)
    return list(answer.json()["data"]["result"])


@pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus here")
async def test_no_panel_of_a_dashboard_is_empty(served: list[Served], tmp_path: Path) -> None:
    host, _, port = served[0].address.partition(":")
    panels = [panel for board in BOARDS for panel in json.loads(board.read_text())["panels"]]
    async with prometheus(served, tmp_path) as client, AsyncExitStack() as stack:
        publishers = [
            await stack.enter_async_context(Publisher(f"http://{node.address}")) for node in served
        ]
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /events?topic=t HTTP/1.1\r\nHost: localhost\r\n\r\n")
        empty = {panel["title"] for panel in panels}
        loop = asyncio.get_running_loop()
        until_s = loop.time() + 90
        while empty and loop.time() < until_s:
            for publisher in publishers * 20:
                await publisher.publish("t", "x")
            await asyncio.sleep(0.5)
            empty = {
                panel["title"]
                for panel in panels
                for target in panel["targets"]
                if panel["title"] in empty and not await result(client, filled(target["expr"]))
            } - MAY_BE_EMPTY
        writer.close()
        assert not empty
        assert await result(client, 'up{job="fastsse"}')


def filled(expression: str) -> str:
    """An expression as Grafana sends it."""
    return expression.replace("$__rate_interval", "30s").replace("$instance", ".*")
