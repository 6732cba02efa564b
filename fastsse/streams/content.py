"""Content: bodies of appends as events, and events as bodies and as blocks of an event stream.

Text is kept as text, and JSON as one event for each message. Everything else is kept as base64, so
that an event stream carries it unchanged; `/events` marks such events as base64. Text that is not
UTF-8 is kept as base64 too, and so is text with carriage returns: an event stream would change it.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

import orjson

from fastsse._content import ContentRun, join_content
from fastsse._core import Frame
from fastsse.errors import InvalidEvent
from fastsse.events import DATA_BYTES, DATA_JSON, DATA_TEXT
from fastsse.streamoffsets import format_offset
from fastsse.streamstate import StreamConfig

__all__ = ["Content", "Piece", "control_block", "data_block", "data_of", "pieces_of", "rendered"]

Content: TypeAlias = Frame | ContentRun
"""One event, or several as the store has them."""
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder().raw_decode


class Piece(NamedTuple):
    """The data of one event, and its kind."""

    data: bytes
    kind: int


def pieces_of(config: StreamConfig, body: bytes) -> list[Piece]:
    """The events of a body that is not empty. JSON: one for each message, none for an empty
    array. Raises InvalidEvent. O(bytes)."""
    if config.kind == "json":
        return [Piece(message, DATA_JSON) for message in messages_of(body)]
    if config.kind == "text" and b"\r" not in body and _is_utf8(body):
        return [Piece(body, DATA_TEXT)]
    return [Piece(b64encode(body), DATA_BYTES)]


def messages_of(body: bytes) -> list[bytes]:
    """The messages of a body of JSON: one level of arrays is taken apart. Each stays as it was
    written, but for carriage returns between its tokens. Raises InvalidEvent."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidEvent("body", f"must be JSON: {error}") from None
    if not isinstance(value, list):
        return [body.strip().replace(b"\r", b" ")]
    if len(value) == 1 and body[:1] == b"[":
        return [body.strip()[1:-1].strip().replace(b"\r", b" ")]
    try:
        return [message.encode().replace(b"\r", b" ") for message in _elements(body.decode())]
    except RecursionError:
        raise InvalidEvent("body", "is nested too deep") from None


def _elements(text: str) -> Iterator[str]:
    """The elements of an array that is known to be valid, as they are written."""
    at = _skip(text, text.index("[") + 1)
    while text[at] != "]":
        _, end = _decode(text, at)
        yield text[at:end]
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def data_of(content: Content) -> bytes:
    """The bytes of an event as they were appended. O(bytes)."""
    return join_content((content,))


def rendered(config: StreamConfig, contents: Sequence[Content]) -> bytes:
    """A body with this content. O(bytes)."""
    if config.kind == "json":
        return join_content(contents, b",", b"[", b"]")
    return join_content(contents)


def data_block(config: StreamConfig, contents: Sequence[Content]) -> bytes:
    """One `data` event with this content. O(bytes)."""
    body = rendered(config, contents)
    if config.kind == "bytes":
        body = b64encode(body)
    elif config.kind == "text" and not _is_utf8(body):
        body = body.decode(errors="replace").encode()
    if b"\r" in body:
        body = _LINE_END.sub(b"\n", body)
    text = (b"\n" + body).replace(b"\n", b"\ndata:")
    # A client drops one blank after the colon.
    return b"event: data%b\n\n" % text.replace(b"\ndata: ", b"\ndata:  ")


def control_block(
    position: int, cursor: str, *, is_up_to_date: bool = True, is_closed: bool = False
) -> bytes:
    """The `control` event behind content up to a position."""
    members: dict[str, object] = {"streamNextOffset": format_offset(position)}
    if is_closed:
        members |= {"upToDate": True, "streamClosed": True}
    else:
        members["streamCursor"] = cursor
        if is_up_to_date:
            members["upToDate"] = True
    return b"event: control\ndata:%b\n\n" % orjson.dumps(members)
