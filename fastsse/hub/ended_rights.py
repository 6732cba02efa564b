"""Ends the requests that wait with a token that was revoked meanwhile."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Generic, Protocol, TypeVar

from fastsse.auth.rights import Rights

__all__ = ["EndedRights", "HaveEnded"]

HaveEnded = Callable[[Rights], bool]
"""Whether rights have ended. O(1)."""
# They take less than a millisecond of the loop.
LOOKED_AT_A_TURN: Final = 500


class _Waiting(Protocol):
    """A request that waits."""

    @property
    def rights(self) -> Rights | None:
        """Those of its client."""


_One = TypeVar("_One", bound=_Waiting)


class EndedRights(Generic[_One]):
    """Looks at all requests that wait, some in each turn of the loop. Revocations that come
    meanwhile share the next walk. Loop thread only.

    Arguments:
        waiting: gives the requests; some may be answered already. O(requests).
        end: ends one; does nothing for one that is answered.
    """

    def __init__(self, waiting: Callable[[], Iterable[_One]], end: Callable[[_One], None]) -> None:
        self._waiting: Final = waiting
        self._end: Final = end
        self._left: deque[tuple[_One, Rights]] = deque()
        self._have_ended: HaveEnded = lambda rights: False
        self._is_due = False
        self._is_walking = False

    def look(self, have_ended: HaveEnded) -> None:
        """Ends, soon, the requests whose rights have ended."""
        self._have_ended = have_ended
        self._is_due = True
        if not self._is_walking:
            self._is_walking = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        if not self._left:
            self._is_due = False
            for one in self._waiting():
                if one.rights is not None:
                    self._left.append((one, one.rights))
        for _ in range(min(len(self._left), LOOKED_AT_A_TURN)):
            one, rights = self._left.popleft()
            if self._have_ended(rights):
                self._end(one)
        self._is_walking = bool(self._left) or self._is_due
        if self._is_walking:
            asyncio.get_running_loop().call_soon(self._go_on)
