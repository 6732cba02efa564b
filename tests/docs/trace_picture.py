"""Draws `docs/images/trace.svg`: one trace from a publisher to a subscriber, of a real run.

`make trace-picture` runs it. A shop publishes an order to a server with `tracing`, a page follows
it, and a webhook passes it on. All three and the server send their spans to one collector, by
OpenTelemetry's SDK.
"""

import asyncio
import base64
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tests.docs.blocks import ROOT
from tests.docs.servers import Served
from tests.http.raw import get, opened
from tests.otlp import Collector, attributes
from tests.outbound.test_outbound import Receiver, answer

PICTURE = ROOT / "docs" / "images" / "trace.svg"
TOPIC = "orders/7"
STREAMS = 3
NAMES = ("place order", "publish", "fan-out", "webhook", "show order")
SHOWN = (
    "messaging.destination.name",
    "messaging.batch.message_count",
    "fastsse.channels",
    "fastsse.bytes",
    "fastsse.webhook",
)
_PROPAGATOR = TraceContextTextMapPropagator()
_WIDTH, _LEFT, _TOP, _ROW, _MS_NS = 900, 250, 58, 44, 1_000_000
_STYLE = """
text { font: 13px ui-monospace, monospace; fill: #1f2328 }
.of { fill: #656d76 } .axis { stroke: #d0d7de } .back { fill: #ffffff }
.shop { fill: #8250df } .fastsse { fill: #0969da } .page { fill: #1a7f37 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .of { fill: #8b949e } .axis { stroke: #30363d } .back { fill: #0d1117 }
  .shop { fill: #a371f7 } .fastsse { fill: #2f81f7 } .page { fill: #3fb950 }
}
"""


class Bar(NamedTuple):
    """A span as it is drawn; times in ms from the beginning of the trace."""

    service: str
    name: str
    depth: int
    begins_ms: float
    ends_ms: float
    says: str


@asynccontextmanager
async def tracer(service: str) -> AsyncIterator[Any]:
    """The tracer of a program around the server; its spans are sent at the end."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield provider.get_tracer(service)
    finally:
        await asyncio.to_thread(provider.shutdown)


async def run(folder: Path) -> list[Bar]:
    """The spans of one order."""
    async with Collector() as collector, Receiver(answer(204)) as receiver:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "20",
            "NO_PROXY": "*",
        }
        os.environ |= variables
        (folder / "fastsse.toml").write_text(_config(folder, receiver.url))
        options = "--config ../fastsse.toml --tracing"
        served = await asyncio.to_thread(Served, options, folder / "served", variables)
        try:
            parents = await _ordered(f"http://{served.address}")
            while not set(NAMES) <= {span.name for span in _of(collector, parents[0])}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        finally:
            served.stop()
        return bars(_of(collector, parents[0]), collector.services)


def _config(folder: Path, receiver: str) -> str:
    secret = "whsec_" + base64.b64encode(bytes(range(24))).decode()
    return f"""
store = "sqlite:{folder}/history.db"
outbound_networks = ["127.0.0.0/8"]
[[webhooks]]
name = "billing"
url = "{receiver}"
topics = ["orders/{{id}}"]
secrets = ["{secret}"]
"""


async def _ordered(url: str) -> list[str]:
    """Two orders, of which pages follow the second: the first loads what is loaded once."""
    are_open = asyncio.Barrier(STREAMS + 1)
    pages = [asyncio.create_task(_follow(url, are_open, number)) for number in range(STREAMS)]
    await are_open.wait()
    async with tracer("shop") as shop, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        for number in "67":
            with shop.start_as_current_span("place order"):
                headers: dict[str, str] = {}
                _PROPAGATOR.inject(headers)
                params = {"topic": f"orders/{number}"}
                sent = await client.post(
                    "/events", params=params, json={"paid": True}, headers=headers
                )
                sent.raise_for_status()
            await asyncio.sleep(0.5)
    return await asyncio.gather(*pages)


async def _follow(url: str, are_open: asyncio.Barrier, number: int) -> str:
    """A page: the `traceparent` that the event of the order brings. The first one has a span."""
    async with opened(url) as raw:
        await raw.send(get(f"/events?topic={TOPIC}&envelope=json"))
        stream = await raw.stream()
        await stream.opening()
        await are_open.wait()
        event = await stream.next()
        parent = str(json.loads(event.data)["meta"]["traceparent"])
        if number == 0:
            await _show(parent)
        return parent


async def _show(parent: str) -> None:
    """What the page does with the event, as a child of the publish."""
    context = _PROPAGATOR.extract({"traceparent": parent})
    async with tracer("page") as page:
        with page.start_as_current_span("show order", context=context):
            await asyncio.sleep(0.002)


def _of(collector: Collector, traceparent: str) -> list[Any]:
    trace = bytes.fromhex(traceparent.split("-")[1])
    return [span for span in collector.spans if span.trace_id == trace and span.name in NAMES]


def bars(spans: Sequence[Any], services: dict[bytes, str]) -> list[Bar]:
    """The spans in order: each below its parent."""
    begins = min(span.start_time_unix_nano for span in spans)
    known = {span.span_id for span in spans}

    def below(parent: bytes | None, depth: int) -> Iterator[Bar]:
        found = [
            span
            for span in spans
            if (span.parent_span_id if span.parent_span_id in known else None) == parent
        ]
        for span in sorted(found, key=lambda one: one.start_time_unix_nano):
            has = attributes(span)
            says = [f"{name.rpartition('.')[2]}={has[name]}" for name in SHOWN if name in has]
            yield Bar(
                services[span.span_id], span.name, depth,
                (span.start_time_unix_nano - begins) / _MS_NS,
                (span.end_time_unix_nano - begins) / _MS_NS,
                " ".join(says),
            )  # fmt: skip
            yield from below(span.span_id, depth + 1)

    return list(below(None, 0))


def draw(shown: Sequence[Bar]) -> str:
    """The bars as SVG, with an axis in ms."""
    length_ms = max(bar.ends_ms for bar in shown)
    height = _TOP + _ROW * len(shown) + 10
    to_x = (_WIDTH - _LEFT - 20) / length_ms
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(_sentence(shown))}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="back" width="{_WIDTH}" height="{height}"/>',
        *_axis(length_ms, to_x, height),
    ]
    for row, bar in enumerate(shown):
        y = _TOP + row * _ROW
        x, width = _LEFT + bar.begins_ms * to_x, max(2.0, (bar.ends_ms - bar.begins_ms) * to_x)
        took = f"{bar.ends_ms - bar.begins_ms:.2f} ms"
        lines += [
            f'<text x="{12 + 14 * bar.depth}" y="{y + 13}">{escape(bar.name)}</text>',
            f'<text class="of" x="{12 + 14 * bar.depth}" y="{y + 29}">{escape(bar.service)}</text>',
            f'<rect class="{bar.service}" x="{x:.1f}" y="{y}" width="{width:.1f}"'
            ' height="14" rx="2"/>',
            _label(x, y + 29, f"{took}  {bar.says}".rstrip()),
        ]
    return "\n".join([*lines, "</svg>", ""])


def _label(x: float, y: int, text: str) -> str:
    """A text that begins at x, or ends at the right border where it would pass it."""
    if x + 8 * len(text) > _WIDTH - 20:
        return f'<text class="of" x="{_WIDTH - 20}" y="{y}" text-anchor="end">{escape(text)}</text>'
    return f'<text class="of" x="{x:.1f}" y="{y}">{escape(text)}</text>'


def _axis(length_ms: float, to_x: float, height: int) -> Iterator[str]:
    step_ms = next(step for step in (0.5, 1, 2, 5, 10, 20, 50, 100, 500) if length_ms / step <= 8)
    at_ms = 0.0
    while at_ms <= length_ms:
        x = _LEFT + at_ms * to_x
        yield f'<line class="axis" x1="{x:.1f}" y1="34" x2="{x:.1f}" y2="{height}"/>'
        yield f'<text class="of" x="{x:.1f}" y="26">{at_ms:g} ms</text>'
        at_ms += step_ms


def _sentence(shown: Sequence[Bar]) -> str:
    """What a reader hears who sees no picture."""
    return "A trace: " + ", ".join(
        f"{bar.name} ({bar.service}) {bar.ends_ms - bar.begins_ms:.2f} ms" for bar in shown
    )


def main() -> int:
    """Draws it."""
    with tempfile.TemporaryDirectory() as folder:
        svg = draw(asyncio.run(run(Path(folder))))
    PICTURE.write_text(svg, "utf-8")
    print(PICTURE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
