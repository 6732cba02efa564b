"""The names of what the log keeps in Redis.

All are in one slot of a cluster: the braces of the prefix name it, also for a topic with braces.
Topics and ids stand at the end of a key as they are; Redis takes any bytes and length-prefixes
them, so they can't reach into another name.
"""

from typing import Final

__all__ = ["FORMAT", "Keys"]

#: The newest format that this node reads, as it tells the others.
FORMAT: Final = 2


class Keys:
    """The keys of one log.

    Arguments:
        name: the stream's; letters, digits and `._:-`.

    Attributes:
        stream: every event of every topic, in order: what nodes follow.
        newest: the running number of its newest entry, by which a missing one shows, and its id.
        control service, changes: what control services keep, and a stream of what was put there
        last.
        floor: the position at which this log began; nothing older is known.
        lost: the position of the last mark that says that events were lost.
        nodes: those that are alive, by the time until which each is, unless it reports again.
        dead: those whose subscribers are still to be taken out, by the time until which that is
            somebody's task.
        heard: when any node reported last.
        counts: how many subscriptions each node has.
        formats: the newest format of records that each node reads; of those of before, nothing.
        format: which format is written; 1 where it is not there.
        times: which id belongs to which time, while ids are ahead of Redis's clock.
    """

    __slots__ = (
        "changes",
        "control",
        "counts",
        "dead",
        "floor",
        "format",
        "formats",
        "heard",
        "lost",
        "newest",
        "nodes",
        "prefix",
        "stream",
        "times",
    )

    def __init__(self, name: str) -> None:
        self.stream: Final = name.encode()
        self.prefix: Final = b"{%b}:" % self.stream
        self.newest: Final = self.prefix + b"newest"
        self.control: Final = self.prefix + b"desk"
        self.changes: Final = self.prefix + b"changes"
        self.floor: Final = self.prefix + b"floor"
        self.lost: Final = self.prefix + b"lost"
        self.nodes: Final = self.prefix + b"nodes"
        self.dead: Final = self.prefix + b"dead"
        self.heard: Final = self.prefix + b"heard"
        self.counts: Final = self.prefix + b"counts"
        self.formats: Final = self.prefix + b"formats"
        self.format: Final = self.prefix + b"format"
        self.times: Final = self.prefix + b"times"

    def sender(self, node: bytes) -> bytes:
        """The number of the last group that a node had stored."""
        return self.prefix + b"sender:" + node

    def own_id(self, own_id: bytes) -> bytes:
        """The position of the event that was published with this id."""
        return self.prefix + b"id:" + own_id

    def held(self, node: bytes) -> bytes:
        """Who is at a node: names of subscribers, and what `roster` says of each."""
        return self.prefix + b"held:" + node

    def there(self, topic: bytes) -> bytes:
        """The subscribers of a topic, at all nodes."""
        return self.prefix + b"there:" + topic

    def channel(self, database: int, node: bytes = b"all") -> bytes:
        """Where nodes speak to one of them, or to all; channels are the same in all databases."""
        return b"%bnode:%d:%b" % (self.prefix, database, node)
