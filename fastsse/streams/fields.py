"""The protocol's headers and parameters, read strictly."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from fastsse.directives import PRODUCER_NUMBER_MAX, Producer, producer_key
from fastsse.errors import BadRequest
from fastsse.streamoffsets import Offset, parse_offset
from fastsse.streams.forks import ForkRequest

__all__ = [
    "ReadRequest",
    "content_type_of",
    "expiry_of",
    "fork_of",
    "is_true",
    "producer_of",
    "read_request",
    "rfc3339",
    "seq_of",
]

Headers = Mapping[bytes, bytes]

_WHOLE: Final = re.compile(rb"0|[1-9][0-9]{0,15}")
_TTL_S_MAX: Final = 100 * 366 * 24 * 3600
_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
# RFC 9110 8.3.1, with any parameters.
_CONTENT_TYPE: Final = re.compile(rb"[\w!#$%&'*+.^`|~-]+/[\w!#$%&'*+.^`|~-]+(?:\s*;[\x20-\x7e]*)?")
_CONTENT_TYPE_BYTES_MAX: Final = 255
_SEQ_BYTES_MAX: Final = 256
_PRODUCER_BYTES_MAX: Final = 256
_LIVE: Final = frozenset({"", "long-poll", "sse"})


class ReadRequest(NamedTuple):
    """The parameters of a GET: offset, mode (`long-poll`, `sse`, or empty) and cursor."""

    offset: Offset
    live: str
    cursor: str | None


def is_true(value: bytes | None) -> bool:
    """Whether a header says `true`, in any case; every other value counts as absent."""
    return value is not None and value.strip().lower() == b"true"


def content_type_of(headers: Headers) -> str | None:
    """The content type, None without one. Raises BadRequest."""
    value = headers.get(b"content-type", b"").strip()
    if not value:
        return None
    if len(value) > _CONTENT_TYPE_BYTES_MAX or not _CONTENT_TYPE.fullmatch(value):
        raise BadRequest("Content-Type", "must be a media type")
    return value.decode("latin-1")


def expiry_of(headers: Headers) -> tuple[int | None, int | None]:
    """The time to live in seconds, and the end in unix milliseconds. Raises BadRequest."""
    ttl, expires = headers.get(b"stream-ttl"), headers.get(b"stream-expires-at")
    if ttl is not None and expires is not None:
        raise BadRequest("Stream-TTL", "can't be combined with Stream-Expires-At")
    ttl_s = None if ttl is None else _whole("Stream-TTL", ttl)
    if ttl_s is not None and ttl_s > _TTL_S_MAX:
        raise BadRequest("Stream-TTL", "must be at most 100 years")
    return ttl_s, None if expires is None else _unix_ms(expires)


def _whole(field: str, value: bytes) -> int:
    text = value.strip()
    if not _WHOLE.fullmatch(text) or int(text) > PRODUCER_NUMBER_MAX:
        raise BadRequest(field, "must be a whole number from 0 to 2**53 - 1")
    return int(text)


def _unix_ms(value: bytes) -> int:
    match = _TIME.fullmatch(value.strip().decode("latin-1"))
    if match is not None:
        day, time, fraction, zone = match.groups()
        try:
            moment = datetime.fromisoformat(f"{day}T{time}{zone.upper().replace('Z', '+00:00')}")
        except ValueError:
            moment = None
        if moment is not None and moment.year < 9999:
            return round(moment.timestamp() * 1000) + int(float(fraction or 0) * 1000)
    raise BadRequest("Stream-Expires-At", "must be a time (2026-01-31T12:00:00Z)")


def rfc3339(unix_ms: int) -> str:
    """A time in the format of the protocol."""
    moment = datetime.fromtimestamp(unix_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seq_of(headers: Headers) -> bytes | None:
    """The `Stream-Seq`. Raises BadRequest."""
    value = headers.get(b"stream-seq")
    if value is None:
        return None
    value = value.strip()
    if not 0 < len(value) <= _SEQ_BYTES_MAX:
        raise BadRequest("Stream-Seq", f"must have 1 to {_SEQ_BYTES_MAX} characters")
    return value


def producer_of(headers: Headers, scope: str) -> Producer | None:
    """The producer of an append; None without one. Raises BadRequest."""
    names = (b"producer-id", b"producer-epoch", b"producer-seq")
    values = [headers.get(name) for name in names]
    if values == [None, None, None]:
        return None
    if None in values:
        raise BadRequest("Producer-Id", "needs Producer-Epoch and Producer-Seq, and they need it")
    name, epoch, sequence = (value.strip() for value in values if value is not None)
    if not 0 < len(name) <= _PRODUCER_BYTES_MAX:
        raise BadRequest("Producer-Id", f"must have 1 to {_PRODUCER_BYTES_MAX} characters")
    return Producer(
        producer_key(scope, name),
        _whole("Producer-Epoch", epoch),
        _whole("Producer-Seq", sequence),
        refuses_gaps=True,
    )


def fork_of(headers: Headers, topic: str | None) -> ForkRequest | None:
    """The fork that a request asks for; `topic` is its source. None for no fork. Raises
    BadRequest."""
    offset, sub_offset = headers.get(b"stream-fork-offset"), headers.get(b"stream-fork-sub-offset")
    if topic is None:
        if offset is not None or sub_offset is not None:
            raise BadRequest("Stream-Fork-Offset", "needs Stream-Forked-From")
        return None
    count = 0 if sub_offset is None else _whole("Stream-Fork-Sub-Offset", sub_offset)
    if count and offset is None:
        raise BadRequest("Stream-Fork-Sub-Offset", "needs Stream-Fork-Offset")
    text = None if offset is None else offset.strip().decode("latin-1")
    return ForkRequest(topic, text, count)


def read_request(pairs: Sequence[tuple[str, str]]) -> ReadRequest:
    """The parameters of a GET; unknown ones are ignored. Raises BadRequest."""
    offsets = [value for name, value in pairs if name == "offset"]
    if len(offsets) > 1:
        raise BadRequest("offset", "must appear once")
    live = next((value for name, value in pairs if name == "live"), "")
    cursor = next((value for name, value in pairs if name == "cursor"), None)
    if live not in _LIVE:
        raise BadRequest("live", "must be long-poll or sse")
    if live and not offsets:
        raise BadRequest("offset", f"is missing; live={live} needs it")
    offset = parse_offset(offsets[0]) if offsets else 0
    if offset is None:
        raise BadRequest("offset", "must be -1, now, or an offset that this server has given")
    return ReadRequest(offset, live, cursor)
