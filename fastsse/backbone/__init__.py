"""Where order and durability come from: memory, a local store, or a log that many nodes share.

The hub is the only one that speaks to a backbone, from its loop thread, and every callback comes
back on that thread. The order of things is always the same: **commit, deliver, acknowledge**.
`append` commits a batch and gives it positions; `deliver` is called with every committed batch,
in order, whoever appended it; only then is `done` called. So whoever is told that an event was
taken can be told it again after a restart, and finds it in history.

A backbone may answer within the call (memory), when its own thread has committed (a local
store), or when the batch comes back down a shared log (many nodes). Its callers can't tell.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from fastsse.errors import FastsseError
from fastsse.events import Event

__all__ = ["Backbone", "Deliver", "Done", "Stretch", "Stretched"]

# Positions, strictly increasing, each with its event.
Deliver = Callable[[Sequence[int], Sequence[Event]], None]
# The positions of the batch, or why nothing of it was taken.
Done = Callable[[Sequence[int] | FastsseError], None]


class Stretch(NamedTuple):
    """What `read` found: the matching events after a place, in order, none left out between
    `evicted_through` and `through`."""

    positions: Sequence[int]
    events: Sequence[Event]
    through: int
    is_last: bool  # Nothing matching is stored after `through`.
    evicted_through: int


Stretched = Callable[[Stretch | FastsseError], None]


class Backbone(Protocol):
    """Gives events their order and keeps them, as far as it promises to."""

    @property
    def head(self) -> int:
        """The last position in use; every later one lies above it, also after a restart."""

    def tail(self, after: int, deliver: Deliver) -> None:
        """Has `deliver` called with everything committed after a place, in order, from now on.

        Called once, before the first `append`.
        """

    def append(self, events: Sequence[Event], done: Done) -> None:
        """Commits a batch of at least one event, all or nothing, then delivers it, then calls
        `done` once: with its positions, or with `Refused("backbone", …)`."""

    def read(
        self, topics: Sequence[str] | None, after: int, limit_bytes: int, done: Stretched
    ) -> None:
        """Gives `done` the stored events of these topics (None: of all) after a place: at most
        about `limit_bytes`, at least one when there is one. O(log n + what is read)."""

    async def close(self) -> None:
        """Commits or refuses what is pending. What is appended later is refused."""
