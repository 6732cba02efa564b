"""Files: lines that programs append become events, over rotations and restarts.

A thread reads. Each line has the number of its first byte in its file, by which the log knows a
line that is read again; the file's generation, a random name in the file of places, is the
producer. So a kill at any moment loses and repeats no line where the log is kept too.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from fastsse.config.sources import SourceRule
from fastsse.directives import Producer, producer_key
from fastsse.sources.file_places import FilePlaces
from fastsse.sources.file_tailer import Line, Tailer, TailOptions
from fastsse.sources.source import Batch, Message, SourceAway, Words

__all__ = ["FileSource", "LineMessage"]

# How long a read waits for the first line, and how often it looks meanwhile.
WAIT_S: Final = 0.5
LOOK_FIRST_S: Final = 0.02
LOOK_MAX_S: Final = 0.1

T = TypeVar("T")


class LineMessage:
    """A line of a file.

    Arguments:
        source: the source's name, the scope of its producers.
        line: see there.
    """

    __slots__ = ("_line", "payload", "producer")

    def __init__(self, source: str, line: Line) -> None:
        self._line = line
        self.payload: bytes = line.payload
        key = producer_key(f"files/{source}", line.generation.encode())
        self.producer: Producer | None = Producer(key, 0, line.offset)

    @property
    def origin(self) -> str:
        """As Message: the file, and the number of the line's first byte."""
        return f"{self._line.path}:{self._line.offset}"

    def words(self) -> Words:
        """As Message: `file`, and the text of the wildcards of its pattern."""
        texts = self._line.wildcards
        return {"file": self._line.path} | {str(at): text for at, text in enumerate(texts, 1)}


class FileSource:
    """Follows files.

    Arguments:
        rule: the source.
        letters_wait: says that dead letters can't be written now. No place is kept then, so that a
            kill loses none: the lines are read again, and the log knows the others.
    """

    backlog: int | None = None

    def __init__(self, rule: SourceRule, letters_wait: Callable[[], bool]) -> None:
        self._rule: Final = rule
        self._letters_wait: Final = letters_wait
        # Of each file, the last line that the log has and whose place is not kept.
        self._held: dict[str, Line] = {}
        self._tailer: Tailer | None = None
        self._thread: ThreadPoolExecutor | None = None
        self.trouble: str | None = None

    async def open(self) -> None:
        """As Source. Continues at the kept places."""
        self._thread = ThreadPoolExecutor(1, f"source-{self._rule.name}")
        self._held.clear()
        self._tailer = await self._call(self._opened)

    async def read(self) -> Batch:
        """As Source."""
        tailer = self._tailer
        assert tailer is not None
        loop = asyncio.get_running_loop()
        until_s, look_s = loop.time() + WAIT_S, LOOK_FIRST_S
        while True:
            lines = await self._call(tailer.read)
            self.trouble = tailer.trouble
            if lines or loop.time() >= until_s:
                messages = [LineMessage(self._rule.name, line) for line in lines]
                # Without lines there may be files that are over.
                return Batch(messages, lines, 0, not tailer.has_more)
            await asyncio.sleep(look_s)
            look_s = min(look_s * 2, LOOK_MAX_S)

    async def acknowledge(self, batch: Batch) -> None:
        """As Source. Keeps the places."""
        tailer = self._tailer
        assert tailer is not None
        lines: Sequence[Line] = batch.places  # type: ignore[assignment]
        self._held |= {line.generation: line._replace(payload=b"") for line in lines}
        if self._letters_wait():
            return
        held, self._held = list(self._held.values()), {}
        await self._call(lambda: tailer.acknowledge(held))

    async def idle(self) -> None:
        """As Source. Files wait."""

    async def preview(self, count: int, wait_s: float) -> Sequence[Message]:
        """As Source."""
        self._thread = ThreadPoolExecutor(1, f"source-{self._rule.name}")
        try:
            tailer = self._tailer = await self._call(lambda: self._opened(keeps=False))
            if tailer.trouble is not None:
                raise SourceAway(tailer.trouble)
            loop = asyncio.get_running_loop()
            until_s = loop.time() + wait_s
            found: list[Message] = []
            while len(found) < count and (not found or loop.time() < until_s):
                lines = await self._call(tailer.read)
                found += [LineMessage(self._rule.name, line) for line in lines]
                if not lines:
                    if loop.time() >= until_s:
                        break
                    await asyncio.sleep(LOOK_MAX_S)
            return found[:count]
        finally:
            await self.close(is_end=True)

    async def close(self, *, is_end: bool) -> None:
        """As Source."""
        tailer, self._tailer = self._tailer, None
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if tailer is not None:
            await asyncio.get_running_loop().run_in_executor(thread, tailer.close)
        thread.shutdown(wait=False)

    def _opened(self, *, keeps: bool = True) -> Tailer:
        rule = self._rule
        places = FilePlaces(rule.place, keeps=keeps)
        options = TailOptions(rule.files, starts_behind=rule.start == "latest")
        try:
            return Tailer(options, places.opened())
        except BaseException:
            places.close()
            raise

    async def _call(self, function: Callable[[], T]) -> T:
        assert self._thread is not None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function)
        except (OSError, ValueError) as error:
            raise SourceAway(_text(error)) from None


def _text(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
