"""Patterns: selectors that are templates, and grants. Both look at each topic once: at those that
are alive when the first channel names them, and at every later one when it comes to life.
"""

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from fastsse.hub.topics import Topic, Topics
from fastsse.selectors import Selector, compile_selector

__all__ = ["Patterns", "Wanted"]

# Patterns that nobody uses and that are kept all the same: who comes back costs no look at all
# topics again. Each costs a look at every new topic.
IDLE_MAX: Final = 64


class Holder(Protocol):
    """A channel, as far as patterns are concerned."""

    @property
    def number(self) -> int: ...


class Pattern:
    """One distinct template, the live topics that it matches, and who uses it.

    `evicted_through` is the last place of which topics that it matched and that are forgotten
    now may have lost events.
    """

    __slots__ = ("channels", "evicted_through", "granted", "selector", "topics")

    def __init__(self, selector: Selector, evicted_through: int) -> None:
        self.selector = selector
        self.evicted_through = evicted_through
        self.topics: dict[Topic, None] = {}
        self.channels: dict[Holder, None] = {}
        self.granted: dict[Holder, None] = {}


class Wanted:
    """The topics of a channel with templates: those that it names and those that match now."""

    __slots__ = ("named", "patterns")

    def __init__(self, named: tuple[Topic, ...], patterns: tuple[Pattern, ...]) -> None:
        self.named = named
        self.patterns = patterns

    def __contains__(self, topic: Topic) -> bool:
        return topic in self.named or any(topic in pattern.topics for pattern in self.patterns)

    def __iter__(self) -> Iterator[Topic]:
        """Each once."""
        if len(self.patterns) == 1 and not self.named:
            return iter(self.patterns[0].topics)
        topics = dict.fromkeys(self.named)
        for pattern in self.patterns:
            topics.update(pattern.topics)
        return iter(topics)

    @property
    def size(self) -> int:
        """How many there are, at most."""
        return len(self.named) + sum(len(pattern.topics) for pattern in self.patterns)

    @property
    def evicted_through(self) -> int:
        """The last place of which a reader of them may have lost events. O(topics)."""
        known = max((topic.evicted_through for topic in self), default=0)
        return max(known, *(pattern.evicted_through for pattern in self.patterns))


class Patterns:
    """All patterns of a node's channels. Loop thread only.

    Arguments:
        topics: those that are alive.
    """

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._patterns: dict[str, Pattern] = {}
        self._idle: dict[str, None] = {}
        # Grants of plain topics: the channels that have them, whether the topic is alive or not.
        self._granted: dict[str, dict[Holder, None]] = {}

    def __len__(self) -> int:
        return len(self._patterns)

    def select(self, text: str, channel: Holder) -> Pattern:
        """Has a channel get what the template matches from now on."""
        pattern = self._use(text)
        pattern.channels[channel] = None
        for topic in pattern.topics:
            topic.channels += 1
        return pattern

    def unselect(self, text: str, channel: Holder) -> None:
        """The channel is gone."""
        pattern = self._patterns[text]
        del pattern.channels[channel]
        for topic in pattern.topics:
            topic.channels -= 1
        self._may_be_idle(text, pattern)

    def grant(self, texts: Iterable[str], channel: Holder) -> set[Topic]:
        """Notes a channel's grants; gives the live topics that they cover."""
        covered: set[Topic] = set()
        for text in texts:
            if compile_selector(text).is_exact:
                self._granted.setdefault(text, {})[channel] = None
                topic = self._topics.by_name.get(text)
                if topic is not None:
                    covered.add(topic)
            else:
                pattern = self._use(text)
                pattern.granted[channel] = None
                covered.update(pattern.topics)
        return covered

    def ungrant(self, texts: Iterable[str], channel: Holder) -> None:
        """The channel is gone."""
        for text in texts:
            holders = self._granted.get(text)
            if holders is not None:
                holders.pop(channel, None)
                if not holders:
                    del self._granted[text]
            elif (pattern := self._patterns.get(text)) is not None:
                pattern.granted.pop(channel, None)
                self._may_be_idle(text, pattern)

    def look_at(self, topic: Topic) -> tuple[set[Holder], set[Holder]]:
        """Notes a topic that has just come to life; gives the channels that get it by a template,
        and those that are granted it. O(patterns)."""
        linked: set[Holder] = set()
        granted = set(self._granted.get(topic.name, ()))
        for pattern in self._patterns.values():
            if pattern.selector.matches(topic.name):
                pattern.topics[topic] = None
                topic.channels += len(pattern.channels)
                linked.update(pattern.channels)
                granted.update(pattern.granted)
        return linked, granted

    def forget(self, topic: Topic) -> None:
        """A topic is forgotten; what was evicted from it is not. O(patterns)."""
        for pattern in self._patterns.values():
            if pattern.topics.pop(topic, topic) is None:
                pattern.evicted_through = max(pattern.evicted_through, topic.evicted_through)

    def _use(self, text: str) -> Pattern:
        pattern = self._patterns.get(text)
        if pattern is None:
            pattern = self._patterns[text] = self._add(compile_selector(text))
        self._idle.pop(text, None)
        return pattern

    def _add(self, selector: Selector) -> Pattern:
        """O(live topics, and forgotten ones that are remembered)."""
        pattern = Pattern(selector, self._topics.evicted_from_forgotten(selector.matches))
        for name, topic in self._topics.by_name.items():
            if selector.matches(name):
                pattern.topics[topic] = None
        return pattern

    def _may_be_idle(self, text: str, pattern: Pattern) -> None:
        if pattern.channels or pattern.granted:
            return
        self._idle[text] = None
        if len(self._idle) > IDLE_MAX:
            oldest = next(iter(self._idle))
            del self._idle[oldest], self._patterns[oldest]
