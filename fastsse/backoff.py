"""Pauses between tries that grow, and differ from node to node."""

import asyncio
import random
from typing import Final

__all__ = ["Backoff"]


class Backoff:
    """The pause before the next try: none at first, then doubled each time up to 0.5 s. The pause
    is random within the upper half of that, so that many nodes do not reconnect together."""

    FIRST_S: Final = 0.05
    MOST_S: Final = 0.5

    def __init__(self) -> None:
        self.tries = 0

    def reset(self) -> None:
        """Starts again with no pause, after a success."""
        self.tries = 0

    async def wait(self) -> None:
        """Waits, longer each time."""
        tries = self.tries
        self.tries = min(tries + 1, 16)
        if tries:
            limit_s = min(self.FIRST_S * 2 ** (tries - 1), self.MOST_S)
            await asyncio.sleep(limit_s * random.uniform(0.5, 1))
