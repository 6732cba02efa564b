"""Alerts, dashboards and metrics, judged by Prometheus itself."""

import asyncio
import json
import re
import shutil
import subprocess
import time
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
        "--enable-feature=exemplar-storage",
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


@pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus here")
async def test_prometheus_leads_from_a_slow_delivery_to_its_trace(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    node = Served("--tracing", tmp_path / "node", nowhere)
    trace = "0af7651916cd43dd8448eb211c80319c"
    try:
        async with (
            prometheus([node], tmp_path) as client,
            httpx.AsyncClient(trust_env=False) as own,
        ):
            found: list[Any] = []
            async with asyncio.timeout(60):
                while not found:
                    await own.post(
                        f"http://{node.address}/events", params={"topic": "t"}, content="x",
                        headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"},
                    )  # fmt: skip
                    await asyncio.sleep(0.5)
                    now_s = time.time()
                    query = {
                        "query": "fastsse_delivery_latency_seconds_bucket",
                        "start": now_s - 600, "end": now_s,
                    }  # fmt: skip
                    answer = await client.get("/api/v1/query_exemplars", params=query)
                    found = answer.json()["data"]
            assert {one["labels"]["trace_id"] for one in found[0]["exemplars"]} == {trace}
            # The same names as in the classic format.
            assert await result(client, "fastsse_connections_total")
            assert await result(client, "fastsse_connections")
    finally:
        node.stop()


def test_grafana_s_sources_name_the_label_and_the_fields_that_are_sent() -> None:
    sources = yaml.safe_load((DEPLOY / "grafana" / "datasources.yml").read_text("utf-8"))
    by_name = {one["name"]: one["jsonData"] for one in sources["datasources"]}
    uids = {one["uid"] for one in sources["datasources"]}
    (to_trace,) = by_name["Prometheus"]["exemplarTraceIdDestinations"]
    assert (to_trace["name"], to_trace["datasourceUid"] in uids) == ("trace_id", True)
    (from_log,) = by_name["Loki"]["derivedFields"]
    line = json.dumps({"event": "Request refused.", "trace_id": "a" * 32})
    found = re.search(from_log["matcherRegex"], line)
    assert found is not None
    assert found[1] == "a" * 32
    boards = [json.loads(board.read_text()) for board in BOARDS]
    panels = [panel for board in boards for panel in board["panels"]]
    shown = [one for panel in panels for one in panel["targets"] if "latency" in one["expr"]]
    assert shown
    assert all(one["exemplar"] for one in shown)
