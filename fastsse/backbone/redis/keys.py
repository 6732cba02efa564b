"""The names of what the log keeps in Redis.

All are in one slot of a cluster: the braces of the prefix say which, whatever braces a topic has.
Topics and ids stand at the end of a key as they are; Redis takes any bytes and length-prefixes
them, so they can't reach into another name.
"""

from typing import Final

__all__ = ["Keys"]


class Keys:
    """The keys of one log.

    Arguments:
        name: the stream's; letters, digits and `._:-`.

    Attributes:
        stream: every event of every topic, in order: what nodes follow.
        newest: the running number of its newest entry, by which a missing one shows, and its id.
        desk, changes: what desks keep, and a stream of what was put there last.
        floor: the position at which this log began; nothing older is known.
    """

    __slots__ = ("changes", "desk", "floor", "newest", "prefix", "stream")

    def __init__(self, name: str) -> None:
        self.stream: Final = name.encode()
        self.prefix: Final = b"{%b}:" % self.stream
        self.newest: Final = self.prefix + b"newest"
        self.desk: Final = self.prefix + b"desk"
        self.changes: Final = self.prefix + b"changes"
        self.floor: Final = self.prefix + b"floor"

    def sender(self, node: bytes) -> bytes:
        """The number of the last group that a node had stored."""
        return self.prefix + b"sender:" + node

    def own_id(self, own_id: bytes) -> bytes:
        """The position of the event that was published with this id."""
        return self.prefix + b"id:" + own_id
