"""Standard input as a source: each line becomes an event. It has no places to continue from."""

import asyncio
import os
import select
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from fastsse.sources.file_tailer import LINES_MAX, Line
from fastsse.sources.files import LineMessage
from fastsse.sources.followed_file import LINE_BYTES_MAX
from fastsse.sources.source import Batch, Message, SourceAway

__all__ = ["InputSource"]

READ_BYTES: Final = 256 * 1024
WAIT_S: Final = 0.5


class InputSource:
    """Reads lines of a descriptor.

    Arguments:
        name: the source's.
        file: the descriptor.
        generation: in the keys of its events.

    Attributes:
        is_over: the input has ended, and everything of it was acknowledged.
    """

    trouble: str | None = None
    backlog: int | None = None

    def __init__(self, name: str, file: int, generation: str) -> None:
        self._name: Final = name
        self._file: Final = file
        self._generation: Final = generation
        self._thread = ThreadPoolExecutor(1, "input")
        self._bytes = bytearray()
        self._offset = 0
        self._has_ended = False
        self.is_over = asyncio.Event()

    async def open(self) -> None:
        """As Source."""

    async def read(self) -> Batch:
        """As Source."""
        lines = self._take()
        if not lines and not self._has_ended:
            read = await asyncio.get_running_loop().run_in_executor(self._thread, self._wait)
            self._has_ended = read == b""
            self._keep(read or b"")
            lines = self._take()
        if not lines and self._has_ended:
            self.is_over.set()
            await asyncio.sleep(WAIT_S)
            return Batch()
        return Batch([LineMessage(self._name, line) for line in lines], None, 0)

    async def acknowledge(self, batch: Batch) -> None:
        """As Source. Nothing can be read again."""

    async def idle(self) -> None:
        """As Source. The writer waits."""

    async def preview(self, count: int, wait_s: float) -> Sequence[Message]:
        """As Source. What was read would be gone."""
        raise SourceAway("standard input can't be previewed")

    async def close(self, *, is_end: bool) -> None:
        """As Source."""
        self._thread.shutdown(wait=False)

    def _wait(self) -> bytes | None:
        """The next bytes; None: there are none within the time, b"": it has ended."""
        if not select.select((self._file,), (), (), WAIT_S)[0]:
            return None
        return os.read(self._file, READ_BYTES)

    def _keep(self, read: bytes) -> None:
        self._bytes += read
        over = len(self._bytes) - LINE_BYTES_MAX - 1
        if over > 0 and self._bytes.find(b"\n") < 0:
            # Of a line that is too long, the beginning is kept: it is set aside.
            del self._bytes[-over:]

    def _take(self) -> list[Line]:
        lines: list[Line] = []
        begin = 0
        while len(lines) < LINES_MAX and (end := self._bytes.find(b"\n", begin)) >= 0:
            lines.append(self._line(begin, end, end + 1))
            begin = end + 1
        if not lines and self._has_ended and self._bytes:
            begin = len(self._bytes)
            lines.append(self._line(0, begin, begin))
        del self._bytes[:begin]
        self._offset += begin
        return lines

    def _line(self, begin: int, end: int, behind: int) -> Line:
        text = bytes(self._bytes[begin:end]).removesuffix(b"\r")
        offset = self._offset + begin
        return Line("-", (), self._generation, offset, self._offset + behind, text)
