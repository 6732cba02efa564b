"""Alerts: an event is published when more than a given number of events match within a window.

Matches are counted in the process that orders events, so once a node and in the order of the log.
Nodes that share a log count the same events. Their alerts have the same producer and number, so the
log accepts only one. The window is measured by the positions of the events, not by a clock.
"""

import asyncio
import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from fastsse.config.eventrules import EventRule
from fastsse.config.rules import DEFAULT_EVENT_TYPE
from fastsse.directives import Directives, Producer, producer_key
from fastsse.entries import Entry
from fastsse.errors import FastsseError, Unavailable
from fastsse.events import DATA_JSON, Event
from fastsse.handlers import HandledEvent, event_of
from fastsse.positions import format_position
from fastsse.reserved import check_not_reserved
from fastsse.rules.channels import RuleLog
from fastsse.rules.matching import Matcher, Seen
from fastsse.sources.topic_templates import PlaceholderText

__all__ = ["Alerts"]

# A window is counted in this many parts, so a match leaves it up to a sixtieth late.
PARTS: Final = 60
# The most groups of a rule. Above it the least recently used one is dropped.
GROUPS_MAX: Final = 10_000
# The most alerts that wait while the log refuses events.
WAITING_MAX: Final = 1_000
AGAIN_S: Final = 1.0
GROUP_CHARACTERS_MAX: Final = 256

Publish = Callable[[Sequence[Event], Callable[[Any], None]], None]


class _Group:
    """The number of matches of a group in each part of the window."""

    __slots__ = ("parts", "quiet_until_ms", "total")

    def __init__(self) -> None:
        self.parts: deque[list[int]] = deque()
        self.total = 0
        self.quiet_until_ms = 0

    def count(self, part: int) -> int:
        """Counts a match in the present part. Returns the number in the window."""
        while self.parts and self.parts[0][0] <= part - PARTS:
            self.total -= self.parts.popleft()[1]
        if self.parts and self.parts[-1][0] >= part:
            self.parts[-1][1] += 1
        else:
            self.parts.append([part, 1])
        self.total += 1
        return self.total


class _Alert:
    """A rule with its groups."""

    def __init__(self, rule: EventRule) -> None:
        assert rule.publish is not None
        assert rule.count is not None
        self.rule: Final = rule
        self.most: Final = rule.count
        self.matcher: Final = Matcher(rule)
        self.by: Final = None if rule.by is None else PlaceholderText(rule.by)
        self.publish: Final = PlaceholderText(rule.publish)
        self.window_ms: Final = round(rule.within * 1000)
        self.groups: OrderedDict[str, _Group] = OrderedDict()

    def group(self, name: str) -> _Group:
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = _Group()
            if len(self.groups) > GROUPS_MAX:
                self.groups.popitem(last=False)
        else:
            self.groups.move_to_end(name)
        return group


class Alerts:
    """Counts committed events, and publishes alerts. Loop thread only.

    Arguments:
        rules: of the configuration; only alerts are looked at.
        publish: appends to the log.
    """

    def __init__(self, rules: Sequence[EventRule], publish: Publish) -> None:
        mine = [rule for rule in rules if rule.action == "alert"]
        self._alerts = [_Alert(rule) for rule in mine]
        self._by_name = {alert.rule.name: alert for alert in self._alerts}
        self._log: Final = RuleLog(mine)
        self._publish: Final = publish
        self._waiting: deque[tuple[EventRule, Event]] = deque()
        self._sending: asyncio.Handle | None = None

    def __bool__(self) -> bool:
        return bool(self._alerts)

    def counters(self) -> dict[str, int]:
        """Under the names of the metrics."""
        return self._log.counters()

    def on_entries(self, entries: Sequence[Entry]) -> None:
        """Called with committed entries, in order. O(entries x rules)."""
        for entry in entries:
            extras = entry.extras
            if extras is not None and extras.control is not None:
                continue
            self._look_at(entry)

    def close(self) -> None:
        """Publishes no more alerts."""
        if self._sending is not None:
            self._sending.cancel()
        self._waiting.clear()

    def _look_at(self, entry: Entry) -> None:
        event = event_of(entry)
        meta = None if entry.extras is None else entry.extras.meta
        name = event.meta.get("rule")
        if isinstance(name, str) and name in self._by_name:
            # An alert, of this node or of another one; it is never counted.
            self._is_fired(self._by_name[name], event)
            return
        kind = None if event.event == DEFAULT_EVENT_TYPE else event.event.encode()
        seen = Seen(entry.topics, kind, meta, lambda: event.data.encode(), entry.frame.data_kind)
        for alert in self._alerts:
            if alert.matcher.matches(seen):
                self._count(alert, seen, entry, event.time_ms)

    def _count(self, alert: _Alert, seen: Seen, entry: Entry, time_ms: int) -> None:
        rule = alert.rule
        try:
            name = "" if alert.by is None else seen.fill(alert.by)
            group = alert.group(name)
            count = group.count(time_ms * PARTS // alert.window_ms)
            self._log.matched(rule)
            if count <= alert.most or time_ms < group.quiet_until_ms:
                return
            group.quiet_until_ms = time_ms + alert.window_ms
            if self._log.may_act(rule, entry.topics[0]):
                self._send(rule, _event_of(alert, name, count, seen, entry, time_ms))
        except (ValueError, FastsseError) as error:
            self._log.failed(rule, str(error))

    def _is_fired(self, alert: _Alert, event: HandledEvent) -> None:
        """Another node published the alert, so this one does not."""
        group = alert.groups.get(str(event.meta.get("group", "")))
        if group is not None:
            until_ms = event.time_ms + alert.window_ms
            group.quiet_until_ms = max(group.quiet_until_ms, until_ms)

    def apply(self, rules: Sequence[EventRule]) -> None:
        """Replaces the rules. Unchanged ones keep their counts."""
        known = {alert.rule: alert for alert in self._alerts}
        mine = [rule for rule in rules if rule.action == "alert"]
        self._alerts = [known.get(rule) or _Alert(rule) for rule in mine]
        self._by_name = {alert.rule.name: alert for alert in self._alerts}
        self._log.add(mine)

    def _send(self, rule: EventRule, event: Event) -> None:
        """Publishes later, because this may be within the delivery of a batch."""
        if len(self._waiting) >= WAITING_MAX:
            self._log.failed(rule, "too many alerts wait for the log")
            return
        self._waiting.append((rule, event))
        if self._sending is None:
            self._sending = asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        rule, event = self._waiting[0]

        def done(outcome: object) -> None:
            if not self._waiting:
                return
            loop = asyncio.get_running_loop()
            if isinstance(outcome, Unavailable):
                self._sending = loop.call_later(AGAIN_S, self._flush)
                return
            self._waiting.popleft()
            if isinstance(outcome, FastsseError):
                self._log.failed(rule, str(outcome))
            else:
                self._log.acted(rule)
            self._sending = loop.call_soon(self._flush) if self._waiting else None

        self._publish([event], done)


def _event_of(
    alert: _Alert, name: str, count: int, seen: Seen, entry: Entry, time_ms: int
) -> Event:
    """The alert of a group. Raises ValueError, FastsseError."""
    rule = alert.rule
    data = {
        "rule": rule.name,
        "group": name,
        "count": count,
        "within_s": rule.within,
        "topic": entry.topics[0],
        "position": format_position(entry.position).decode(),
    }
    number = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=16).digest()
    event = Event(
        seen.fill(alert.publish),
        orjson.dumps(data),
        rule.event or "alert",
        private=rule.private,
        meta={"rule": rule.name, "group": name[:GROUP_CHARACTERS_MAX]},
        data_kind=DATA_JSON,
    )
    check_not_reserved(event.topics)
    event.direct(
        Directives(producer=Producer(producer_key(f"rules/{rule.name}", number), 0, time_ms))
    )
    return event
