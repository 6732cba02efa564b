"""What control services of several nodes share when they share a store. Redis implements all of it.

A `OneTimeStore` keeps values by key for a time. `NodeMessaging` carries messages to the same
control service of the other nodes. A `Roster` lists the streams of all nodes, and outlives each
node.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import orjson

from fastsse.errors import FastsseError

__all__ = ["Answer", "Change", "NodeMessaging", "OneTimeStore", "Roster", "Subscriber"]

Answer = Callable[[bytes | FastsseError], None]


class OneTimeStore(Protocol):
    """Values by key, the same whichever of the nodes that share it is asked."""

    def put(self, key: bytes, value: bytes, life_ms: int, done: Callable[[bool], None]) -> None:
        """Keeps a value for a time, unless there is one; says whether it does. Of several at once
        one is kept."""

    def get(self, key: bytes, done: Callable[[bytes | None], None]) -> None:
        """The value; None when it is not there."""

    def exchange(
        self, key: bytes, value: bytes, life_ms: int, done: Callable[[bytes | None], None]
    ) -> None:
        """Keeps a value for a time in the place of another, and gives that; None when there was
        none. Of several at once each gets another's."""


class NodeMessaging(Protocol):
    """A node's way to the others, each known by a name of bytes. Loop thread only.

    What `tell` sends goes to all and is counted: a node that missed something gets all again.
    What `say` sends is not counted: it reaches the nodes that listen now.
    """

    def listen(
        self,
        subject: str,
        heard: Callable[[bytes, bytes], None],
        gone: Callable[[bytes], None] | None = None,
        whole: Callable[[], Iterable[bytes]] | None = None,
    ) -> None:
        """Has a control service take part; once for each subject.

        Arguments:
            heard: called with a node and its message. May raise ValueError for one that is
                damaged, which is dropped.
            gone: called with a node that left or fell silent, or that is about to send everything
                again: its earlier messages hold no longer.
            whole: gives the messages that describe everything as it was when `whole` was called, as
                if they had been sent one by one. They are taken one by one, over some time.
        """

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be sent that what can wait should."""

    def tell(self, subject: str, message: bytes) -> None:
        """Tells all others, in order; at most 256 KiB."""

    def say(self, subject: str, message: bytes, to: bytes | None = None) -> bool:
        """Says something to one or to all; whether it is on its way. At most 256 KiB."""


class Subscriber(NamedTuple):
    """A stream that is open: its public name, what it asks for, and what its token says of it."""

    name: str
    selectors: tuple[str, ...]
    payload: Any

    @property
    def cost_bytes(self) -> int:
        """What it takes in memory, about: an object of some hundred bytes, the selectors, and a
        payload whose values take several times their text. O(its size)."""
        payload = 0 if self.payload is None else len(orjson.dumps(self.payload))
        return 512 + sum(map(len, self.selectors)) + 64 * len(self.selectors) + 4 * payload


Change = tuple[Subscriber, bool]
"""Who came (True) or went."""


class Roster(Protocol):
    """Lists present streams, and publishes each change by private events. Loop thread only."""

    def begin(self, present: Callable[[], Iterable[Subscriber]]) -> None:
        """Once, before all else. `present` gives those that are at this node, for a roster that
        has lost them."""

    def note(self, changes: Sequence[Change]) -> None:
        """Who came and went at this node, in order; each comes once, and goes after that."""

    def find(self, topic: str | None, name: str | None, most: int, answer: Answer) -> None:
        """Who is there, for a topic or all, one subscriber or all: `[count, [[topic, subscriber,
        payload], …]]` as JSON, at most so many of them and about 8 MiB; or why it can't be
        given."""
