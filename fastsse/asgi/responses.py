"""The bytes of an HTTP/1.1 response as the messages of ASGI."""

from typing import Any, Final, cast

from httptools import HttpResponseParser

__all__ = ["Message", "ResponseReader"]

Message = dict[str, Any]
# Header lines of the connection (RFC 9110 §7.6.1), which is the ASGI server's.
_OF_THE_CONNECTION: Final = frozenset({b"connection", b"transfer-encoding"})


class ResponseReader:
    """Reads one response, as the sender or a route writes it. After its last byte was fed,
    `is_complete` says whether the response was ended with its last chunk.

    Arguments:
        has_body: false for an answer to HEAD.
    """

    __slots__ = ("_has_body", "_headers", "_parser", "_pieces", "_start", "is_complete")

    def __init__(self, *, has_body: bool = True) -> None:
        self._parser = HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self._start: Message | None = None
        self._has_body = has_body
        self.is_complete = not has_body

    def feed(self, data: bytes) -> list[Message]:
        """The messages for the next bytes: the start once, and what came of the body. O(bytes)."""
        self._parser.feed_data(data)
        messages = []
        if self._start is not None:
            messages.append(self._start)
            self._start = None
        pieces, self._pieces = self._pieces, []
        if self._has_body and pieces:
            body = b"".join(pieces)
            messages.append({"type": "http.response.body", "body": body, "more_body": True})
        return messages

    def close(self) -> None:
        """Drops the reference to llhttp's parser, which refers to our methods."""
        self._parser = cast(HttpResponseParser, None)

    # -- called by llhttp ---------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header line."""
        name = name.lower()
        if name not in _OF_THE_CONNECTION:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The end of the head."""
        status = self._parser.get_status_code()
        self._start = {
            "type": "http.response.start",
            "status": status,
            "headers": self._headers,
        }

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """The end of the response."""
        self.is_complete = True


LAST: Final[Message] = {"type": "http.response.body", "body": b"", "more_body": False}
