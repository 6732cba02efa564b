"""Responses as bytes. Constant parts are built once, at import."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

# A page of another origin may not load an answer as a script or an image (Fetch standard, "CORP").
SHIELD = b"X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\n"
NOT_STORED = b"Cache-Control: no-store\r\n" + SHIELD
JSON = b"Content-Type: application/json\r\n" + NOT_STORED
TEXT = b"Content-Type: text/plain; charset=utf-8\r\n" + NOT_STORED
# Proxies must not cache, compress or buffer a stream.
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
    """`head` is the status line and complete header lines, without the blank line at the end.
    `shared` follows the body; other answers have the same objects, so it is never copied."""

    head: bytes
    body: bytes = b""
    shared: Sequence[bytes] = ()

    @classmethod
    def of(
        cls, status: int, body: bytes, header_lines: bytes, shared: Sequence[bytes] = ()
    ) -> "Response":
        """A response with the Content-Length of `body` and `shared`."""
        length = b"Content-Length: %d\r\n" % (len(body) + sum(map(len, shared)))
        return cls(STATUS_LINES[status] + header_lines + length, body, shared)


def text_response(status: int, text: str) -> Response:
    """A line of plain text, for probes."""
    return Response.of(status, text.encode() + b"\n", TEXT)


#: The answer to a publish, up to the number of its Content-Length.
PUBLISHED_HEAD = STATUS_LINES[200] + JSON + b"Content-Length: "


def json_response(body: bytes) -> Response:
    """200 with JSON. Cheap, because it is built for each publish."""
    return Response(PUBLISHED_HEAD + b"%d\r\n" % len(body), body)
