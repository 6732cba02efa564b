"""Cursors make the URLs of long-polls differ, so that a cache does not give the same empty response
forever (protocol section 10.1)."""

import random
from collections.abc import Callable
from typing import Final

__all__ = ["EPOCH_MS", "INTERVAL_MS", "Cursors"]

#: 2024-10-09T00:00:00Z, as the protocol recommends.
EPOCH_MS: Final = 1_728_432_000_000
INTERVAL_MS: Final = 20_000
# After a cursor that the client has already, the next one is up to an hour later.
_JITTER_MAX: Final = 3_600_000 // INTERVAL_MS
# A longer cursor is ignored.
_DIGITS_MAX: Final = 15


class Cursors:
    """Gives cursors.

    Arguments:
        now_ms: unix milliseconds.
        jitter: a random whole number from 1 to its argument.
    """

    def __init__(
        self,
        now_ms: Callable[[], int],
        jitter: Callable[[int], int] = lambda most: random.randint(1, most),
    ) -> None:
        self._now_ms: Final = now_ms
        self._jitter: Final = jitter

    def current(self) -> int:
        """The number of the present interval."""
        return max(0, (self._now_ms() - EPOCH_MS) // INTERVAL_MS)

    def after(self, sent: str | None) -> str:
        """The cursor of an answer: the present one, or above the one that the client sent."""
        current = self.current()
        if sent is not None and sent.isascii() and sent.isdigit() and len(sent) <= _DIGITS_MAX:
            known = int(sent)
            if known >= current:
                return str(known + self._jitter(_JITTER_MAX))
        return str(current)
