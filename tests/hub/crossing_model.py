"""What streams must receive, whatever happens to events and streams: the model of
`test_crossings.py`. It predicts nothing that depends on timing, and holds what came against what
may be left out."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from fastsse.auth.rights import Rights
from fastsse.config import HistoryOptions
from fastsse.config.rules import TopicRule
from fastsse.positions import parse_id
from fastsse.subscriptions import View
from tests.eventstream import Message
from tests.hub.onenode import Client

#: Every reader selects it: an event of it that has come says that all before it have.
SYNC: Final = "sync"
# How many events topics keep. A reader that is slow there is cut, except with a policy.
KEPT: Final = {"few/1": 3, "few/2": 3, "some/1": 6, "all/1": 10_000, "all/2": 10_000}
SKIP, LATEST = "skip/1", "latest/1"
#: Topics that end.
RUNS: Final = ("run/1", "run/2", "run/3")
TOPICS: Final = (*KEPT, SKIP, LATEST, *RUNS)
TTL_MS: Final = 3_600_000
SPAN_MS: Final = 60_000
VIEWS: Final = (
    None,
    None,
    View(filter="data.even"),
    View(types=(b"x", b"done")),
    View(envelope=True),
    View(notices=True),
    View(filter="data.even", notices=True, envelope=True),
    View(until=(b"done",)),
    View(interval_ms=SPAN_MS),
    View(interval_ms=SPAN_MS, filter="data.even", envelope=True),
)


def history() -> HistoryOptions:
    """Small histories for some topics, a policy for others."""
    rules = [TopicRule(match=name, history_events=count) for name, count in KEPT.items()]
    rules += [
        TopicRule(match=SKIP, history_events=10_000, lag_policy="skip"),
        TopicRule(match=LATEST, history_events=10_000, lag_policy="latest"),
        TopicRule(match=SYNC, history_events=10_000, lag_policy="latest"),
    ]
    return HistoryOptions(topics=tuple(rules), history_age=3650 * 24 * 3600)


@dataclass
class Sent:
    """An event. `deleted_at` and `ended_at` count what was done before."""

    position: int
    topics: tuple[str, ...]
    number: int
    type: str
    is_even: bool
    is_private: bool
    expires_ms: int | None
    deleted_at: int | None = None


@dataclass
class Opened:
    """One connection of a reader, and the state of everything when it was opened.

    Attributes:
        after: it asks for what follows this place.
        last: it asked for so many of the newest.
        at: the number of things done before.
        snapshot: the numbers of the events that a snapshot must have; None: it may have none.
    """

    client: Client
    after: int
    last: int
    at: int
    now_ms: int
    snapshot: list[int] | None


@dataclass
class Reader:
    """A client over all of its connections."""

    topics: tuple[str, ...]
    view: View
    rights: Rights | None
    is_slow: bool
    last_each: int = 0
    opened: Opened | None = None
    is_paused: bool = False
    place: str = ""

    def selects(self, event: Sent) -> bool:
        """Whether it is of the reader's topics."""
        return bool(set(self.topics) & set(event.topics))

    def may_read(self, event: Sent) -> bool:
        """Whether the reader has the right."""
        return not event.is_private or self.rights is not None

    def passes(self, event: Sent) -> bool:
        """Whether the view leaves it in, rates aside."""
        view = self.view
        if view.types and event.type.encode() not in view.types:
            return False
        return view.filter is None or event.is_even

    def wants(self, event: Sent) -> bool:
        """Whether it belongs to the stream."""
        return self.selects(event) and self.may_read(event) and self.passes(event)


@dataclass
class Log:
    """All that was published, and what was done to it."""

    events: list[Sent] = field(default_factory=list)
    by_own_id: dict[str, Sent] = field(default_factory=dict)
    notices: dict[int, tuple[tuple[str, ...], bool, str]] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    done: int = 0
    now_ms: int = 0

    def place(self, event_id: str) -> int:
        """The position that an id stands for."""
        if event_id in self.by_own_id:
            return self.by_own_id[event_id].position
        return parse_id(event_id.encode()) or 0

    def kept(self, topic: str) -> list[Sent]:
        """What a topic's history has at least, oldest first. The control entries of deletions
        count, too."""
        entries = [(one.position, one) for one in self.events if topic in one.topics]
        entries += [(at, None) for at, (names, *_) in self.notices.items() if topic in names]
        newest = sorted(entries, key=lambda one: one[0])[-KEPT.get(topic, 10_000) :]
        return [one for _, one in newest if one is not None]

    def is_evicted(self, event: Sent, topics: Sequence[str]) -> bool:
        """Whether one of these topics may have evicted it."""
        mine = set(event.topics) & set(topics)
        return any(event not in self.kept(topic) for topic in mine)

    def is_over(self, reader: Reader) -> bool:
        """Whether all topics of a reader have ended."""
        return set(reader.topics) <= set(self.ends)

    def newest_for(self, reader: Reader) -> int:
        """The newest place that a reader must have reached."""
        if self.is_over(reader):
            return max(self.ends[name] for name in reader.topics)
        kept = [one for one in self.events if one.deleted_at is None and not self.is_expired(one)]
        return max((one.position for one in kept if reader.wants(one)), default=0)

    def snapshot(self, reader: Reader) -> list[int]:
        """What a snapshot for a reader has now."""
        found = set()
        for topic in reader.topics:
            shown = [
                one.number
                for one in self.kept(topic)
                if one.deleted_at is None and not self.is_expired(one) and reader.may_read(one)
            ]
            found.update(shown[-reader.last_each :])
        return sorted(number for number in found if reader.passes(self.events[number]))

    def is_expired(self, event: Sent, now_ms: int | None = None) -> bool:
        """Whether its time to live is over."""
        now_ms = self.now_ms if now_ms is None else now_ms
        return event.expires_ms is not None and now_ms >= event.expires_ms


class Check:
    """Holds what one connection received against the log. `through`: all up to this place is due.
    Raises AssertionError."""

    def __init__(self, log: Log, reader: Reader, through: int) -> None:
        assert reader.opened is not None
        self.log, self.reader, self.opened = log, reader, reader.opened
        self.through = through
        self.received: list[Sent] = []
        self.gaps: list[tuple[int, int]] = []  # The place before it, events received before it.
        self.notices: set[int] = set()
        self.last = self.opened.after

    def run(self) -> None:
        """All of it."""
        self._take(self._without_snapshot(list(self.opened.client.stream.events)))
        if self.opened.last and self.received:
            self.opened.after = min(self.opened.after, self.received[0].position - 1)
        missing = [one for one in self._wanted() if one not in self.received]
        for one in missing:
            assert self._is_excused(one) or self._is_told(one), f"{one} is missing without a gap"
        for place, _ in self.gaps:
            # What one topic has evicted counts as evicted, also if another one has it still.
            assert any(
                one.position > place and (one in missing or self._may_be_lost(one))
                for one in self.log.events
                if self.reader.selects(one)
            ), f"a gap behind {place} without a loss"
        self._check_notices()

    def _wanted(self) -> list[Sent]:
        return [
            one
            for one in self.log.events
            if self.opened.after < one.position <= self.through and self.reader.wants(one)
        ]

    def _without_snapshot(self, messages: list[Message]) -> list[Message]:
        types = [message.type for message in messages]
        if "fastsse.snapshot" not in types:
            return messages
        at = types.index("fastsse.snapshot")
        first = at
        while first and types[first - 1] not in ("fastsse.gap", "fastsse.deleted"):
            first -= 1
        shown = [self._event_of(message).number for message in messages[first:at]]
        assert shown == sorted(set(shown)), "a snapshot is in order"
        assert self.opened.snapshot is not None, "no snapshot was asked for"
        if self.reader.view.interval_ms:
            assert set(shown) <= set(self.opened.snapshot)
        elif not self._ends_at(self.opened.snapshot):
            assert shown == self.opened.snapshot
        self.opened.after = self.last = self.log.place(messages[at].last_event_id)
        return messages[at + 1 :]

    def _ends_at(self, numbers: list[int]) -> bool:
        types = {self.log.events[number].type.encode() for number in numbers}
        return bool(types & set(self.reader.view.until))

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            if message.type == "fastsse.gap":
                self.gaps.append((self.last, len(self.received)))
                self.last = max(self.last, self.log.place(json.loads(message.data)["from"]))
            elif message.type == "fastsse.deleted":
                self._take_notice(message)
            elif message.type == "fastsse.end":
                assert self.log.is_over(self.reader)
                assert message is messages[-1]
                self.last = self.log.place(message.last_event_id)
                assert self.last == max(self.log.ends[name] for name in self.reader.topics)
                self.through = max(self.through, self.last)
            elif message.data:
                self._take_event(self._event_of(message))

    def _event_of(self, message: Message) -> Sent:
        body = json.loads(message.data)
        event = self.log.events[(body["data"] if self.reader.view.envelope else body)["n"]]
        assert message.type == event.type
        assert self.log.place(message.last_event_id) == event.position
        if self.reader.view.envelope:
            shown = [body["topic"]] if isinstance(body["topic"], str) else body["topic"]
            is_all = not event.is_private
            assert set(shown) == set(event.topics) & (
                set(event.topics) if is_all else set(self.reader.topics)
            )
        return event

    def _take_event(self, event: Sent) -> None:
        at = self.opened.at
        assert event.position > self.last or self.opened.last, f"{event} came late or again"
        assert self.reader.wants(event), f"{event} is not of this stream"
        assert event.deleted_at is None or event.deleted_at > at, f"{event} was deleted"
        assert not self.log.is_expired(event, self.opened.now_ms), f"{event} had expired"
        assert not self.received or not self._is_last(self.received[-1]), "it was over"
        self.received.append(event)
        self.last = event.position

    def _is_last(self, event: Sent) -> bool:
        return event.type.encode() in self.reader.view.until

    def _take_notice(self, message: Message) -> None:
        place = self.log.place(message.last_event_id)
        assert place > self.last
        topics, is_private, text = self.log.notices[place]
        body = json.loads(message.data)
        assert self.reader.view.notices
        assert set(topics) & set(self.reader.topics)
        assert not is_private or self.reader.rights is not None
        assert text == f"{body['op']} {body.get('id') or body['through']}"
        self.notices.add(place)
        self.last = place

    def _check_notices(self) -> None:
        for place, (topics, is_private, text) in self.log.notices.items():
            if not (self.opened.after < place <= self.through and self.reader.view.notices):
                continue
            if not set(topics) & set(self.reader.topics):
                continue
            if is_private and self.reader.rights is None:
                continue
            assert place in self.notices or self.gaps or self.reader.is_slow, f"no notice: {text}"

    def _is_excused(self, event: Sent) -> bool:
        """Whether it may be missing without a gap."""
        if event.deleted_at is not None or self.log.is_expired(event):
            return True
        newest = self.received[-1] if self.received else None
        if newest is not None and self._is_last(newest) and event.position > newest.position:
            return True
        later = [one for one in self.received if one.position > event.position]
        if self.reader.view.interval_ms and len(event.topics) == 1:
            alike = [one for one in later if (one.topics, one.type) == (event.topics, event.type)]
            if alike:
                return True
        return self._is_superseded(event, later)

    def _is_superseded(self, event: Sent, later: list[Sent]) -> bool:
        """Whether it is of `latest` topics alone, and a slow stream has got newer ones of all."""
        mine = set(event.topics) & set(self.reader.topics)
        newer = {topic for one in later for topic in one.topics}
        return self.reader.is_slow and mine <= {LATEST, SYNC} and mine <= newer

    def _is_told(self, event: Sent) -> bool:
        """Whether a gap came before anything behind it."""
        first = next(
            (at for at, one in enumerate(self.received) if one.position > event.position),
            len(self.received),
        )
        return any(place < event.position and at <= first for place, at in self.gaps)

    def _may_be_lost(self, event: Sent) -> bool:
        return self.reader.is_slow or self.log.is_evicted(event, self.reader.topics)


def alive(readers: Sequence[Reader], wanted: Callable[[Reader], bool]) -> Iterator[Reader]:
    """Those with a connection for which something holds."""
    return (one for one in readers if one.opened is not None and wanted(one))
