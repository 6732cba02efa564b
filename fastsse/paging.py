"""Sends in pages what is too much for one turn of the event loop.

A full copy that is sent again (present streams, usage of clients, a history) goes through a
`Pager`: one page a turn, and none while the connection has no room. So the size of the copy does
not affect the memory or the time of a turn.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

__all__ = ["Pager"]

Page = TypeVar("Page")


def _always() -> bool:
    return True


class Pager:
    """Sends one page a turn of the loop, while there is room. Several jobs take turns, so a long
    one does not hold up a short one. Loop thread only.

    A page is made when it is sent, never before: it shows what is true in that turn.

    Arguments:
        has_room: whether a page may be sent now. The code that makes room calls `go_on`.
    """

    def __init__(self, has_room: Callable[[], bool] = _always) -> None:
        self._has_room: Final = has_room
        self._jobs: deque[tuple[Iterator[Any], Callable[[Any], object]]] = deque()
        self._is_due = False

    def __len__(self) -> int:
        """Jobs that have not ended."""
        return len(self._jobs)

    def add(self, pages: Iterable[Page], send: Callable[[Page], object]) -> None:
        """Has each page sent by `send`. The first leaves within the call if there is room and no
        other job is under way."""
        self._jobs.append((iter(pages), send))
        if len(self._jobs) == 1 and not self._is_due:
            self._turn()
        else:
            self.go_on()

    def go_on(self) -> None:
        """There may be room again: the next page leaves in the next turn."""
        if self._jobs and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def clear(self) -> None:
        """Ends all jobs where they are: the connection is lost."""
        self._jobs.clear()

    def _turn(self) -> None:
        self._is_due = False
        if not self._jobs or not self._has_room():
            return
        job = self._jobs.popleft()
        pages, send = job
        for page in pages:
            # Back in its place first: `send` may find the connection lost, and clear all.
            self._jobs.append(job)
            send(page)
            break
        self.go_on()
