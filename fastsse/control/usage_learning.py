"""How a worker reads from the control service what other workers hold of limits.

The numbers come in pages, while usage goes on.

The control service's answers and broadcasts arrive in order. So a broadcast after the first answer
is newer than the walk's begin and is added, and an account in a page has the value of that page.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import orjson

from fastsse.errors import FastsseError

__all__ = ["RELEARN_S", "UsageLearning"]

# Time for the workers of a new control service to send what they hold.
RELEARN_S: Final = 2.0

Account = tuple[int, str]
Row = Sequence[Any]
"""A side, a name, and how many streams."""


class _Walk:
    """The accounts in pages so far, and what was broadcast since the first."""

    __slots__ = ("seen", "since")

    def __init__(self) -> None:
        self.seen: set[Account] = set()
        self.since: Counter[Account] = Counter()


class UsageLearning:
    """Streams that others hold, by account. Loop thread only.

    Arguments:
        ask: asks the control service where a page begins.
        call_later: the loop's.
        changed: called with the differences to what was known before.
    """

    def __init__(
        self,
        ask: Callable[[bytes, Callable[[bytes | FastsseError], None]], None],
        call_later: Callable[[float, Callable[[], None]], object],
        changed: Callable[[Iterable[Row]], None],
    ) -> None:
        self._ask_service = ask
        self._call_later = call_later
        self._changed = changed
        self._others: Counter[Account] = Counter()
        self._walk: _Walk | None = None
        self._is_due = False
        self._begins_again = False

    def ask(self) -> None:
        """Requests all pages; starts again after the last page if a new request came meanwhile."""
        self._is_due = False
        self._begins_again = self._walk is not None
        if self._walk is None:
            self._walk = _Walk()
            self._ask_from(0, self._walk)

    def ask_soon(self) -> None:
        """Requests after others have had time to send theirs to the control service."""
        if not self._is_due:
            self._is_due = True
            self._call_later(RELEARN_S, self.ask)

    def forget_questions(self) -> None:
        """The control service was replaced: answers of the earlier one are ignored."""
        self._walk = None

    def add(self, uses: Iterable[Row]) -> None:
        """Adds usage of other workers and nodes to what is known."""
        for side, name, streams, *_ in uses:
            self._others[side, name] += streams
            if self._walk is not None:
                self._walk.since[side, name] += streams
            if not self._others[side, name]:
                del self._others[side, name]

    def _ask_from(self, begin: int, walk: _Walk) -> None:
        self._ask_service(b"%d" % begin, partial(self._answered, begin, walk))

    def _answered(self, begin: int, walk: _Walk, answer: bytes | FastsseError) -> None:
        if walk is not self._walk:
            return
        if isinstance(answer, FastsseError):
            self._walk = None
            return
        if not begin:
            walk.since.clear()
        end, page = orjson.loads(answer)
        self._set_right(page)
        walk.seen.update((side, name) for side, name, _ in page)
        if end:
            self._ask_from(end, walk)
        else:
            self._end(walk)

    def _end(self, walk: _Walk) -> None:
        """An account in no page had no streams when the walk began."""
        unseen = [one for one in self._others.keys() | walk.since.keys() if one not in walk.seen]
        self._walk = None
        self._set_right((*account, walk.since[account]) for account in unseen)
        if self._begins_again:
            self.ask_soon()

    def _set_right(self, counts: Iterable[Row]) -> None:
        for side, name, count in counts:
            difference = count - self._others[side, name]
            if difference:
                self._changed(((side, name, difference),))
                self._others[side, name] = count
                if not count:
                    del self._others[side, name]
