"""Traces and names of requests: taken, kept, passed on, and sent to a collector."""

import asyncio
import json
import logging
import threading
from typing import Any

import pytest

from fastsse import tracing
from fastsse.server import Server
from fastsse.tracing import Tracer
from fastsse.trails import Trail, trail_of
from tests.http.conftest import Start
from tests.http.raw import connected, request
from tests.mercure.client import ask
from tests.otlp import SPAN, TRACE, TRACEPARENT, Collector, StuckProvider, attributes, collector

__all__ = ["collector"]

PARENT = f"traceparent: {TRACEPARENT}"
UNSAMPLED = f"traceparent: 00-{TRACE}-{SPAN}-00"


async def published(server: Server, *headers: str, query: str = "") -> Any:
    return await ask(server, "POST", f"/events?topic=news{query}", *headers, body=b"x")


async def test_a_recorded_publish_is_one_trace_to_the_subscriber(
    collector: Collector, start: Start
) -> None:
    server = await start(tracing=True)
    async with connected(server) as raw, connected(server) as later:
        await raw.send(request("GET", "/events?topic=news&envelope=json", PARENT))
        stream = await raw.stream()
        await stream.opening()
        answer = await published(server, PARENT, "tracestate: vendor=1")
        assert answer.status == 200
        told = json.loads((await stream.next()).data)["meta"]["traceparent"]
        await later.send(request("GET", "/events?topic=news&envelope=json&last=10", PARENT))
        replayed = await later.stream()
        assert json.loads((await replayed.next()).data)["meta"]["traceparent"] == told
        spans = await collector.named("publish", "fan-out", "subscribe")
        # That of the second ends when its replay does.
        async with asyncio.timeout(60):
            while collector.count("subscribe") < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    publish, fan_out, subscribe = (spans[n] for n in ("publish", "fan-out", "subscribe"))
    assert collector.service == "fastsse"
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert publish.parent_span_id.hex() == subscribe.parent_span_id.hex() == SPAN
    assert publish.trace_state == "vendor=1"
    assert told == f"00-{TRACE}-{publish.span_id.hex()}-01"
    assert fan_out.parent_span_id == publish.span_id
    assert attributes(publish)["messaging.destination.name"] == "news"
    assert attributes(fan_out)["fastsse.channels"] == 1
    assert len(attributes(subscribe)["fastsse.stream"]) == 32
    assert collector.count("fan-out") == 1


@pytest.mark.usefixtures("collector")
async def test_a_traced_delivery_is_an_exemplar_of_the_latency(start: Start) -> None:
    server = await start(tracing=True)
    async with connected(server) as raw:
        await raw.send(request("GET", "/events?topic=news"))
        stream = await raw.stream()
        await stream.opening()
        assert (await published(server, PARENT)).status == 200
        await stream.next()
        accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
        async with asyncio.timeout(60):
            while True:
                answer = await ask(server, "GET", "/metrics", accept)
                shown = [line for line in answer.body.decode().splitlines() if " # {" in line]
                if shown:
                    break
        classic = await ask(server, "GET", "/metrics")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    (line,) = shown
    assert line.startswith("fastsse_delivery_latency_seconds_bucket{le=")
    assert f'trace_id="{TRACE}"' in line
    bound, value = line.partition('"')[2].partition('"')[0], line.rpartition("} ")[2].split()[0]
    assert 0 < float(value) <= float(bound)
    assert classic.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert TRACE not in classic.body.decode()
    assert classic.headers["vary"] == answer.headers["vary"] == "Accept"


async def test_what_is_not_recorded_leaves_nothing(collector: Collector, start: Start) -> None:
    server = await start(tracing=True)
    async with connected(server) as raw:
        await raw.send(request("GET", "/events?topic=news&envelope=json"))
        stream = await raw.stream()
        await stream.opening()
        for header in (UNSAMPLED, "traceparent: 00-0-0-01", "Accept: */*"):
            assert (await published(server, header)).status == 200
            assert json.loads((await stream.next()).data)["meta"] is None
        await published(server, PARENT, query="&meta=" + '{"a":1}')
        assert json.loads((await stream.next()).data)["meta"].keys() == {"a", "traceparent"}
    assert {span.name for span in (await collector.named("publish")).values()} >= {"publish"}
    assert collector.count("publish") == 1


def test_a_collector_that_is_away_does_not_keep_the_server_from_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing, "_FLUSH_S", 0.01)
    given_up = threading.Event()
    Tracer(StuckProvider(given_up), lambda span: None, given_up.set).close()
    assert given_up.is_set()


async def test_without_tracing_a_trace_changes_nothing(server: Server) -> None:
    async with connected(server) as raw:
        await raw.send(request("GET", "/events?topic=news&envelope=json"))
        stream = await raw.stream()
        await stream.opening()
        assert (await published(server, PARENT)).status == 200
        assert json.loads((await stream.next()).data)["meta"] is None


async def test_a_request_id_is_answered_and_logged(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    server = await start(access_lines=100)
    with caplog.at_level(logging.INFO, "fastsse.access"):
        answer = await published(server, "X-Request-Id: abc-1", PARENT)
        assert answer.headers["x-request-id"] == "abc-1"
        refused = await ask(server, "GET", "/events", "X-Request-Id: abc-2", PARENT)
        assert refused.headers["x-request-id"] == "abc-2"
        for bad in ("a b", "x" * 129, "\u00e9"):
            answer = await published(server, f"X-Request-Id: {bad}")
            assert "x-request-id" not in answer.headers
        async with connected(server) as raw:
            await raw.send(request("GET", "/events?topic=a", "X-Request-Id: abc-3", PARENT))
            await (await raw.stream()).opening()
    lines = {one.message: one for one in caplog.records}
    line = lines["Request refused."]
    assert (line.request_id, line.trace_id, line.span_id) == ("abc-2", TRACE, SPAN)
    assert lines["Stream opened."].request_id == "abc-3"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"cc-{TRACE}-{SPAN}-01-later", True),
        (f"00-{TRACE}-{SPAN}-01-later", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        ("", None),
    ],
)
def test_a_traceparent_is_read_as_the_standard_says(header: str, sampled: bool | None) -> None:
    trail = trail_of({b"traceparent": header.encode()})
    if sampled is None:
        assert trail == Trail()
    else:
        assert (trail.trace_id, trail.span_id, trail.is_sampled) == (TRACE, SPAN, sampled)
