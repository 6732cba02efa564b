"""The names of what the log keeps in Redis.

All are in one slot of a cluster: only the braces of the prefix choose it, even if a topic has
braces. Topics and ids are at the end of a key, unescaped. Redis takes any bytes and length-prefixes
them, so one key can't be mistaken for another.
"""

from typing import Final

__all__ = ["FORMAT", "Keys"]

#: The newest format of records that this version reads. Nodes report it to each other.
FORMAT: Final = 2


class Keys:
    """The keys of one log.

    Arguments:
        name: the stream's; letters, digits and `._:-`.

    Attributes:
        stream: every event of every topic, in order. Nodes follow it.
        newest: the running number and the id of its newest entry. A gap in the numbers shows that
            entries are missing.
        control, changes: what control services keep, and a stream of the newest changes to it.
        delayed: delayed events, by the keys of the control store.
        floor: the position at which this log began.
        lost: the position of the newest entry that marks lost events.
        nodes: the nodes that are alive, each with the time at which it counts as dead unless it
            reports again.
        dead: the nodes whose subscribers must still be removed, each with the time until which this
            is one node's task.
        heard: the time of the last report of any node.
        counts: how many subscriptions each node has.
        format: the format to write; 1 if the key is missing.
        erased: which events were deleted; their entries stay in the stream: `i` and an id, or `t`
            and a topic with the last deleted id.
        ends: present while a topic may have ended.
        streams: the rows of durable streams.
        times: the publish times of ids, while ids are ahead of Redis's clock.
    """

    __slots__ = (
        "changes",
        "control",
        "counts",
        "dead",
        "delayed",
        "ends",
        "erased",
        "floor",
        "format",
        "heard",
        "lost",
        "newest",
        "nodes",
        "prefix",
        "stream",
        "streams",
        "times",
    )

    def __init__(self, name: str) -> None:
        self.stream: Final = name.encode()
        self.prefix: Final = b"{%b}:" % self.stream
        self.newest: Final = self.prefix + b"newest"
        self.control: Final = self.prefix + b"desk"
        self.delayed: Final = self.prefix + b"delayed"
        self.changes: Final = self.prefix + b"changes"
        self.floor: Final = self.prefix + b"floor"
        self.lost: Final = self.prefix + b"lost"
        self.nodes: Final = self.prefix + b"nodes"
        self.dead: Final = self.prefix + b"dead"
        self.heard: Final = self.prefix + b"heard"
        self.counts: Final = self.prefix + b"counts"
        self.format: Final = self.prefix + b"format"
        self.erased: Final = self.prefix + b"erased"
        self.ends: Final = self.prefix + b"ends"
        self.streams: Final = self.prefix + b"streams"
        self.times: Final = self.prefix + b"times"

    def sender(self, node: bytes) -> bytes:
        """The number of the last group that was stored for a node."""
        return self.prefix + b"sender:" + node

    def ended(self, topic: bytes) -> bytes:
        """The position of a topic's end."""
        return self.prefix + b"ended:" + topic

    def own_id(self, own_id: bytes) -> bytes:
        """The position of the event that was published with this id."""
        return self.prefix + b"id:" + own_id

    def held(self, node: bytes) -> bytes:
        """The subscribers of a node: their names, and the record of each."""
        return self.prefix + b"held:" + node

    def there(self, topic: bytes) -> bytes:
        """The subscribers of a topic, at all nodes."""
        return self.prefix + b"there:" + topic

    def channel(self, database: int, node: bytes = b"all") -> bytes:
        """The channel to one node or to all. Channels are shared by all databases of a Redis, so it
        contains the database's number."""
        return b"%bnode:%d:%b" % (self.prefix, database, node)
