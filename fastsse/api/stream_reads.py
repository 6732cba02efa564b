"""One GET or HEAD of the Durable Streams protocol: a page, a long-poll or an event stream."""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from fastsse.api.access import Access
from fastsse.api.stream_answers import (
    CLOSED,
    NOT_STORED,
    SHIELD,
    answer,
    metadata,
    offset_line,
    problem_of_stream,
    type_line,
)
from fastsse.auth.rights import Rights
from fastsse.errors import FastsseError
from fastsse.http.request import Request
from fastsse.http.responses import STATUS_LINES, Response
from fastsse.http.router import Exchange
from fastsse.hub.tails import TailSubscription
from fastsse.streamoffsets import NOW, format_offset
from fastsse.streams.content import control_block, data_block, rendered
from fastsse.streams.fields import ReadRequest
from fastsse.streams.reading import Chunk, ChunkRead
from fastsse.streams.requests import StreamMissing
from fastsse.streams.service import DurableStreams
from fastsse.streamstate import StreamRow

__all__ = ["Reader", "StreamRead"]

# Only a page with content behind it is cacheable: it never changes. The last page does.
_SEALED: Final = b"max-age=3600, immutable"
_OPEN: Final = b"max-age=60, stale-while-revalidate=300"
_EVENT_STREAM: Final = (
    b"Content-Type: text/event-stream\r\n"
    b"Cache-Control: no-cache, no-transform\r\n"
    b"X-Accel-Buffering: no\r\n"
) + SHIELD

_ReadPage: TypeAlias = Callable[[str, StreamRow, int, ChunkRead], None]


class Reader(NamedTuple):
    """Who reads: the rights, None where they are not used, and what gave them."""

    rights: Rights | None
    access: Access


class StreamRead:
    """One GET or HEAD."""

    def __init__(
        self,
        streams: DurableStreams,
        request: Request,
        exchange: Exchange,
        reader: Reader,
        topic: str,
        asked: ReadRequest,
    ) -> None:
        self._streams = streams
        self._reader = reader
        self._request = request
        self._exchange = exchange
        self._topic = topic
        self._asked = asked

    def start(self, row: StreamRow) -> None:
        """Answers, now or later."""
        if self._request.method == b"HEAD":
            self._exchange.respond(metadata(row))
        elif self._asked.offset == NOW:
            self._streams.touch(self._topic, row)
            self._from_now(row)
        else:
            self._read(row, self._asked.offset, self._streams.read)

    def _read(self, row: StreamRow, after: int, read_page: _ReadPage) -> None:
        def read(chunk: Chunk | FastsseError) -> None:
            if isinstance(chunk, FastsseError):
                self._exchange.fail(problem_of_stream(chunk))
            elif self._asked.live == "sse":
                self._tail(row, chunk)
            elif self._asked.live == "long-poll" and not chunk.contents:
                self._poll(row, after)
            else:
                self._exchange.respond(self._page(row, after, chunk))

        read_page(self._topic, row, after, read)

    def _from_now(self, row: StreamRow) -> None:
        chunk = Chunk((), row.tail, True)
        if self._asked.live == "sse":
            self._tail(row, chunk)
        elif self._asked.live == "long-poll":
            self._poll(row, row.tail)
        else:
            body = rendered(row.config, ())
            lines = [*self._lines(row, chunk), NOT_STORED]
            self._exchange.respond(answer(200, lines, body))

    # -- pages ------------------------------------------------------------------------------------

    def _lines(self, row: StreamRow, chunk: Chunk) -> list[bytes]:
        lines = [type_line(row), offset_line(chunk.next)]
        if chunk.is_up_to_date:
            lines.append(b"Stream-Up-To-Date: true\r\n")
        if self._asked.live and not row.closed:
            lines.append(self._cursor())
        if row.closed and chunk.is_up_to_date:
            lines.append(CLOSED)
        return lines

    def _cursor(self) -> bytes:
        return b"Stream-Cursor: %b\r\n" % self._streams.cursors.after(self._asked.cursor).encode()

    def _page(self, row: StreamRow, after: int, chunk: Chunk) -> Response:
        closed = ":c" if row.closed and chunk.is_up_to_date else ""
        places = (row.generation, after, chunk.next)
        etag = f'"{":".join(map(format_offset, places))}{closed}"'.encode()
        lines = self._lines(row, chunk)
        lines += [b"ETag: %b\r\n" % etag, self._cache_line(row, chunk)]
        known = self._request.headers.get(b"if-none-match", b"")
        if not self._asked.live and etag in [one.strip() for one in known.split(b",")]:
            return Response(STATUS_LINES[304] + b"".join(lines[1:]) + SHIELD)
        return answer(200, lines, rendered(row.config, chunk.contents))

    def _cache_line(self, row: StreamRow, chunk: Chunk) -> bytes:
        if row.config.private or self._reader.rights is not None:
            return b"Cache-Control: private, no-store\r\n"
        if not chunk.contents:
            return b"Cache-Control: no-cache\r\n"
        age = _OPEN if chunk.is_up_to_date or self._asked.offset == 0 else _SEALED
        return b"Cache-Control: public, %b\r\n" % age

    # -- long-polls -------------------------------------------------------------------------------

    def _poll(self, row: StreamRow, after: int) -> None:
        if row.closed:
            self._nothing(row)
        else:
            self._request.on_gone = self._streams.waiters.add(
                self._topic,
                self._reader.rights,
                lambda is_new: self._polled(is_new, row, after),
            )

    def _polled(self, is_new: bool, row: StreamRow, after: int) -> None:
        try:
            self._reader.access.check_again(self._reader.rights)
        except FastsseError as error:
            self._exchange.fail(error)
            return
        if not is_new:
            self._nothing(row)
            return

        def found(now: StreamRow | FastsseError) -> None:
            if isinstance(now, FastsseError):
                self._exchange.fail(problem_of_stream(now))
            elif now.generation != row.generation:
                self._exchange.fail(problem_of_stream(StreamMissing("The stream was deleted.")))
            else:
                self._read(now, after, self._streams.read_new)

        self._streams.find_readable(self._topic, found)

    def _nothing(self, row: StreamRow) -> None:
        lines = self._lines(row, Chunk((), row.tail, True))
        self._exchange.respond(answer(204, [*lines[1:], NOT_STORED]))

    # -- event streams ----------------------------------------------------------------------------

    def _tail(self, row: StreamRow, chunk: Chunk) -> None:
        """A page as an event stream, which is live if the page is the last one."""
        head = _EVENT_STREAM
        if row.config.kind == "bytes":
            head += b"Stream-SSE-Data-Encoding: base64\r\n"
        is_over = bool(row.closed) and chunk.is_up_to_date
        if is_over or not chunk.is_up_to_date:
            self._exchange.respond(Response.of(200, self._blocks(row, chunk), head))
            return
        head = STATUS_LINES[200] + head
        self._streams.tails.open(self._topic, row)

        def begin() -> tuple[bytes, bool]:
            return self._first_block(row, chunk)

        name = self._streams.tails.name(self._topic, row)
        self._exchange.stream(TailSubscription(name, begin, head), self._reader.rights)

    def _first_block(self, row: StreamRow, chunk: Chunk) -> tuple[bytes, bool]:
        """The first block: the page, and content appended while the stream was opened."""
        blocks: list[tuple[bytes, bool]] = []

        def found(now: StreamRow | FastsseError) -> None:
            if isinstance(now, FastsseError) or now.generation != row.generation:
                blocks.append((self._blocks(row, chunk), True))
                return
            more = self._streams.reader.newer(self._topic, now, chunk.next, now.tail)
            if more is None:
                blocks.append((self._blocks(row, chunk._replace(is_up_to_date=False)), True))
                return
            self._streams.tails.open(self._topic, now)
            whole = Chunk([*chunk.contents, *more], max(chunk.next, now.tail), True)
            blocks.append((self._blocks(now, whole), bool(now.closed)))

        self._streams.find_here(self._topic, row, found)
        return blocks[0]

    def _blocks(self, row: StreamRow, chunk: Chunk) -> bytes:
        block = data_block(row.config, chunk.contents) if chunk.contents else b""
        cursor = self._streams.cursors.after(self._asked.cursor)
        return block + control_block(
            chunk.next,
            cursor,
            is_up_to_date=chunk.is_up_to_date,
            is_closed=bool(row.closed) and chunk.is_up_to_date,
        )
