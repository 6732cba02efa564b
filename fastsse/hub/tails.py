"""Tails: streams of blocks that another part encodes from the events of a topic.

The blocks of a tail are made once for all its streams. They are sent like events, through a channel
of their own, whose topic no subscriber can name and no template matches. A tail has no history: the
part that opens a stream sends earlier content with the first block.
"""

from collections.abc import Callable
from typing import Final

from fastsse._core import POLICY_DISCONNECT, Sender, load_frame
from fastsse.hub.topics import TAIL_PREFIX, Topic, Topics
from fastsse.subscriptions import HEAD, Dialect, Subscription

__all__ = ["Tail", "TailSubscription", "Tails"]

# Without control events, which the readers of blocks do not know.
_QUIET: Final = Dialect(opens=True, has_control_events=False, initial_id="false")


class TailSubscription(Subscription):
    """A stream of a tail.

    Arguments:
        name: the tail's.
        begin: called when the stream is open, in the same turn of the loop. Returns its first
            block, and whether the stream is over behind it.
        head: the response head, without the lines that depend on the client.
    """

    __slots__ = ("begin", "head")

    begin: Callable[[], tuple[bytes, bool]]
    head: bytes

    def __init__(self, name: str, begin: Callable[[], tuple[bytes, bool]], head: bytes) -> None:
        self.selectors = (_topic_of(name),)  # type: ignore[misc]
        self.cursor = HEAD  # type: ignore[misc]
        self.dialect = _QUIET  # type: ignore[misc]
        self.last_each = 0  # type: ignore[misc]
        self.view = None  # type: ignore[misc]
        self.begin = begin
        self.head = head


class Tail:
    """The streams of one name. Loop thread only."""

    __slots__ = ("_sender", "_topic")

    def __init__(self, sender: Sender, topic: Topic) -> None:
        self._sender = sender
        self._topic = topic

    def send(self, block: bytes, time_ms: int) -> None:
        """Sends a block of whole events; `time_ms` of their publish is in unix milliseconds."""
        frame = load_frame(block, 0, False, time_ms)
        self._sender.publish(frame, (self._topic.number,), POLICY_DISCONNECT)

    def end(self) -> None:
        """Ends all streams after what was sent."""
        frame = load_frame(b":\n\n", 1, False, None, False)
        self._sender.end_topic(self._topic.number, frame)
        self._topic.is_end_sent = True


class Tails:
    """Finds tails.

    Arguments:
        sender: sends the blocks.
        topics: contains the topics of tails.
    """

    def __init__(self, sender: Sender, topics: Topics) -> None:
        self._sender: Final = sender
        self._topics: Final = topics
        #: Call it after several `send`.
        self.wake: Final = sender.wake

    def find(self, name: str) -> Tail | None:
        """The tail of a name, if a stream of it is open."""
        topic = self._topics.by_name.get(_topic_of(name))
        return None if topic is None or not topic.named else Tail(self._sender, topic)


def _topic_of(name: str) -> str:
    # A brace would make it a template.
    return TAIL_PREFIX + name.replace("{", "%7B")
