"""Templates: selectors that are templates, and grants. A template examines each topic once: the
live topics when a channel first names the template, and every later topic when it is made.

There may be a million topics, and a stream may bring a thousand new templates. So a new template
examines a bounded number of topics at a time; its channels wait until it has examined all.

The matches of a template are stored as numbers of topics. A new template examines the numbers in
ascending order; a topic that is made or forgotten in the meantime is examined at once.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

from fastsse.evicted import Step, Steps
from fastsse.hub.topic_set import TopicSet, united
from fastsse.hub.topics import Topic, Topics
from fastsse.selectors import Selector, compile_selector

__all__ = ["Templates", "WantedTopics"]

# Unused templates that are kept, because a template that is used again then need not examine all
# topics again. Each of them examines every new topic.
IDLE_MAX: Final = 64


class TemplateUser(Protocol):
    """The part of a channel that templates use."""

    @property
    def number(self) -> int: ...


NOBODY: Final[tuple[set[TemplateUser], set[TemplateUser]]] = (set(), set())


# Topics that a template has not examined yet: live ones by number, forgotten ones with the place up
# to which each may have lost events; and its place in both.
_Known = Sequence[Topic | None]
_Forgotten = Sequence[tuple[str, int]]


class TopicTemplate:
    """One distinct template, the live topics that it matches, and its channels.

    `gone` has the evictions of matching topics that are forgotten now.
    """

    __slots__ = (
        "_forgotten",
        "_looked",
        "_numbered",
        "channels",
        "gone",
        "granted",
        "left",
        "selector",
        "topics",
    )

    def __init__(
        self, selector: Selector, numbered: _Known, forgotten: _Forgotten, evicted_through: int
    ) -> None:
        self.selector = selector
        self.gone = Steps()
        self.gone.add(0, evicted_through)
        self.topics = TopicSet()
        self.channels: dict[TemplateUser, None] = {}
        self.granted: dict[TemplateUser, None] = {}
        #: Number of topics that it has not examined yet.
        self.left = len(numbered) + len(forgotten)
        self._looked = 0
        self._numbered = numbered
        self._forgotten = forgotten

    @property
    def is_ready(self) -> bool:
        """Whether it has examined all topics."""
        return self.left == 0

    def look(self, limit: int) -> None:
        """Examines some of the topics that are left."""
        matches = self.selector.matches
        numbered, forgotten = self._numbered, self._forgotten
        begin = self._looked
        self._looked = stop = begin + min(limit, self.left)
        self.left -= stop - begin
        last = len(forgotten)
        for name, place in forgotten[begin : min(stop, last)]:
            if place > self.gone.through and matches(name):
                self.gone.add(0, place)
        for number in range(max(0, begin - last), stop - last):
            topic = numbered[number]
            if topic is not None and matches(topic.name):
                self.topics.add(number)
        if not self.left:
            self._numbered = self._forgotten = ()

    def note_new(self, topic: Topic) -> bool:
        """A topic was made. Returns whether it matches. The template may examine it again later."""
        if not self.selector.matches(topic.name):
            return False
        self.topics.add(topic.number)
        return True

    def note_forgotten(self, topic: Topic) -> None:
        """A topic is forgotten; the template may not have examined it yet."""
        had = self.topics.discard(topic.number)
        if had or (self.left and self.selector.matches(topic.name)):
            self.gone.add(topic.evicted_at, topic.evicted_through)


class WantedTopics:
    """The topics of a channel with templates: those that it names, and those that match now.

    Arguments:
        numbered: the live topics by number.
    """

    __slots__ = ("_numbered", "named", "templates")

    def __init__(
        self, named: tuple[Topic, ...], templates: tuple[TopicTemplate, ...], numbered: _Known
    ) -> None:
        self.named = named
        self.templates = templates
        self._numbered = numbered

    def __contains__(self, topic: Topic) -> bool:
        if topic in self.named:
            return True
        number = topic.number
        return not topic.is_forgotten and any(
            number in pattern.topics for pattern in self.templates
        )

    def __iter__(self) -> Iterator[Topic]:
        """Each topic once."""
        numbered = self._numbered
        return (topic for number in self.numbers if (topic := numbered[number]) is not None)

    @property
    def numbers(self) -> list[int]:
        """The topics' numbers, each once. O(topics)."""
        sets = [pattern.topics for pattern in self.templates]
        return united(sets, [topic.number for topic in self.named])

    @property
    def size(self) -> int:
        """An upper bound on their number."""
        return len(self.named) + sum(pattern.topics.count for pattern in self.templates)

    @property
    def evicted_through(self) -> int:
        """The last place up to which one of them may have lost events. O(topics)."""
        known = max((topic.evicted_through for topic in self), default=0)
        return max(known, *(pattern.gone.through for pattern in self.templates))

    @property
    def evictions(self) -> Iterator[Step]:
        """Their evictions, in any order. O(topics)."""
        for topic in self:
            yield topic.evicted_at, topic.evicted_through
        for pattern in self.templates:
            yield from pattern.gone


class Templates:
    """All templates of a node's channels. Loop thread only.

    Arguments:
        topics: the live topics.
    """

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._templates: dict[str, TopicTemplate] = {}
        self._idle: dict[str, None] = {}
        # Grants of plain topics: their channels, even if the topic is not alive.
        self._granted: dict[str, dict[TemplateUser, None]] = {}
        #: Live topics by number; `look_at` adds new ones.
        self.numbered: list[Topic | None] = []
        self._forgotten: list[tuple[str, int]] | None = None  # A cache; None after a change.
        for topic in topics.by_name.values():
            self._number(topic)

    def __len__(self) -> int:
        return len(self._templates)

    def select(self, text: str, channel: TemplateUser) -> TopicTemplate:
        """A channel begins to use a template."""
        pattern = self._use(text)
        pattern.channels[channel] = None
        return pattern

    def unselect(self, text: str, channel: TemplateUser) -> None:
        """The channel is gone."""
        pattern = self._templates[text]
        del pattern.channels[channel]
        self._may_be_idle(text, pattern)

    def grant(self, texts: Iterable[str], channel: TemplateUser) -> list[TopicTemplate]:
        """Notes a channel's grants; returns those that are templates."""
        used = []
        for text in texts:
            if compile_selector(text).is_exact:
                self._granted.setdefault(text, {})[channel] = None
            else:
                used.append(self._use(text))
                used[-1].granted[channel] = None
        return used

    def covered(self, texts: Iterable[str]) -> list[int]:
        """The numbers of the live topics that a channel's grants cover."""
        by_name = self._topics.by_name
        named = [by_name[text].number for text in texts if text in by_name]
        sets = [self._templates[text].topics for text in texts if text in self._templates]
        return united(sets, named)

    def ungrant(self, texts: Iterable[str], channel: TemplateUser) -> None:
        """The channel is gone."""
        for text in texts:
            holders = self._granted.get(text)
            if holders is not None:
                holders.pop(channel, None)
                if not holders:
                    del self._granted[text]
            elif (pattern := self._templates.get(text)) is not None:
                pattern.granted.pop(channel, None)
                self._may_be_idle(text, pattern)

    def look_at(self, topic: Topic) -> tuple[set[TemplateUser], set[TemplateUser]]:
        """Examines a new topic. Returns the channels that select it by a template, and those with a
        grant for it. O(templates)."""
        self._forgotten = None
        self._number(topic)
        if not self._templates and not self._granted:
            return NOBODY
        linked: set[TemplateUser] = set()
        granted = set(self._granted.get(topic.name, ()))
        for pattern in self._templates.values():
            if pattern.note_new(topic):
                linked.update(pattern.channels)
                granted.update(pattern.granted)
        return linked, granted

    def forget(self, topic: Topic) -> None:
        """Forgets a topic, but not its evictions. O(templates)."""
        self._forgotten = None
        self.numbered[topic.number] = None
        for pattern in self._templates.values():
            pattern.note_forgotten(topic)

    def _number(self, topic: Topic) -> None:
        if topic.number >= len(self.numbered):
            self.numbered.extend([None] * (topic.number + 1 - len(self.numbered)))
        self.numbered[topic.number] = topic

    def _use(self, text: str) -> TopicTemplate:
        pattern = self._templates.get(text)
        if pattern is None:
            if self._forgotten is None:
                self._forgotten = self._topics.remembered()
            forgotten_through = self._topics.forgotten_through
            pattern = self._templates[text] = TopicTemplate(
                compile_selector(text), self.numbered, self._forgotten, forgotten_through
            )
        self._idle.pop(text, None)
        return pattern

    def _may_be_idle(self, text: str, pattern: TopicTemplate) -> None:
        if pattern.channels or pattern.granted:
            return
        self._idle[text] = None
        if len(self._idle) > IDLE_MAX:
            oldest = next(iter(self._idle))
            del self._idle[oldest], self._templates[oldest]
