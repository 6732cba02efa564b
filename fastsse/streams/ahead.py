"""Reads the next page of a stream from the store while the client receives the page before.

Only for clients that read a stream in order. Only a page that more content follows is kept, because
it never changes.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from fastsse.backbone import Stretch, Stretched
from fastsse.errors import FastsseError

__all__ = ["ReadAhead", "ReadContent"]

ReadContent: TypeAlias = Callable[[str, int, int, Stretched], None]
"""As `Backbone.read_content`."""

# Pages that are kept or being read.
PAGES_MAX: Final = 8
# The ends of pages by which clients that read in order are known.
ENDS_MAX: Final = 4_096

_Key: TypeAlias = tuple[str, int, int]
"""Topic, position, and the bound of the page in bytes."""


class _Page:
    """A page that was read, or is being read for all that wait."""

    __slots__ = ("stretch", "waiting")

    def __init__(self) -> None:
        self.stretch: Stretch | None = None
        self.waiting: list[Stretched] = []


class ReadAhead:
    """Content of the store, some of it read before it is asked for. Loop thread only.

    Arguments:
        read_content: as `Backbone.read_content`.
    """

    def __init__(self, read_content: ReadContent) -> None:
        self._read_content: Final = read_content
        self._pages: Final[OrderedDict[_Key, _Page]] = OrderedDict()
        self._ends: Final[OrderedDict[tuple[str, int], None]] = OrderedDict()
        self._loop: Final = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._pages)

    def read(self, topic: str, after: int, limit_bytes: int, done: Stretched) -> None:
        """As `Backbone.read_content`; within the call when the page was read before."""
        key = topic, after, limit_bytes
        page = self._pages.get(key)
        if page is None:
            self._read_content(topic, after, limit_bytes, done)
        elif page.stretch is None:
            page.waiting.append(done)
        else:
            del self._pages[key]
            done(page.stretch)

    def is_in_order(self, topic: str, after: int) -> bool:
        """Whether a page ended there."""
        return (topic, after) in self._ends

    def note_end(self, topic: str, place: int) -> None:
        """A page ended there, and more content follows. O(1)."""
        self._ends[topic, place] = None
        if len(self._ends) > ENDS_MAX:
            self._ends.popitem(last=False)

    def begin(self, topic: str, after: int, limit_bytes: int) -> None:
        """Reads a page, when the answers of this turn of the loop have been sent."""
        self._loop.call_soon(self._begin, (topic, after, limit_bytes))

    def _begin(self, key: _Key) -> None:
        if key in self._pages or not self._has_room():
            return
        self._pages[key] = _Page()
        self._read_content(*key, partial(self._on_read, key))

    def _has_room(self) -> bool:
        """Whether another page may be read; the oldest one that no client asked for gives way."""
        if len(self._pages) < PAGES_MAX:
            return True
        oldest = next(iter(self._pages))
        if self._pages[oldest].stretch is None:
            return False
        del self._pages[oldest]
        return True

    def _on_read(self, key: _Key, stretch: Stretch | FastsseError) -> None:
        page = self._pages[key]
        if isinstance(stretch, FastsseError) or stretch.is_last:
            # Content may have been appended before the others asked.
            del self._pages[key]
            for done in page.waiting:
                self._read_content(*key, done)
        elif page.waiting:
            del self._pages[key]
            for done in page.waiting:
                done(stretch)
        else:
            page.stretch = stretch
