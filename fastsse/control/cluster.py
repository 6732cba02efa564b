"""What control services of several nodes share when they share a store. Redis implements all of it.

A `OneTimeStore` keeps values by key for a time. `NodeMessaging` carries messages to the same
control service of the other nodes. A `Roster` lists the streams of all nodes, and outlives each
node. `OwnedValues` belong to one node at a time.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

import orjson

from fastsse.errors import FastsseError

__all__ = [
    "Answer",
    "Change",
    "NodeMessaging",
    "OnOwned",
    "OneTimeStore",
    "OwnedValues",
    "Roster",
    "Subscriber",
    "cost_bytes_of",
    "packed_of",
]

Answer = Callable[[bytes | FastsseError], None]


class OneTimeStore(Protocol):
    """Values by key, shared by all nodes. Each value has an end."""

    def put(self, key: bytes, value: bytes, life_ms: int, done: Callable[[bool], None]) -> None:
        """Stores a value for a time, unless the key has one, and reports whether it did. Of several
        calls at the same time one succeeds."""

    def get(self, key: bytes, done: Callable[[bytes | FastsseError | None], None]) -> None:
        """The value; None if there is none, Unavailable while that is not known."""

    def exchange(
        self, key: bytes, value: bytes, life_ms: int, done: Callable[[bytes | None], None]
    ) -> None:
        """Stores a value for a time and returns the one that it replaces; None if there was none.
        Of several calls at the same time each gets a different value."""

    def renew(self, key: bytes, life_ms: int, done: Callable[[bool | None], None]) -> None:
        """Moves the end of a value to `life_ms` from now, and reports whether there is one; None
        while that is not known."""


class NodeMessaging(Protocol):
    """Sends messages to other nodes; each node has a name, of bytes. Loop thread only.

    Messages of `notify` go to all nodes and are numbered: a node that missed one receives a full
    copy. Messages of `send` have no number and reach the nodes that listen now.
    """

    def listen(
        self,
        subject: str,
        on_message: Callable[[bytes, bytes], None],
        on_node_gone: Callable[[bytes], None] | None = None,
        full_copy: Callable[[], Iterable[bytes]] | None = None,
    ) -> None:
        """Connects a control service; once for each subject.

        Arguments:
            on_message: called with a node and its message. May raise ValueError for a damaged
                message, which is dropped.
            on_node_gone: called with a node that left, is silent for too long, or is about to send
                a full copy: its earlier messages are no longer valid.
            full_copy: returns messages that together say the state at the time of the call. They
                are read one by one, over some time. None: the subject has no state.
        """

    @property
    def own(self) -> bytes:
        """This node's name."""

    @property
    def others(self) -> frozenset[bytes]:
        """The names of the other nodes that are alive, as far as this node knows."""

    @property
    def is_full(self) -> bool:
        """Whether much waits to be sent, so that less urgent messages should be held back."""

    def notify(self, subject: str, message: bytes) -> None:
        """Sends a numbered message to all others, in order; at most 256 KiB."""

    def send(self, subject: str, message: bytes, to: bytes | None = None) -> bool:
        """Sends a message without a number to one node or all, and reports whether it was sent. At
        most 256 KiB."""


class OnOwned(Protocol):
    """Learns that this node owns values."""

    def on_gained(self) -> None:
        """This node owns them from now on: they can be read and put."""

    def on_lost(self) -> None:
        """It does not own them any more. What was put and not stored is lost."""


class OwnedValues(Protocol):
    """Values by key that one node at a time owns: only it reads and puts them. Loop thread only.

    Attributes:
        own: this node's name.
        owner: the name of the node that owns them, as far as this one knows; empty: none.
    """

    @property
    def own(self) -> bytes: ...

    @property
    def owner(self) -> bytes: ...

    @property
    def is_owned(self) -> bool:
        """Whether this node surely owns them: no other can have them now."""

    def begin(self, listener: OnOwned) -> None:
        """Tries to own them from now on. Once, before the store runs."""

    def get(self, key: str) -> bytes | None:
        """The value, or None."""

    def put(self, key: str, value: bytes | None) -> None:
        """Sets a key, or removes it with None."""

    def items(self, prefix: str = "") -> Sequence[tuple[str, bytes]]:
        """The pairs whose keys begin so, in the order of keys."""

    def when_stored(self, done: Callable[[bool], None]) -> None:
        """Calls `done` with true when what was put before is stored; with false if this node does
        not own the values any more."""


class Subscriber(NamedTuple):
    """An open stream: its public name, its selectors, and the payload of its token.

    There may be very many, so they are kept packed: the garbage collector does not look into bytes,
    nor at tuples and dicts of text and bytes.
    """

    name: str
    selectors: tuple[str, ...]
    payload: Any

    def pack(self) -> bytes:
        """Itself as JSON. O(its size)."""
        return packed_of(self.name, self.rest())

    def rest(self) -> bytes:
        """What `pack` has behind the name. Equal short ones are mostly one object, because most
        streams differ in the name alone. O(its size)."""
        # orjson cuts its result from a buffer of a kilobyte, which leaves holes in the heap while
        # the result lives. A copy has no such buffer.
        rest = bytes(memoryview(orjson.dumps((self.selectors, self.payload)))[1:])
        return _one_of_equal(rest) if len(rest) <= _SHARED_BYTES_MAX else rest

    @classmethod
    def unpack(cls, packed: bytes) -> "Subscriber":
        """The subscriber that was packed. O(its size)."""
        name, selectors, payload = orjson.loads(packed)
        return cls(name, tuple(selectors), payload)


def packed_of(name: str, rest: bytes) -> bytes:
    """The packed subscriber of a name and of what `Subscriber.rest` returned."""
    return b"[%b,%b" % (orjson.dumps(name), rest)


# Rests of which equal ones are one object, and the bytes of one.
_SHARED_MAX: Final = 4_096
_SHARED_BYTES_MAX: Final = 256


@lru_cache(_SHARED_MAX)
def _one_of_equal(rest: bytes) -> bytes:
    return rest


Change = tuple[bytes, bool]
"""A packed subscriber, and whether it opened (True) or ended."""

# The objects around the packed form of a change that waits.
_CHANGE_COST_BYTES: Final = 200


def cost_bytes_of(change: Change) -> int:
    """About the memory that a change takes while it waits. O(1)."""
    return _CHANGE_COST_BYTES + len(change[0])


class Roster(Protocol):
    """Lists present streams, and publishes each change by private events. Loop thread only."""

    def begin(self, present: Callable[[], Iterable[bytes]]) -> None:
        """Call it once, before anything else. `present` returns the streams of this node, packed,
        when the roster must write all of them again."""

    def note(self, changes: Sequence[Change]) -> None:
        """Records streams that opened and ended at this node, in order. Each opens once and ends
        after that."""

    def find(self, topic: str | None, name: str | None, most: int, answer: Answer) -> None:
        """Lists present subscriptions of a topic or all, of one subscriber or all. The answer is
        JSON, `[count, [[topic, subscriber, payload], …]]`, with at most `most` entries and about 8
        MiB, or an error."""
