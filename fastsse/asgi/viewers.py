"""How many streams of this process follow a topic, and when there is none."""

import asyncio
from collections.abc import Iterable

__all__ = ["Viewers"]


class Viewers:
    """Counts open streams by what they ask for. Loop thread only."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._changed = asyncio.Event()

    def opened(self, selectors: Iterable[str]) -> None:
        """A stream with these selectors opened."""
        for selector in selectors:
            self._counts[selector] = self._counts.get(selector, 0) + 1
        self._changed.set()

    def closed(self, selectors: Iterable[str]) -> None:
        """It has ended."""
        for selector in selectors:
            left = self._counts.pop(selector, 0) - 1
            if left > 0:
                self._counts[selector] = left
        self._changed.set()

    def count(self, topic: str) -> int:
        """Streams that name this topic; those of templates and `*` are not counted. O(1)."""
        return self._counts.get(topic, 0)

    async def wait_until_none(self, topic: str, for_s: float) -> None:
        """Returns when no stream has named the topic for `for_s` seconds."""
        while True:
            while self.count(topic):
                await self._change()
            try:
                async with asyncio.timeout(for_s):
                    while not self.count(topic):
                        await self._change()
            except TimeoutError:
                return

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
