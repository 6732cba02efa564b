"""Traces go through a real OpenTelemetry collector, as they leave for Jaeger, Tempo and others."""

import asyncio
import os
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.cli.commandline import ROOT
from tests.http.raw import connected, request
from tests.loopback import held_port
from tests.mercure.client import ask
from tests.otlp import SPAN, TRACE, TRACEPARENT, Collector, attributes, collector

__all__ = ["collector"]

BUILT: Final = ROOT / "build" / "otelcol" / "otelcol"
PROGRAM: Final = shutil.which("otelcol") or (str(BUILT) if BUILT.exists() else None)
START_S: Final = 60
CONFIG: Final = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{otlphttp: {{endpoint: "{behind}", sending_queue: {{batch: {{flush_timeout: 20ms}}}}}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [otlphttp]}}}}
"""


@pytest.fixture
async def through_otelcol(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Collector]:
    """What a real collector passes on of the spans that it is sent."""
    if PROGRAM is None:
        pytest.skip("no OpenTelemetry collector here: make otelcol builds one, with Go")
    with held_port() as held:
        port = held.getsockname()[1]
        file, log = tmp_path / "otelcol.yaml", tmp_path / "log"
        file.write_text(CONFIG.format(port=port, behind=collector.url))
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(PROGRAM, "--config", str(file)),
                stdout=output,
                stderr=output,
                env={**os.environ, "NO_PROXY": "*"},
            )
        try:
            url = f"http://127.0.0.1:{port}"
            await asyncio.to_thread(_answers, url)
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
            yield collector
        finally:
            process.terminate()
            await process.wait()


def _answers(url: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(START_S * 50):
        try:
            opener.open(f"{url}/", timeout=1)
        except urllib.error.HTTPError:
            return
        except OSError:
            threading.Event().wait(0.02)
    raise AssertionError("the collector does not start")


async def test_a_trace_goes_through_a_real_collector(through_otelcol: Collector) -> None:
    config = Config(port=0, tracing=True, access_lines=0, drain="0s")
    async with Server(config) as server, connected(server) as raw:
        parent = f"traceparent: {TRACEPARENT}"
        await raw.send(request("GET", "/events?topic=news", parent))
        stream = await raw.stream()
        await stream.opening()
        answer = await ask(server, "POST", "/events?topic=news", parent, body=b"x")
        assert answer.status == 200
        await stream.next()
        spans = await through_otelcol.named("publish", "fan-out", "subscribe")
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert spans["publish"].parent_span_id.hex() == SPAN
    assert spans["fan-out"].parent_span_id == spans["publish"].span_id
    assert attributes(spans["fan-out"])["fastsse.channels"] == 1
    assert through_otelcol.service == "fastsse"
