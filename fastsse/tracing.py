"""Traces: spans of publishes, fan-outs and streams, sent by OpenTelemetry's SDK (`fastsse[otel]`).

A trace begins at a publisher that records it: the flag `sampled` of its `traceparent`. Other
requests make no span and cost no more than reading the header. A traced event carries the context
of its publish in `meta.traceparent`, so that streams with envelopes, stores and other systems pass
it on. A fan-out is one span with counts, whatever the number of streams. Loop thread only.
"""

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import orjson

from fastsse.config import Config, ConfigError, OptionProblem
from fastsse.errors import InvalidEvent
from fastsse.events import Event
from fastsse.meta import encode_meta
from fastsse.metrics import Exemplar
from fastsse.spans import Span, SpanMaker
from fastsse.trails import NO_TRAIL, Trail, trail_of
from fastsse.version import __version__

if TYPE_CHECKING:
    from fastsse.entries import Entry

__all__ = ["TRACEPARENT", "Tracer", "open_tracer", "tracer_of", "trail_in"]

WhenSwept = Callable[[Callable[..., None]], bool]
"""Calls back when the sender has answered; False: it does not."""

#: The member of an event's meta, and the header.
TRACEPARENT: Final = "traceparent"
_TRACESTATE: Final = "tracestate"
_MARK: Final = b'"traceparent"'
_NS_A_MS: Final = 1_000_000
_FLUSH_S: Final = 2.0
_SERVICE: Final = "service.name"
_NAMING: Final = ("OTEL_RESOURCE_ATTRIBUTES",)
_SYSTEM: Final = {"messaging.system": "fastsse"}
_NUMBER: Final = (1 << 64) - 1
# The words of a source's message that have the context: headers of Kafka and NATS, whose clients in
# Go write the name as HTTP does, and fields of streams and rows.
_CARRIERS: Final = ("header.traceparent", "header.Traceparent", "field.traceparent")


class Tracer:
    """Makes spans.

    Arguments:
        provider: a `TracerProvider` of the SDK.
        on_end: takes a span that has ended, as `SpanProcessor.on_end`.
        give_up: ends sending to a collector that does not answer.
    """

    def __init__(
        self,
        provider: Any,
        on_end: Callable[[Any], object],
        give_up: Callable[[], object] = lambda: None,
    ) -> None:
        self._provider = provider
        self._give_up = give_up
        self._spans = SpanMaker(provider, on_end)
        self._kinds = self._spans.kinds
        self._exemplars: dict[str, Exemplar] = {}
        #: Upper bounds of the buckets of the latency histogram, s.
        self.bounds: Sequence[float] = ()

    def start(self, name: str, trail: Trail, attributes: Mapping[str, Any]) -> Span | None:
        """A span below the one that a request names; None if that is not recorded."""
        if not trail.is_sampled:
            return None
        return self._spans.start(name, trail, self._kinds.SERVER, {**_SYSTEM, **attributes})

    def publish(self, trail: Trail, events: Sequence[Event]) -> tuple[Span | None, Sequence[Event]]:
        """The span of a publish, and the events with its context."""
        if not trail.is_sampled:
            return None, events
        topics = [topic for event in events[:1] for topic in event.topics]
        span = self.start(
            "publish",
            trail,
            {
                "messaging.operation.name": "publish",
                "messaging.operation.type": "send",
                "messaging.destination.name": topics[0] if topics else "",
                "messaging.batch.message_count": len(events),
            },
        )
        if span is None:
            return None, events
        return span, [_with_context(event, span) for event in events]

    def receive(
        self, source: str, system: str, words: Mapping[str, str], event: Event
    ) -> tuple[Span | None, Event]:
        """The span of a message that a source read, and its event with the context; None if the
        message names no trace that is recorded.

        Arguments:
            source, system: name and kind of the source.
            words: those of the message.
        """
        trail = _carried(words)
        if not trail.is_sampled:
            return None, event
        attributes = {
            "messaging.system": system,
            "messaging.operation.name": "receive",
            "messaging.operation.type": "receive",
            "messaging.destination.name": event.topics[0],
            "fastsse.source": source,
        }
        span = self._spans.start("receive", trail, self._kinds.CONSUMER, attributes)
        return span, event if span is None else _with_context(event, span)

    def deliver(self, webhook: str, trails: Sequence[Trail], count: int) -> Span | None:
        """The span of a request with events; None if no event is of a trace that is recorded.

        Arguments:
            webhook: the rule's name.
            trails: of its events. The span is below the first, and linked to the others.
            count: how many events the request has.
        """
        sampled = [trail for trail in trails if trail.is_sampled]
        if not sampled:
            return None
        attributes = {
            **_SYSTEM,
            "messaging.operation.name": "webhook",
            "messaging.operation.type": "send",
            "messaging.batch.message_count": count,
            "fastsse.webhook": webhook,
        }
        return self._spans.start("webhook", sampled[0], self._kinds.CLIENT, attributes, sampled[1:])

    @property
    def exemplars(self) -> Mapping[str, Exemplar]:
        """The newest traced event of each bucket of the latency histogram, by the bucket's index
        as text."""
        return self._exemplars

    def fan_out(
        self,
        entries: Iterable["Entry"],
        channels: Callable[[str], int],
        when_swept: WhenSwept = lambda done: False,
    ) -> None:
        """A span for each traced event that was handed to the channels of its topics. It ends when
        the sender has swept them once.

        Arguments:
            channels: gives how many channels a topic has.
        """
        for entry in entries:
            meta = None if entry.extras is None else entry.extras.meta
            if meta is None or _MARK not in meta:
                continue
            trail = trail_in(orjson.loads(meta))
            if trail.is_sampled:
                self._fan_out(entry, trail, channels, when_swept)

    def _fan_out(
        self,
        entry: "Entry",
        trail: Trail,
        channels: Callable[[str], int],
        when_swept: WhenSwept,
    ) -> None:
        attributes = {
            **_SYSTEM,
            "messaging.destination.name": entry.topics[0],
            "fastsse.channels": sum(map(channels, entry.topics)),
            "fastsse.bytes": entry.frame.size,
            "fastsse.position": f"{entry.position >> 64}-{entry.position & _NUMBER}",
        }
        start_ns = entry.frame.time_ms * _NS_A_MS
        kind = self._kinds.INTERNAL
        span = self._spans.start("fan-out", trail, kind, attributes, start_ns=start_ns)
        if span is None:
            return
        began_s = time.monotonic()

        def swept(*_: object) -> None:
            self._note(span, time.monotonic() - began_s)
            span.end()

        def taken(*_: object) -> None:
            # The sender has read the command and begins to sweep; its next answer is behind that.
            if not when_swept(swept):
                span.end()

        if not when_swept(taken):
            span.end()

    def _note(self, span: Span, latency_s: float) -> None:
        """Keeps a traced event as the newest of its bucket."""
        index = str(bisect_left(self.bounds, latency_s))
        self._exemplars[index] = (span.trace_id, latency_s, time.time())

    def close(self) -> None:
        """Sends what waits; takes up to seconds, so call it on a thread of its own."""
        # A collector that is away would delay the stop by the retries of ten seconds.
        patience = threading.Timer(_FLUSH_S, self._give_up)
        patience.start()
        try:
            self._provider.shutdown()
        finally:
            patience.cancel()


def trail_in(meta: Mapping[str, Any]) -> Trail:
    """The trace that an event's meta names."""
    return _trail(meta.get(TRACEPARENT), meta.get(_TRACESTATE))


def _carried(words: Mapping[str, str]) -> Trail:
    """The trace that a message of a source names."""
    for name in _CARRIERS:
        parent = _word(words, name)
        if parent is not None:
            return _trail(parent, _word(words, name.replace("parent", "state")))
    return NO_TRAIL


def _word(words: Mapping[str, str], name: str) -> str | None:
    try:
        return words[name]
    except (KeyError, ValueError):
        return None


def _trail(parent: object, state: object) -> Trail:
    texts = [text if isinstance(text, str) else "" for text in (parent, state)]
    given = zip((b"traceparent", b"tracestate"), texts, strict=True)
    return trail_of({name: text.encode("latin-1", "replace") for name, text in given})


def _with_context(event: Event, span: Span) -> Event:
    """The event with the context in its meta, unless that is full or has one."""
    meta: dict[str, Any] = {} if event.meta is None else orjson.loads(event.meta)
    if TRACEPARENT in meta:
        return event
    added = {TRACEPARENT: span.traceparent}
    if span.state:
        added[_TRACESTATE] = span.state.decode("latin-1")
    try:
        packed = encode_meta({**meta, **added})
    except InvalidEvent:
        return event
    return event.with_meta(packed)


def tracer_of(config: Config) -> Tracer | None:
    """The tracer that the options ask for; None: none. Raises ConfigError when the extra is not
    installed."""
    if not config.tracing:
        return None
    try:
        return open_tracer()
    except ImportError as error:
        allowed = "false without OpenTelemetry, which pip install 'fastsse[otel]' adds"
        raise ConfigError([OptionProblem("tracing", "true", "an argument", allowed)]) from error


def open_tracer() -> Tracer:
    """A tracer that sends spans as the standard variables say (OTEL_EXPORTER_OTLP_ENDPOINT,
    OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, …). Raises ImportError without `fastsse[otel]`."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {"service.version": __version__}
    if not any(_SERVICE in os.environ.get(name, "") for name in _NAMING):
        named[_SERVICE] = os.environ.get("OTEL_SERVICE_NAME") or "fastsse"
    provider = TracerProvider(resource=Resource.create(named))
    exporter = OTLPSpanExporter()
    batches = BatchSpanProcessor(exporter)
    provider.add_span_processor(batches)
    return Tracer(provider, batches.on_end, exporter.shutdown)
