"""How many streams of this process follow a topic, and when there is none."""

import asyncio
from collections import Counter
from collections.abc import Iterable

__all__ = ["Viewers"]


class Viewers:
    """Counts open streams by what they ask for. Loop thread only."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._changed = asyncio.Event()

    def opened(self, selectors: Iterable[str]) -> None:
        """A stream with these selectors opened."""
        self._counts.update(selectors)
        self._changed.set()

    def closed(self, selectors: Iterable[str]) -> None:
        """It has ended."""
        self._counts.subtract(selectors)
        for selector in selectors:
            if self._counts[selector] <= 0:
                del self._counts[selector]
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
