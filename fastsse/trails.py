"""What names a request in other systems too: `X-Request-Id`, and the trace context of the W3C."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["NO_TRAIL", "REQUEST_ID", "Trail", "request_id_line", "trail_of"]

# Trace Context, §3.2: version, trace id, parent id, flags. Later versions may add to it.
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_STATE_BYTES_MAX: Final = 512
#: The header's name.
REQUEST_ID: Final = b"x-request-id"
_SAMPLED: Final = 1


class Trail(NamedTuple):
    """Names of one request; None where it has none, or an invalid one.

    Attributes:
        request_id: `X-Request-Id`: 1 to 128 visible ASCII characters.
        trace_id, span_id: of `traceparent`, in lower-case hexadecimal digits.
        is_sampled: whether the sender of the request records the trace.
        state: `tracestate`, passed on as it came.
    """

    request_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    is_sampled: bool = False
    state: bytes = b""

    @property
    def traceparent(self) -> str:
        """The header's value."""
        return f"00-{self.trace_id}-{self.span_id}-0{int(self.is_sampled)}"

    def fields(self) -> dict[str, str]:
        """The names as fields of a log line."""
        named = zip(("request_id", "trace_id", "span_id"), self[:3], strict=True)
        return {name: value for name, value in named if value is not None}


NO_TRAIL: Final = Trail()


def trail_of(headers: Mapping[bytes, bytes]) -> Trail:
    """The names that a request's headers have. O(1) without them."""
    given, parent = headers.get(REQUEST_ID), headers.get(b"traceparent")
    if given is None and parent is None:
        return NO_TRAIL
    request_id = None if given is None else _request_id(given)
    text = None if request_id is None else request_id.decode()
    found = None if parent is None else _TRACEPARENT.fullmatch(parent.strip(b" \t"))
    if found is None or (found[1] == b"00" and found[5]):
        return Trail(text)
    state = headers.get(b"tracestate", b"").strip(b" \t")
    return Trail(
        text,
        found[2].decode(),
        found[3].decode(),
        bool(int(found[4], 16) & _SAMPLED),
        state if len(state) <= _STATE_BYTES_MAX else b"",
    )


def request_id_line(headers: Mapping[bytes, bytes]) -> bytes:
    """The header line of the answer that repeats the id of a request; empty without a valid one."""
    given = headers.get(REQUEST_ID)
    request_id = None if given is None else _request_id(given)
    return b"" if request_id is None else b"X-Request-Id: %b\r\n" % request_id


def _request_id(given: bytes) -> bytes | None:
    found = _REQUEST_ID.fullmatch(given.strip(b" \t"))
    return None if found is None else found[0]
