"""Full copies: all that the control services of this node hold, sent to nodes that requested it.

One node at a time receives a copy; the others wait. Redis disconnects a subscriber that reads too
slowly, so a node confirms each page, and no page is sent while a few are not confirmed.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from fastsse.paging import Pager

__all__ = ["FullCopies"]

# Pages that a node has not confirmed. A node of an earlier version confirms none, so a page counts
# as confirmed after this time.
PAGES_MAX: Final = 8
CONFIRM_S: Final = 0.25


class _Page(NamedTuple):
    """A page of a copy. None in place of a page begins the copy."""

    subject: str
    message: bytes


class FullCopies:
    """Sends full copies, in the order of requests. Loop thread only.

    Arguments:
        has_room: whether a page may be added to what waits to be sent.
        contents: returns each subject with its messages, as they are when it is called.
        begin: sends a node that its copy begins.
        send: sends a node a message of a subject.
    """

    def __init__(
        self,
        has_room: Callable[[], bool],
        contents: Callable[[], Iterable[tuple[str, Iterable[bytes]]]],
        begin: Callable[[bytes], object],
        send: Callable[[bytes, str, bytes], object],
    ) -> None:
        self._has_room: Final = has_room
        self._contents: Final = contents
        self._begin: Final = begin
        self._send: Final = send
        self._waiting: dict[bytes, None] = {}  # In the order of requests.
        self._receiver = b""  # The node that receives its copy now.
        self._unconfirmed = 0
        self._confirming: asyncio.TimerHandle | None = None
        self._pager = Pager(self._may_send)

    @property
    def receivers(self) -> set[bytes]:
        """The nodes that wait for a copy or receive one."""
        return {*self._waiting, self._receiver} - {b""}

    def add(self, node: bytes) -> None:
        """Sends a node a copy as soon as it is its turn."""
        self._waiting[node] = None
        if not len(self._pager):
            self._pager.add(self._pages(), self._send_page)

    def stop(self, node: bytes) -> None:
        """Sends a node no more pages: it is gone."""
        self._waiting.pop(node, None)
        if node == self._receiver:
            self._receiver = b""
            self._unconfirmed = 0
            self._pager.go_on()

    def confirm(self, node: bytes) -> None:
        """Notes that a node has received a page."""
        if node == self._receiver and self._unconfirmed:
            self._unconfirmed -= 1
            if self._confirming is not None:
                self._confirming.cancel()
                self._confirming = None
            self._pager.go_on()

    def go_on(self) -> None:
        """There may be room again."""
        self._pager.go_on()

    def clear(self) -> None:
        """Drops all copies: the connection is lost."""
        self._pager.clear()
        self._waiting.clear()
        self._receiver = b""
        self._unconfirmed = 0

    def _pages(self) -> Iterator[_Page | None]:
        """The pages of all copies, one node after the other."""
        while self._waiting:
            self._receiver = next(iter(self._waiting))
            del self._waiting[self._receiver]
            self._unconfirmed = 0
            yield from self._pages_for(self._receiver)

    def _pages_for(self, node: bytes) -> Iterator[_Page | None]:
        # The copy is of this moment; the node receives later messages in addition.
        contents = list(self._contents())
        yield None
        for subject, messages in contents:
            for message in messages:
                if self._receiver != node:
                    return
                yield _Page(subject, message)

    def _send_page(self, page: _Page | None) -> None:
        if page is None:
            self._begin(self._receiver)
            return
        self._unconfirmed += 1
        if self._unconfirmed >= PAGES_MAX and self._confirming is None:
            loop = asyncio.get_running_loop()
            self._confirming = loop.call_later(CONFIRM_S, self._confirm_late)
        self._send(self._receiver, *page)

    def _may_send(self) -> bool:
        return self._unconfirmed < PAGES_MAX and self._has_room()

    def _confirm_late(self) -> None:
        self._confirming = None
        self.confirm(self._receiver)
