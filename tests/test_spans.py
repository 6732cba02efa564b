"""Spans are those that OpenTelemetry's SDK would make, and its variables hold for them."""

from typing import Any, Final

import pytest

from fastsse.spans import Span, SpanMaker
from fastsse.trails import Trail, trail_of

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

TRACE, ID, OTHER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
FACTS: Final = {"messaging.system": "fastsse", "fastsse.bytes": 12, "topic": "\u00e9" * 40}


def trail(span: str = ID, state: bytes = b"") -> Trail:
    parent = f"00-{TRACE}-{span}-01".encode()
    return trail_of({b"traceparent": parent, b"tracestate": state})


def maker() -> tuple[SpanMaker, list[Any]]:
    from opentelemetry.sdk.trace import TracerProvider

    ended: list[Any] = []
    return SpanMaker(TracerProvider(), ended.append), ended


def started(spans: SpanMaker, state: bytes = b"") -> Span | None:
    links = [trail(OTHER)]
    return spans.start("work", trail(state=state), spans.kinds.CLIENT, FACTS, links, 1_000)


@pytest.mark.parametrize("error", [None, "It failed."])
@pytest.mark.parametrize("state", [b"", b"vendor=1,other=2"])
@pytest.mark.parametrize("length", ["", "5"])
def test_a_span_is_sent_as_the_one_that_the_sdk_makes(
    monkeypatch: pytest.MonkeyPatch, error: str | None, state: bytes, length: str
) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", length)
    ours, ended = maker()
    span = started(ours, state)
    assert span is not None
    span.end(error, {"more": True})
    assert sent(ended[0]) == sent(of_the_sdk(state, error))
    context = ended[0].context
    assert span.traceparent == f"00-{TRACE}-{context.span_id:016x}-01"
    assert (span.trace_id, span.state) == (TRACE, state)
    assert ended[0].end_time > ended[0].start_time == 1_000


def of_the_sdk(state: bytes, error: str | None) -> Any:
    """The same span by the SDK's tracer and propagator."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import (
        Link,
        SpanKind,
        Status,
        StatusCode,
        get_current_span,
    )
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    from fastsse.version import __version__

    def context(span: str, state: bytes = b"") -> Any:
        carrier = {"traceparent": f"00-{TRACE}-{span}-01", "tracestate": state.decode()}
        return TraceContextTextMapPropagator().extract(carrier)

    span: Any = (
        TracerProvider()
        .get_tracer("fastsse", __version__)
        .start_span(
            "work",
            context(ID, state),
            SpanKind.CLIENT,
            FACTS,
            [Link(get_current_span(context(OTHER)).get_span_context())],
            1_000,
        )
    )
    span.set_attributes({"more": True})
    if error is not None:
        span.set_status(Status(StatusCode.ERROR, error))
    span.end()
    return span


def sent(span: Any) -> Any:
    """What is sent of a span, without what differs by chance."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    message = encode_spans([span])
    one = message.resource_spans[0].scope_spans[0].spans[0]
    assert len(one.span_id) == 8
    one.span_id, one.end_time_unix_nano = b"", 0
    return message


@pytest.mark.parametrize(
    ("sampler", "argument", "is_made"),
    [
        ("", "", True),
        ("always_on", "", True),
        ("always_off", "", False),
        ("traceidratio", "0", False),
        ("traceidratio", "1", True),
        ("parentbased_traceidratio", "0", True),
    ],
)
def test_the_sampler_of_the_variables_decides(
    monkeypatch: pytest.MonkeyPatch, sampler: str, argument: str, is_made: bool
) -> None:
    if sampler:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    assert (started(maker()[0]) is not None) == is_made


def test_a_disabled_sdk_makes_no_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert started(maker()[0]) is None


def test_no_more_attributes_than_the_limit_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "2")
    spans, ended = maker()
    span = started(spans)
    assert span is not None
    span.end()
    assert len(ended[0].attributes) == 2
    assert ended[0].dropped_attributes == 1
