"""Topics: names interned to numbers, each with its rule.

A topic is alive while an event of it is kept or a channel names it. A bounded map remembers the
evictions of forgotten topics. Of topics that no longer fit only `forgotten_through` is known, and a
reader that asks for older events receives a `fastsse.gap` event.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final

from fastsse._core import POLICY_DISCONNECT, POLICY_LATEST, POLICY_SKIP
from fastsse._hub import Bounds, Topic
from fastsse.config import HistoryOptions, LagPolicy, TopicLimits, TopicRule
from fastsse.errors import TypeNotAllowed
from fastsse.events import Event
from fastsse.reserved import SUBSCRIPTIONS_PATH
from fastsse.schemas import Schema

__all__ = ["TAIL_PREFIX", "Rule", "Rules", "Topic", "Topics"]

# Forgotten topics whose evictions are remembered, about 200 bytes each.
REMEMBERED_MAX = 100_000
# Rules whose figures are metrics.
COUNTED_MAX: Final = 100
POLICIES: dict[LagPolicy, int] = {
    "disconnect": POLICY_DISCONNECT,
    "skip": POLICY_SKIP,
    "latest": POLICY_LATEST,
}


_NO_BOUND: Final = 1 << 60
# The last part of a topic of subscriptions, before the digits of its UUID; and digits of none.
_SUBSCRIBER: Final = "urn%3Auuid%3A"
_ANY_SUBSCRIBER: Final = "00000000-0000-0000-0000-000000000000"
#: Prefix of the topics of tails (`hub/tails.py`). No template and no grant matches them.
TAIL_PREFIX: Final = "$tail:"


class Rule(Bounds):
    """The rule of a topic; shared by all topics that the same `[[topics]]` entry matches."""

    __slots__ = (
        "_apart",
        "_lag_policy",
        "_limits",
        "_unbounded",
        "is_private",
        "max_publish_rate",
        "schema",
    )

    def __init__(self, limits: TopicLimits, lag_policy: LagPolicy) -> None:
        policy = POLICIES[limits.lag_policy or lag_policy]
        age_ms = round(limits.age_s * 1000)
        super().__init__(limits.events, limits.bytes, age_ms, policy, limits.keep_last)
        self._limits = limits
        self._lag_policy = lag_policy
        self._unbounded: Rule | None = None
        self._apart: Rule | None = None
        self.max_publish_rate = limits.max_publish_rate
        self.schema = None if limits.schema is None else Schema(limits.schema)
        self.is_private = limits.private

    def unbounded(self) -> "Rule":
        """The same rule without evictions."""
        if self._unbounded is None:
            limits = self._limits._replace(
                events=_NO_BOUND, bytes=_NO_BOUND, age_s=-1, keep_last=_NO_BOUND
            )
            self._unbounded = Rule(limits, self._lag_policy)
            self._unbounded.schema = self.schema
        return self._unbounded

    def apart(self) -> "Rule":
        """The same rule, for topics of private events of the server."""
        if self._apart is None:
            self._apart = Rule(self._limits, self._lag_policy)
            self._apart.is_apart = True
        return self._apart

    @property
    def counted(self) -> tuple[int, int, int]:
        """Events and bytes that were kept under topics of this rule, and events that were evicted,
        those of durable streams too."""
        rules = [one for one in (self, self._unbounded, self._apart) if one is not None]
        return (
            sum(rule.kept_events for rule in rules),
            sum(rule.kept_bytes for rule in rules),
            sum(rule.evicted_events for rule in rules),
        )

    def allows(self, event: bytes | None) -> bool:
        """Whether events of this type may be published."""
        return self._limits.allows_event_type(event.decode() if event else None)


class Rules:
    """Finds the rule of a topic: the first whose glob matches, else the options.

    Arguments:
        options: the history limits and the `[[topics]]` entries.
        lag_policy: that of rules without one.
    """

    def __init__(self, options: HistoryOptions, lag_policy: LagPolicy) -> None:
        self._lag_policy = lag_policy
        self._rules: dict[TopicRule | None, Rule] = {}
        self.apply(options)

    def apply(self, options: HistoryOptions) -> None:
        """Has other entries from now on. Topics that are alive keep their rule until they are given
        another one: see `History.apply_rules`. Entries that stay keep what they have counted."""
        self._options = options
        self._rules = {
            entry: rule
            for entry, rule in self._rules.items()
            if entry is None or entry in options.topic_rules
        }
        ages_s = [options.history_age, *(rule.history_age for rule in options.topic_rules)]
        self.ages_ms = sorted({round(age_s * 1000) for age_s in ages_s if age_s is not None})
        self.limit_publishes = any(rule.max_publish_rate for rule in options.topics)
        #: Whether any rule restricts what may be published.
        self.restricts = any(
            rule.types is not None or rule.event_types is not None or rule.data_schema is not None
            for rule in options.topics
        )
        #: Whether any rule makes events private.
        self.hides = any(rule.private for rule in options.topics)
        for entry in options.topics:
            if entry.data_schema is not None and entry not in self._rules:
                # Compiled now, so that the first publish is not slow.
                self._rules[entry] = self._made(entry)

    def rule(self, topic: str) -> Rule:
        """The rule for a topic. O(entries)."""
        entry = self._options.rule(topic)
        rule = self._rules.get(entry)
        if rule is None:
            rule = self._rules[entry] = self._made(entry)
        return rule.apart() if topic.startswith(SUBSCRIPTIONS_PATH) else rule

    def counters(self) -> dict[str, int]:
        """What was kept and evicted by the first rules, each under its glob; what matches none is
        under `default`."""
        counted: Counter[str] = Counter()
        entries = [None, *self._options.topics[:COUNTED_MAX]] if self._options.topics else []
        for entry in entries:
            rule, name = self._rules.get(entry), "default" if entry is None else entry.match
            events, size_bytes, evicted = (0, 0, 0) if rule is None else rule.counted
            counted[f"topic_rule_events_{name}"] += events
            counted[f"topic_rule_bytes_{name}"] += size_bytes
            counted[f"topic_rule_evicted_{name}"] += evicted
        return counted

    def _made(self, entry: TopicRule | None) -> Rule:
        return Rule(self._options.limits_of(entry), self._lag_policy)


class Topics:
    """All live topics.

    Arguments:
        rules: finds the rule of each new topic.
        start: nothing is known of any topic up to this place.

    Attributes:
        by_name: the topics.
        forgotten_through: nothing is known of forgotten topics up to this place.
        on_new: called with each new topic before anything uses it, so that templates examine it.
    """

    def __init__(self, rules: Rules, start: int) -> None:
        self.rules = rules
        self.by_name: dict[str, Topic] = {}
        self.forgotten_through = start
        self.on_new: Callable[[Topic], None] | None = None
        self._remembered: dict[str, int] = {}
        self._idle: dict[Topic, None] = {}
        self._free_numbers: list[int] = []

    def __len__(self) -> int:
        return len(self.by_name)

    def intern(self, name: str) -> Topic:
        """The topic of a valid name; it is made if it is not alive."""
        topic = self.by_name.get(name)
        return self._add(name) if topic is None else topic

    def rule(self, name: str) -> Rule:
        """The rule of a topic, alive or not."""
        topic = self.by_name.get(name)
        return self.rules.rule(name) if topic is None else topic.rule

    def check(self, event: Event) -> None:
        """Raises TypeNotAllowed or SchemaMismatch if the rule of a topic does not allow the event.
        O(topics + bytes), and O(rules) for each topic that is not alive."""
        for topic in event.topics:
            rule = self.rule(topic)
            if not rule.allows(event.event):
                raise TypeNotAllowed(topic)
            if rule.schema is not None:
                rule.schema.check(event.data, topic)

    def takes_any_data(self, event: Event) -> bool:
        """Whether the rules of its topics allow its type and have no schema."""
        rules = map(self.rule, event.topics)
        return all(rule.schema is None and rule.allows(event.event) for rule in rules)

    def hidden(self, event: Event) -> Event:
        """The event, made private if the rule of one of its topics says so."""
        if event.private or not any(self.rule(topic).is_private for topic in event.topics):
            return event
        return event.as_private()

    def may_be_idle(self, topic: Topic) -> None:
        """The next `forget_idle` examines this topic, which lost its log or its last channel."""
        self._idle[topic] = None

    def forget_idle(self, limit: int) -> list[Topic]:
        """Forgets topics that are no longer needed; examines at most `limit`.

        Returns the forgotten topics. New topics may get their numbers from now on.
        """
        looked_at = [self._idle.popitem()[0] for _ in range(min(limit, len(self._idle)))]
        idle = [topic for topic in looked_at if topic.log is None and not topic.named]
        for topic in idle:
            self._forget(topic)
        return idle

    def remembered(self) -> list[tuple[str, int]]:
        """Remembered forgotten topics, each with the place up to which it may have lost events. Of
        other topics only `forgotten_through` is known."""
        return list(self._remembered.items())

    def evicted(self) -> dict[str, int]:
        """The evictions of live and remembered topics after `forgotten_through`. O(topics)."""
        known = {name: topic.evicted_through for name, topic in self.by_name.items()}
        return known | self._remembered

    def remember(self, name: str, evicted_through: int) -> None:
        """Notes the evictions of a topic that is not alive."""
        key = _remembered_as(name)
        if evicted_through > max(self.forgotten_through, self._remembered.get(key, 0)):
            self._remembered[key] = evicted_through
        if len(self._remembered) > REMEMBERED_MAX:
            oldest = next(iter(self._remembered))
            self.forgotten_through = max(self.forgotten_through, self._remembered.pop(oldest))

    @property
    def idle_count(self) -> int:
        """Number of topics that `forget_idle` has not examined yet."""
        return len(self._idle)

    def _add(self, name: str) -> Topic:
        # Number 0 means every event, so topics begin at 1.
        number = self._free_numbers.pop() if self._free_numbers else len(self.by_name) + 1
        key = _remembered_as(name)
        known = self._remembered.get(key, 0) if key is not name else self._remembered.pop(name, 0)
        evicted_through = max(known, self.forgotten_through)
        topic = Topic(name, number, self.rules.rule(name), evicted_through)
        self.by_name[name] = topic
        if self.on_new is not None and not name.startswith(TAIL_PREFIX):
            self.on_new(topic)
        return topic

    def _forget(self, topic: Topic) -> None:
        del self.by_name[topic.name]
        topic.is_forgotten = True
        self._free_numbers.append(topic.number)
        self.remember(topic.name, topic.evicted_through)


def _remembered_as(name: str) -> str:
    """The name under which the evictions of a forgotten topic are remembered: its own. Topics of
    subscriptions share one for all subscribers of a topic, which templates match as they match each
    of them. Otherwise presence would fill what is remembered."""
    if not name.startswith(SUBSCRIPTIONS_PATH):
        return name
    begin, subscriber, _ = name.rpartition(_SUBSCRIBER)
    return begin + subscriber + _ANY_SUBSCRIBER if subscriber else name
