"""A collector of OpenTelemetry's traces for tests. Without `fastsse[otel]` they are skipped."""

import asyncio
import gzip
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.loopback import LoopbackServer

collector_messages = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
sdk = pytest.importorskip("opentelemetry.sdk.trace")

#: What a publisher sends that records a trace.
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


class StuckProvider(sdk.TracerProvider):  # type: ignore[misc, name-defined]
    """Shuts down only when it is given up."""

    def __init__(self, given_up: threading.Event) -> None:
        super().__init__()
        self._given_up = given_up

    def shutdown(self) -> None:
        assert self._given_up.wait(60)


class Collector(LoopbackServer):
    """Takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[Any] = []
        self.service = ""
        #: By the id of a span.
        self.services: dict[bytes, str] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = dict(
                line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line
            )
            body = await reader.readexactly(int(lines[b"content-length"]))
            if lines.get(b"content-encoding") == b"gzip":
                body = gzip.decompress(body)
            message = collector_messages.ExportTraceServiceRequest.FromString(body)
            for resource in message.resource_spans:
                named = {one.key: one.value.string_value for one in resource.resource.attributes}
                self.service = named["service.name"]
                for scope in resource.scope_spans:
                    self.spans += scope.spans
                    self.services |= {span.span_id: self.service for span in scope.spans}
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()

    def count(self, name: str) -> int:
        """How many spans have this name."""
        return sum(span.name == name for span in self.spans)

    async def named(self, *names: str) -> dict[str, Any]:
        """The spans of these names, when they are there."""
        async with asyncio.timeout(60):
            while not set(names) <= {span.name for span in self.spans}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return {span.name: span for span in self.spans}


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    async with Collector() as one:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", one.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        monkeypatch.setenv("NO_PROXY", "*")
        yield one


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
