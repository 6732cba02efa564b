"""Spans of OpenTelemetry's SDK, made once, when they end.

The SDK's tracer makes an object with a lock, a context and copied attributes for each span, and
encodes it later. Ours keeps what it was given, and makes the SDK's `ReadableSpan` at the end. That
costs a third. Sampler, ids, limits, resource, batches and sending are the SDK's. Loop thread only.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from fastsse.trails import Trail
from fastsse.version import __version__

__all__ = ["Span", "SpanMaker"]

# Descriptions of samplers that record whatever a publisher records.
_ALWAYS: Final = ("AlwaysOnSampler", "remoteParentSampled:AlwaysOnSampler")
# More than a span of ours has.
_ATTRIBUTES_MOST: Final = 16


class SpanMaker:
    """Makes spans below those of other programs.

    Arguments:
        provider: a `TracerProvider` of the SDK, whose sampler, ids and resource are used.
        on_end: takes a `ReadableSpan`: that of a `SpanProcessor`.
    """

    def __init__(self, provider: Any, on_end: Callable[[Any], object]) -> None:
        from opentelemetry.attributes import BoundedAttributes
        from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import (
            Link,
            NonRecordingSpan,
            SpanContext,
            SpanKind,
            Status,
            StatusCode,
            TraceFlags,
            TraceState,
            set_span_in_context,
        )

        self.kinds: Final = SpanKind
        self._on_end = on_end
        self._new_id = provider.id_generator.generate_span_id
        self._sampler = provider.sampler
        self._resource = provider.resource
        self._scope = InstrumentationScope("fastsse", __version__)
        self._readable, self._link = ReadableSpan, Link
        self._make_context, self._sampled = SpanContext, TraceFlags(TraceFlags.SAMPLED)
        self._state, self._bounded = TraceState, BoundedAttributes
        self._non_recording, self._in_context = NonRecordingSpan, set_span_in_context
        self._unset = Status(StatusCode.UNSET)
        self._failed: Callable[[str], Any] = lambda why: Status(StatusCode.ERROR, why)
        limits = SpanLimits()
        self._most, self._length = limits.max_span_attributes, limits.max_span_attribute_length
        most = _ATTRIBUTES_MOST if self._most is None else self._most
        self._is_limited = self._length is not None or most < _ATTRIBUTES_MOST
        self._is_off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        described = self._sampler.get_description()
        self._takes_all = described == _ALWAYS[0] or _ALWAYS[1] in described

    def start(
        self,
        name: str,
        trail: Trail,
        kind: Any,
        attributes: Mapping[str, Any],
        linked: Iterable[Trail] = (),
        start_ns: int | None = None,
    ) -> "Span | None":
        """A span below that of a trail which is recorded; None if the sampler drops it.

        Arguments:
            linked: trails that led to it too.
            start_ns: when it began; None: now.
        """
        parent = self._context_of(trail)
        if not self._takes(parent, name, kind, attributes):
            return None
        own = self._make_context(
            parent.trace_id, self._new_id(), False, self._sampled, parent.trace_state
        )
        links = [self._link(self._context_of(other)) for other in linked]
        began_ns = time.time_ns() if start_ns is None else start_ns
        return Span(self, trail, (name, own, parent, kind, attributes, links, began_ns))

    def finish(self, given: tuple[Any, ...], more: Mapping[str, Any], error: str | None) -> None:
        """Hands an ended span over to be sent."""
        name, own, parent, kind, attributes, links, began_ns = given
        attributes = {**attributes, **more}
        if self._is_limited:
            attributes = self._bounded(self._most, attributes, max_value_len=self._length)
        self._on_end(
            self._readable(
                name=name,
                context=own,
                parent=parent,
                resource=self._resource,
                attributes=attributes,
                links=links,
                kind=kind,
                status=self._unset if error is None else self._failed(error),
                start_time=began_ns,
                end_time=time.time_ns(),
                instrumentation_scope=self._scope,
            )
        )

    def _takes(self, parent: Any, name: str, kind: Any, attributes: Mapping[str, Any]) -> bool:
        """What the sampler says."""
        if self._takes_all:
            return not self._is_off
        context = self._in_context(self._non_recording(parent))
        asked = self._sampler.should_sample(context, parent.trace_id, name, kind, attributes)
        return bool(asked.decision.is_sampled()) and not self._is_off

    def _context_of(self, trail: Trail) -> Any:
        """Names a span of another program. The text was checked when the trail was made."""
        assert trail.trace_id is not None
        assert trail.span_id is not None
        state = [trail.state.decode("latin-1")] if trail.state else []
        return self._make_context(
            int(trail.trace_id, 16),
            int(trail.span_id, 16),
            True,
            self._sampled,
            self._state.from_header(state) if state else None,
        )


class Span:
    """A span under way."""

    __slots__ = ("_given", "_maker", "_trail")

    def __init__(self, maker: SpanMaker, trail: Trail, given: tuple[Any, ...]) -> None:
        self._maker = maker
        self._trail = trail
        self._given = given

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return self._trail.trace_id or ""

    @property
    def traceparent(self) -> str:
        """What names it to others."""
        return f"00-{self._trail.trace_id}-{self._given[1].span_id:016x}-01"

    @property
    def state(self) -> bytes:
        """The `tracestate` that belongs to it; empty: none."""
        return self._trail.state

    def end(
        self, error: str | None = None, attributes: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """Ends it; `error` says why what it stands for failed."""
        self._maker.finish(self._given, attributes, error)
