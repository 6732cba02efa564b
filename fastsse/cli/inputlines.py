"""Publishes standard input in batches: each request sends all lines that are available.

Lines of a slow writer are sent one by one, without delay. A fast writer fills the pipe during a
request, and the next request sends all of it. There is no timer, and memory is bounded.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
import orjson

from fastsse.client.errors import ClientError, Refused
from fastsse.client.receipts import Receipt
from fastsse.jsontext import Lossy, check_whole, is_whole

_READ_BYTES = 64 * 1024
# Half of the default of max_body.
_BATCH_BYTES = 512 * 1024
_LINE_BYTES_MAX = 64 * 1024 * 1024
_TOO_LARGE = 413

Send = Callable[[bytes], Receipt]


class BadLine(ClientError):
    """A line that can't become an event, by its number in the input, counted from 1."""

    def __init__(self, number: int, detail: str) -> None:
        super().__init__(f"Line {number}: {detail}")


@dataclass(frozen=True, slots=True)
class Lines:
    """Converts lines to events: text for `topic`, or (`ndjson`) objects; `fields` gives missing
    members."""

    topic: str | None
    ndjson: bool
    fields: Mapping[str, Any]

    def encode(self, line: bytes, number: int) -> bytes:
        """One line in the format of the server; empty for a blank line of NDJSON. Raises
        BadLine."""
        if self.ndjson:
            return self._complete(line, number)
        try:
            return orjson.dumps(self._with_fields({"data": line.decode()}))
        except UnicodeDecodeError as error:
            raise BadLine(number, f"is not UTF-8 (byte {error.start + 1}).") from None

    def _complete(self, line: bytes, number: int) -> bytes:
        nothing_to_add = self.topic is None and not any(map(_given, self.fields.values()))
        if nothing_to_add or not line.strip():
            return line.strip()
        try:
            event = orjson.loads(line)
        except ValueError as error:
            raise BadLine(number, f"is not JSON ({error}).") from None
        if not isinstance(event, dict):
            raise BadLine(number, "is not a JSON object.")
        if not is_whole(line, [event]):
            try:
                check_whole(line)
            except ValueError as error:
                member = f"{error.member}: " if isinstance(error, Lossy) and error.member else ""
                raise BadLine(number, f"{member}{error}.") from None
        return orjson.dumps(self._with_fields(event))

    def _with_fields(self, event: dict[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in self.fields.items() if _given(value)}
        return {"topic": self.topic, **given, **event} if self.topic else {**given, **event}


def publish_lines(lines: Lines, send: Send, fd: int | None = None) -> None:
    """Publishes each line of `fd` (standard input). Blocks while there is nothing to read.

    If a line is refused, all lines before it are published, and the error has its number.
    """
    fd = sys.stdin.fileno() if fd is None else fd
    input_of = _Input(lines, send)
    try:
        for chunk in _read_lines(fd):
            input_of.take(chunk)
    finally:
        click.echo(f"{input_of.published} published.", err=True)


class _Input:
    """The progress: lines read and events published."""

    def __init__(self, lines: Lines, send: Send) -> None:
        self._lines = lines
        self._send = send
        self._line_count = 0
        self.published = 0

    def take(self, chunk: Sequence[bytes]) -> None:
        """Publishes these lines, in as few requests as their size allows."""
        batch: list[bytes] = []
        size_bytes = 0
        first = self._line_count + 1
        for line in chunk:
            try:
                encoded = self._lines.encode(line, self._line_count + 1)
            except BadLine:
                self._publish(batch, first)
                raise
            if batch and size_bytes + len(encoded) > _BATCH_BYTES:
                self._publish(batch, first)
                batch, size_bytes, first = [], 0, self._line_count + 1
            batch.append(encoded)
            size_bytes += len(encoded) + 1
            self._line_count += 1
        self._publish(batch, first)

    def _publish(self, batch: list[bytes], first: int) -> None:
        """Sends one batch; its first line has the number `first`."""
        if not any(batch):
            return
        try:
            self.published += self._send(b"\n".join(batch)).count
        except Refused as error:
            self._publish_around(error, batch, first)

    def _publish_around(self, error: Refused, batch: list[bytes], first: int) -> None:
        """After a batch was refused as a whole: publishes the lines before the invalid one."""
        if error.status == _TOO_LARGE and len(batch) > 1:
            middle = len(batch) // 2
            self._publish(batch[:middle], first)
            self._publish(batch[middle:], first + middle)
            return
        wrong = min(max(error.line or 1, 1), len(batch))
        if error.line is not None and wrong > 1:
            self._publish(batch[: wrong - 1], first)
        if error.line is None and len(batch) > 1:
            raise error
        detail = str(error).replace(f"Line {error.line}: ", "")
        raise BadLine(first + wrong - 1, detail) from None


def _read_lines(fd: int) -> Iterator[list[bytes]]:
    """The complete lines of each read, without line ends; finally a last line without an end."""
    rest: list[bytes] = []
    rest_bytes = 0
    while chunk := os.read(fd, _READ_BYTES):
        *lines, tail = chunk.split(b"\n")
        if lines:
            lines[0] = b"".join((*rest, lines[0]))
            rest, rest_bytes = [], 0
            yield [line.removesuffix(b"\r") for line in lines]
        rest.append(tail)
        rest_bytes += len(tail)
        if rest_bytes > _LINE_BYTES_MAX:
            raise ClientError(f"A line is longer than {_LINE_BYTES_MAX} bytes.")
    if rest_bytes:
        yield [b"".join(rest)]


def _given(value: object) -> bool:
    return value is not None
