"""Ends of topics from before this worker began, which only the store knows.

Memory knows the state of every topic with a kept event. For other topics the store is asked when a
stream names the topic, once while the topic is alive.
"""

from typing import Final

from fastsse.errors import FastsseError
from fastsse.hub.channels import Channel
from fastsse.hub.history import History
from fastsse.hub.resume.store_queries import UNKNOWN_YET, StoreQueries
from fastsse.hub.topics import Topic

__all__ = ["TopicEnds"]


class TopicEnds:
    """The known ends of topics. Loop thread only.

    Arguments:
        history: the events in memory.
        queries: reads the store.
    """

    def __init__(
        self,
        history: History,
        queries: StoreQueries,
    ) -> None:
        self._history: Final = history
        self._queries: Final = queries

    def unknown(self, channel: Channel) -> tuple[str, ...]:
        """The channel's topics whose end only the store may know; none for a channel with
        templates, which never ends. O(topics)."""
        if not self._queries.has_ended or not isinstance(channel.topics, tuple):
            return ()
        return tuple([topic.name for topic in channel.topics if _may_have_ended(topic)])

    def learn(self, channel: Channel, ends: dict[str, int] | FastsseError) -> None:
        """Takes the store's answer for the unknown topics of a channel. After an error the store is
        asked again later."""
        if isinstance(ends, FastsseError) or not isinstance(channel.topics, tuple):
            return
        for topic in channel.topics:
            if topic.is_forgotten or not _may_have_ended(topic):
                continue
            topic.is_state_known = True
            if topic.name in ends:
                self._history.set_ended(topic, ends[topic.name])

    def look(self, channel: Channel) -> None:
        """Asks the store, if needed, for a channel whose streams are live already."""
        names = self.unknown(channel)
        if not names:
            return
        asker = _Asker(self, channel)
        ends = self._queries.ended_topics(names, asker)
        if ends is not UNKNOWN_YET:
            asker.on_answer(ends)

    def are_over(self, channel: Channel) -> bool:
        """Whether all topics of a channel are known to have ended. O(topics)."""
        topics = channel.topics
        return isinstance(topics, tuple) and all(topic.ended_at for topic in topics)


class _Asker:
    """Receives an answer that no stream waits for."""

    ended = False

    def __init__(self, ends: TopicEnds, channel: Channel) -> None:
        self._ends = ends
        self._channel = channel

    def on_answer(self, outcome: dict[str, int] | FastsseError) -> None:
        """The store has answered."""
        self._ends.learn(self._channel, outcome)


def _may_have_ended(topic: Topic) -> bool:
    return not topic.ended_at and topic.log is None and not topic.is_state_known
