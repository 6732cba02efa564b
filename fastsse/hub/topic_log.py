"""Logs: the frames that history keeps, in order. Each topic has a log, and the whole has one.

The logs themselves are native (`_hub.pyx`); here is what readers of them share.
"""

from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, TypeAlias

from fastsse._core import Frame
from fastsse._hub import EVENT_COST_BYTES, Topic, TopicLog, WholeLog

if TYPE_CHECKING:
    from fastsse.hub.templates import WantedTopics

__all__ = [
    "EVENT_COST_BYTES",
    "Owners",
    "TopicLog",
    "WholeLog",
    "is_wanted",
    "logs_of",
    "once",
    "position_of",
]

# The topics that an event was published under: the topic itself when it is only one, which saves
# a tuple an event.
Owners: TypeAlias = Topic | tuple[Topic, ...]

position_of = attrgetter("position")


def logs_of(topics: Iterable[Topic]) -> list[TopicLog]:
    """The logs of those topics that have one."""
    return [topic.log for topic in topics if topic.log is not None]


def is_wanted(wanted: "WantedTopics", owners: Owners) -> bool:
    """Whether one of an event's topics is among those."""
    if isinstance(owners, tuple):
        return any(topic in wanted for topic in owners)
    return owners in wanted


def once(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Leaves out repeats: an event under several of the topics is the same frame in a row."""
    last = None
    for frame in frames:
        if frame is not last:
            yield frame
        last = frame
