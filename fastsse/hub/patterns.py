"""Patterns: selectors that are templates, and grants. Both look at each topic once: at those that
are alive when the first channel names them, and at every later one when it comes to life.

There may be a million topics, and a stream may bring a thousand new templates. So a new one looks
at a bounded number at a time; until it has seen all, its channels wait.
"""

from collections import deque
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


NOBODY: Final[tuple[set[Holder], set[Holder]]] = (set(), set())


class Pattern:
    """One distinct template, the live topics that it matches, and who uses it.

    `evicted_through` is the last place of which topics that it matched and that are forgotten
    now may have lost events.
    """

    __slots__ = (
        "_looked",
        "_sight",
        "channels",
        "evicted_through",
        "granted",
        "selector",
        "topics",
    )

    def __init__(self, selector: Selector, sight: "_Sight", evicted_through: int) -> None:
        self.selector = selector
        self.evicted_through = evicted_through
        self.topics: dict[Topic, None] = {}
        self.channels: dict[Holder, None] = {}
        self.granted: dict[Holder, None] = {}
        # What it has still to look at. A topic that comes to life later is not in it.
        self._sight: _Sight | None = sight if len(sight) else None
        self._looked = 0

    @property
    def is_ready(self) -> bool:
        """Whether it has looked at all topics."""
        return self._sight is None

    def look(self, limit: int) -> int:
        """Looks at some of the topics that it has not seen; returns at how many."""
        sight, matches = self._sight, self.selector.matches
        if sight is None:
            return 0
        begin = self._looked
        self._looked = stop = min(begin + limit, len(sight))
        for topic in sight.alive[begin:stop]:
            if not matches(topic.name):
                continue
            if topic.is_forgotten:
                self.evicted_through = max(self.evicted_through, topic.evicted_through)
            else:
                self.topics[topic] = None
                topic.channels += len(self.channels)
        alive = len(sight.alive)
        for name, place in sight.forgotten[max(0, begin - alive) : max(0, stop - alive)]:
            if place > self.evicted_through and matches(name):
                self.evicted_through = place
        if stop == len(sight):
            self._sight = None
        return stop - begin


class _Sight:
    """The topics that there are at a moment, for all patterns that are made in it: `alive` ones,
    and forgotten ones with the place through which each may have lost events."""

    __slots__ = ("alive", "forgotten")

    def __init__(self, topics: Topics) -> None:
        self.alive = list(topics.by_name.values())
        self.forgotten = topics.remembered()

    def __len__(self) -> int:
        return len(self.alive) + len(self.forgotten)


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
        # Those that have still to look at topics, in turn.
        self._looking: deque[Pattern] = deque()
        self._sight: _Sight | None = None  # While it is right.

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

    def grant(self, texts: Iterable[str], channel: Holder) -> list[Pattern]:
        """Notes a channel's grants; gives those that are patterns."""
        used = []
        for text in texts:
            if compile_selector(text).is_exact:
                self._granted.setdefault(text, {})[channel] = None
            else:
                used.append(self._use(text))
                used[-1].granted[channel] = None
        return used

    def covered(self, texts: Iterable[str]) -> set[Topic]:
        """The live topics that a channel's grants cover."""
        covered: set[Topic] = set()
        for text in texts:
            topic = self._topics.by_name.get(text)
            if topic is not None:
                covered.add(topic)
            if text in self._patterns:
                covered.update(self._patterns[text].topics)
        return covered

    def look(self, limit: int) -> bool:
        """Has new patterns look at topics, at most about `limit`; True: there is more to do."""
        while self._looking and limit > 0:
            limit -= self._looking[0].look(limit)
            if self._looking[0].is_ready:
                self._looking.popleft()
        return bool(self._looking)

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
        self._sight = None
        if not self._patterns and not self._granted:
            return NOBODY
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
        self._sight = None
        for pattern in self._patterns.values():
            if pattern.topics.pop(topic, topic) is None:
                pattern.evicted_through = max(pattern.evicted_through, topic.evicted_through)

    def _use(self, text: str) -> Pattern:
        pattern = self._patterns.get(text)
        if pattern is None:
            if self._sight is None:
                self._sight = _Sight(self._topics)
            pattern = Pattern(compile_selector(text), self._sight, self._topics.forgotten_through)
            self._patterns[text] = pattern
            if not pattern.is_ready:
                self._looking.append(pattern)
        self._idle.pop(text, None)
        return pattern

    def _may_be_idle(self, text: str, pattern: Pattern) -> None:
        if pattern.channels or pattern.granted:
            return
        self._idle[text] = None
        if len(self._idle) > IDLE_MAX:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            pattern = self._patterns.pop(oldest)
            if not pattern.is_ready:
                self._looking.remove(pattern)
