"""Traces go through a real OpenTelemetry collector, as they leave for Tempo and others, and into a
real Jaeger."""

import asyncio
import json
import os
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.cli.commandline import ROOT
from tests.http.raw import connected, request
from tests.loopback import held_port
from tests.mercure.client import ask
from tests.otlp import SPAN, TRACE, TRACEPARENT, Collector, attributes, collector

__all__ = ["collector"]


def _program(name: str) -> str | None:
    """One that is installed, or that make has built."""
    built = ROOT / "build" / name / name
    return shutil.which(name) or (str(built) if built.exists() else None)


START_S: Final = 60
TAKES: Final = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
"""
OTELCOL: Final = (
    TAKES
    + """
exporters: {{otlphttp: {{endpoint: "{behind}", sending_queue: {{batch: {{flush_timeout: 20ms}}}}}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [otlphttp]}}}}
"""
)
JAEGER: Final = (
    TAKES
    + """
extensions:
  jaeger_storage: {{backends: {{kept: {{memory: {{max_traces: 100}}}}}}}}
  jaeger_query:
    storage: {{traces: kept}}
    http: {{endpoint: "127.0.0.1:{http}"}}
    grpc: {{endpoint: "127.0.0.1:{grpc}"}}
exporters: {{jaeger_storage_exporter: {{trace_storage: kept}}}}
service:
  extensions: [jaeger_storage, jaeger_query]
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}}}
"""
)
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@asynccontextmanager
async def running(name: str, config: str, folder: Path) -> AsyncIterator[None]:
    """A program of the collector's family with this file."""
    program = _program(name)
    assert program is not None
    file, log = folder / "config.yaml", folder / "log"
    file.write_text(config)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(program, "--config", str(file)),
            stdout=output,
            stderr=output,
            env={**os.environ, "NO_PROXY": "*"},
        )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


def ports(count: int) -> list[int]:
    """Free ones."""
    with ExitStack() as held:
        return [held.enter_context(held_port()).getsockname()[1] for _ in range(count)]


@pytest.fixture
async def through_otelcol(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Collector]:
    """What a real collector passes on of the spans that it is sent."""
    if _program("otelcol") is None:
        pytest.skip("no OpenTelemetry collector here: make otelcol builds one, with Go")
    (port,) = ports(1)
    async with running("otelcol", OTELCOL.format(port=port, behind=collector.url), tmp_path):
        url = f"http://127.0.0.1:{port}"
        await asyncio.to_thread(_answers, url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        yield collector


@pytest.fixture
async def jaeger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The address of a real Jaeger's API; spans go into it."""
    if _program("jaeger") is None:
        pytest.skip("no Jaeger here: make jaeger builds one, with Go")
    port, http, grpc = ports(3)
    async with running("jaeger", JAEGER.format(port=port, http=http, grpc=grpc), tmp_path):
        for one in (port, http):
            await asyncio.to_thread(_answers, f"http://127.0.0.1:{one}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{http}"


def _answers(url: str) -> None:
    for _ in range(START_S * 50):
        try:
            _opener.open(f"{url}/", timeout=1)
        except urllib.error.HTTPError:
            return
        except OSError:
            threading.Event().wait(0.02)
        else:
            return
    raise AssertionError("the program does not start")


async def traced() -> None:
    """A stream and an event of one trace."""
    config = Config(port=0, tracing=True, access_lines=0, drain="0s")
    async with Server(config) as server, connected(server) as raw:
        parent = f"traceparent: {TRACEPARENT}"
        await raw.send(request("GET", "/events?topic=news", parent))
        stream = await raw.stream()
        await stream.opening()
        answer = await ask(server, "POST", "/events?topic=news", parent, body=b"x")
        assert answer.status == 200
        await stream.next()


async def test_a_trace_goes_through_a_real_collector(through_otelcol: Collector) -> None:
    await traced()
    spans = await through_otelcol.named("publish", "fan-out", "subscribe")
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert spans["publish"].parent_span_id.hex() == SPAN
    assert spans["fan-out"].parent_span_id == spans["publish"].span_id
    assert attributes(spans["fan-out"])["fastsse.channels"] == 1
    assert through_otelcol.service == "fastsse"


async def test_jaeger_shows_a_trace_from_publish_to_fan_out(jaeger: str) -> None:
    await traced()
    async with asyncio.timeout(START_S):
        while len(trace := await asyncio.to_thread(_trace, jaeger)) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    spans = {span["operationName"]: span for span in trace}
    assert set(spans) == {"publish", "fan-out", "subscribe"}
    parents = {name: span["references"][0]["spanID"] for name, span in spans.items()}
    assert parents == {
        "publish": SPAN,
        "subscribe": SPAN,
        "fan-out": spans["publish"]["spanID"],
    }
    services = await asyncio.to_thread(_ask, f"{jaeger}/api/services")
    assert services["data"] == ["fastsse"]


def _trace(jaeger: str) -> list[dict[str, Any]]:
    """The spans of the trace that Jaeger has until now."""
    try:
        found = _ask(f"{jaeger}/api/traces/{TRACE}")
    except urllib.error.HTTPError as error:
        assert error.code == 404  # noqa: PT017 -- nothing of it yet.
        return []
    return [span for trace in found["data"] for span in trace["spans"]]


def _ask(url: str) -> Any:
    with _opener.open(url, timeout=5) as answer:
        return json.load(answer)
