"""Answers as bytes. What can be is built once, when the module is loaded."""

from http import HTTPStatus
from typing import NamedTuple

# No page of another origin may take an answer for a script or a picture (Fetch standard, "CORP").
SHIELD = b"X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\n"
NOT_STORED = b"Cache-Control: no-store\r\n" + SHIELD
JSON = b"Content-Type: application/json\r\n" + NOT_STORED
TEXT = b"Content-Type: text/plain; charset=utf-8\r\n" + NOT_STORED
# Nobody between us and the client may cache, compress or buffer a stream.
EVENT_STREAM = (
    b"Content-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache, no-transform\r\n"
    b"X-Accel-Buffering: no\r\n"
) + SHIELD
MERCURE_STREAM = (
    b"Content-Type: text/event-stream\r\n"
    b"Cache-Control: private, no-cache, no-store, must-revalidate, max-age=0\r\n"
    b"Pragma: no-cache\r\n"
    b"X-Accel-Buffering: no\r\n"
) + SHIELD
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}


class Response(NamedTuple):
    """`head` is the status line and whole header lines, without the blank line that ends them."""

    head: bytes
    body: bytes = b""

    @classmethod
    def of(cls, status: int, body: bytes, header_lines: bytes) -> "Response":
        """A response whose Content-Length is that of `body`."""
        length = b"Content-Length: %d\r\n" % len(body)
        return cls(STATUS_LINES[status] + header_lines + length, body)


def text_response(status: int, text: str) -> Response:
    """A line of plain text, as probes want it."""
    return Response.of(status, text.encode() + b"\n", TEXT)


_PUBLISHED_HEAD = STATUS_LINES[200] + JSON + b"Content-Length: "


def json_response(body: bytes) -> Response:
    """200 with JSON; cheap enough to be built for each publish."""
    return Response(_PUBLISHED_HEAD + b"%d\r\n" % len(body), body)
