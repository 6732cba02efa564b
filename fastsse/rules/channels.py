"""Rules that intercept: an event is dropped, moved or copied before it is ordered.

They run as the last interceptor. If a rule fails, the failure is counted and the event passes
unchanged.
"""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from fastsse.config.eventrules import EventRule
from fastsse.errors import FastsseError
from fastsse.events import Event
from fastsse.log import get_logger
from fastsse.redis.health import SkipLog
from fastsse.reserved import check_not_reserved
from fastsse.rules.matching import Matcher, Seen
from fastsse.sources.topic_templates import PlaceholderText

__all__ = ["EventRules", "RuleLog"]

log = get_logger("rules")


class RuleLog:
    """The counters of rules and their log lines, a bounded number of them. Loop thread only.

    Arguments:
        rules: whose counters are there from the start.
    """

    def __init__(self, rules: Sequence[EventRule]) -> None:
        self._counts: Final[Counter[str]] = Counter()
        self._lines: Final = SkipLog()
        self.add(rules)

    def counters(self) -> dict[str, int]:
        """Under the names of the metrics."""
        return dict(self._counts)

    def add(self, rules: Sequence[EventRule]) -> None:
        """Adds the counters of more rules."""
        for rule in rules:
            for what in ("matched", "acted", "failed"):
                self._counts.setdefault(f"rule_{what}_{rule.name}", 0)

    def matched(self, rule: EventRule) -> None:
        """Counts a match."""
        self._counts[f"rule_matched_{rule.name}"] += 1

    def may_act(self, rule: EventRule, topic: str) -> bool:
        """Whether a rule acts. A rule with `dry_run` only logs what it would do."""
        if rule.dry_run:
            unlogged = self._lines.take(time.monotonic())
            if unlogged is not None:
                log.info(
                    "A rule in a dry run would act.",
                    rule=rule.name,
                    action=rule.action,
                    topic=topic,
                    unlogged_before=unlogged,
                )
        return not rule.dry_run

    def acted(self, rule: EventRule) -> None:
        """Counts what a rule did."""
        self._counts[f"rule_acted_{rule.name}"] += 1

    def failed(self, rule: EventRule, why: str) -> None:
        """Counts and logs that a rule could not act."""
        self._counts[f"rule_failed_{rule.name}"] += 1
        unlogged = self._lines.take(time.monotonic())
        if unlogged is not None:
            log.warning("A rule failed.", rule=rule.name, why=why, unlogged_before=unlogged)


class _Channel:
    """A rule with its compiled condition."""

    def __init__(self, rule: EventRule) -> None:
        self.rule: Final = rule
        self.matcher: Final = Matcher(rule)
        self.publish: Final = None if rule.publish is None else PlaceholderText(rule.publish)


class EventRules:
    """The rules that intercept. Loop thread only.

    Arguments:
        rules: of the configuration; alerts are passed over.
    """

    def __init__(self, rules: Sequence[EventRule]) -> None:
        mine = [rule for rule in rules if rule.action != "alert"]
        self._channels = [_Channel(rule) for rule in mine]
        self._log: Final = RuleLog(mine)

    def __bool__(self) -> bool:
        return bool(self._channels)

    def counters(self) -> dict[str, int]:
        """Under the names of the metrics."""
        return self._log.counters()

    def apply(self, rules: Sequence[EventRule]) -> None:
        """Replaces the rules."""
        mine = [rule for rule in rules if rule.action != "alert"]
        self._channels = [_Channel(rule) for rule in mine]
        self._log.add(mine)

    def intercept(self, event: Event) -> Event | list[Event] | None:
        """Applies the rules to an event in their order, up to the first that drops or moves it.
        Raises nothing."""
        seen = Seen(event.topics, event.event, event.meta, lambda: event.data, event.data_kind)
        copies: list[Event] = []
        kept: Event | None = event
        for channel in self._channels:
            rule = channel.rule
            if not channel.matcher.matches(seen):
                continue
            self._log.matched(rule)
            if not self._log.may_act(rule, event.topics[0]):
                continue
            made = self._made(channel, seen, event)
            if isinstance(made, str):
                self._log.failed(rule, made)
                continue
            self._log.acted(rule)
            if made is not None and rule.action == "copy":
                copies.append(made)
                continue
            kept = made
            break
        if kept is None:
            return copies or None
        return [kept, *copies] if copies else kept

    def _made(self, channel: _Channel, seen: Seen, event: Event) -> Event | str | None:
        """The event at its other topic, None for a dropped one, or why there is none."""
        if channel.publish is None:
            return None
        rule = channel.rule
        try:
            topic = seen.fill(channel.publish)
            check_not_reserved((topic,))
            if rule.action == "move":
                return event.replace(topics=topic)
            private = True if rule.private else None
            return event.replace(topics=topic, event=rule.event, private=private)
        except (ValueError, FastsseError) as error:
            return str(error)
