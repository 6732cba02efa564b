"""The judge of the stores in memory: whether the state of their topics lets events be published.

It is asked where order is made, with everything before already in place, so two publishers can't
both be right. The file does the same within its transaction, Redis in the script that appends.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from fastsse._batch import is_plain
from fastsse.directives import END
from fastsse.errors import FastsseError, TopicEnded
from fastsse.events import Event

__all__ = ["JudgedPositions", "Known", "TopicStates", "is_control", "is_plain", "judge", "merged"]

Known = list[int | None]
"""Of each event of a batch the position that it has already, None for one that is to be stored."""


class TopicStates(Protocol):
    """What is known of topics where order is made."""

    @property
    def ended_count(self) -> int:
        """Topics that have ended."""

    def ended_at(self, topic: str) -> int:
        """The position of a topic's end; 0 while it is open."""


class JudgedPositions(list[int]):
    """Positions of a batch's events, some of which were stored before."""

    duplicates = 0


def is_control(event: Event) -> bool:
    """Whether it is to be a control entry."""
    return event.directives is not None and event.directives.control is not None


def judge(events: Sequence[Event], states: TopicStates) -> Known | FastsseError | None:
    """What is to be done with a batch: None to store it, which events are known already, or why it
    is refused."""
    ended: Final[dict[str, int]] = {}
    known: Known = []
    for event in events:
        at = {topic: ended.get(topic) or states.ended_at(topic) for topic in event.topics}
        if is_control(event):
            known.append(_known_control(event, at))
            if _is_end(event):
                ended.update(dict.fromkeys(event.topics, -1))
            continue
        for topic, place in at.items():
            if place:
                return TopicEnded(topic)
        known.append(None)
    return None if known.count(None) == len(known) else known


def merged(known: Known, stored: Sequence[int]) -> JudgedPositions:
    """The positions of a batch, from those that it had and those that the rest has got."""
    rest = iter(stored)
    return JudgedPositions([next(rest) if position is None else position for position in known])


def _is_end(event: Event) -> bool:
    return event.directives is not None and event.directives.control == END


def _known_control(event: Event, ended: dict[str, int]) -> int | None:
    """An end of topics that have all ended is the last of their ends."""
    if _is_end(event) and all(place > 0 for place in ended.values()):
        return max(ended.values())
    return None
