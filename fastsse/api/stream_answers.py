"""Answers of the Durable Streams protocol: header lines, and problems of errors."""

from collections.abc import Sequence
from typing import Final

from fastsse.errors import BadRequest, FastsseError, ProducerFenced, SequenceGap, StreamRefused
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.responses import STATUS_LINES, Response
from fastsse.streamoffsets import format_offset
from fastsse.streams.fields import rfc3339
from fastsse.streams.reading import ContentGone
from fastsse.streams.requests import (
    Appended,
    AppendRequest,
    StreamGone,
    StreamMissing,
    StreamOtherwise,
)
from fastsse.streamstate import StreamRow

__all__ = [
    "CLOSED",
    "NOT_STORED",
    "OFFSET_NAME",
    "SHIELD",
    "answer",
    "append_problem",
    "appended_answer",
    "base_url",
    "location_line",
    "metadata",
    "offset_line",
    "problem_of_stream",
    "type_line",
]

# Pages of other origins read streams, as the protocol recommends (12.7).
SHIELD: Final = b"X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: cross-origin\r\n"
NOT_STORED: Final = b"Cache-Control: no-store\r\n"
OFFSET_NAME: Final = b"Stream-Next-Offset"
CLOSED: Final = b"Stream-Closed: true\r\n"


def type_line(row: StreamRow) -> bytes:
    """The header line with the content type of a stream."""
    return b"Content-Type: %b\r\n" % row.config.content_type.encode("latin-1")


def base_url(request: Request) -> str:
    """The scheme and host of a request; empty without a Host header."""
    headers = request.headers
    scheme = headers.get(b"x-forwarded-proto", b"").strip().lower()
    scheme = scheme if scheme in (b"http", b"https") else b"http"
    host = headers.get(b"host", b"").strip()
    return (b"%b://%b" % (scheme, host) if host else b"").decode("latin-1")


def location_line(request: Request) -> bytes:
    """The header line with the URL of a stream that was created."""
    base = base_url(request).encode("latin-1")
    return b"Location: %b%b\r\n" % (base, request.target.raw_path)


def offset_line(position: int) -> bytes:
    """The header line with the offset behind a position."""
    return b"%b: %b\r\n" % (OFFSET_NAME, format_offset(position).encode())


def answer(status: int, lines: Sequence[bytes], body: bytes = b"") -> Response:
    """An answer with header lines; a 204 has no body."""
    if status == 204:
        return Response(STATUS_LINES[204] + b"".join(lines) + SHIELD)
    return Response.of(status, body, b"".join(lines) + SHIELD)


def metadata(row: StreamRow) -> Response:
    """The answer to a HEAD."""
    config = row.config
    lines = [type_line(row), offset_line(row.tail), NOT_STORED]
    if config.ttl_s is not None:
        lines.append(b"Stream-TTL: %d\r\n" % config.ttl_s)
    if config.expires_ms is not None:
        lines.append(b"Stream-Expires-At: %b\r\n" % rfc3339(config.expires_ms).encode())
    if row.closed:
        lines.append(CLOSED)
    return answer(200, lines)


def appended_answer(appended: Appended, wanted: AppendRequest) -> Response:
    """The answer to an append."""
    row, producer = appended.row, wanted.producer
    lines = [offset_line(row.tail), NOT_STORED]
    if row.closed:
        lines.append(CLOSED)
    if appended.is_closed:
        return answer(409, lines)
    if producer is not None:
        sequence = appended.sequence if appended.sequence >= 0 else producer.sequence
        lines.append(b"Producer-Epoch: %d\r\nProducer-Seq: %d\r\n" % (producer.epoch, sequence))
    is_new = producer is not None and not appended.is_repeat and bool(wanted.body)
    return answer(200 if is_new else 204, lines)


def append_problem(error: FastsseError, wanted: AppendRequest) -> FastsseError:
    """The answer to an append that was refused."""
    if isinstance(error, ProducerFenced):
        line = b"Producer-Epoch: %d\r\n" % error.epoch
        return Problem(403, error.detail, header_lines=line, members={"reason": error.reason})
    if isinstance(error, SequenceGap):
        is_new_epoch = error.epoch is not None and wanted.producer is not None
        if is_new_epoch and wanted.producer is not None and wanted.producer.epoch != error.epoch:
            return BadRequest("Producer-Seq", "must be 0 in a new epoch")
        line = b"Producer-Expected-Seq: %d\r\nProducer-Received-Seq: %d\r\n" % (
            error.expected,
            error.received,
        )
        return Problem(409, error.detail, header_lines=line, members={"reason": error.reason})
    return problem_of_stream(error, status=409)


def problem_of_stream(error: FastsseError, status: int = 409) -> FastsseError:
    """The answer to an error of the streams."""
    for kind, code in (
        (StreamMissing, 404),
        (StreamGone, 410),
        (ContentGone, 410),
        (StreamOtherwise, status),
    ):
        if isinstance(error, kind):
            return Problem(code, f"{error}")
    if isinstance(error, StreamRefused):
        return Problem(503, "The stream can't be read now.", header_lines=b"Retry-After: 1\r\n")
    return error
