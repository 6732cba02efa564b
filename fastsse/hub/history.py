"""History: the frames kept for resuming. Each topic is bounded by count, bytes and age; all topics
together are bounded by bytes. `_hub.pyx:HistoryLog` evicts.

An event of several topics is kept by each of them separately; the total counts it once. It is
evicted when its last topic evicts it. The oldest event is always evicted first, so a topic keeps
exactly its events after `evicted_through`. Loop thread only.

Over 400 lines: all reads of the logs obey the same rules for hidden and expired events.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import chain
from typing import NamedTuple, TypeAlias

from fastsse._core import Frame
from fastsse._hub import OWN_ID_COST_BYTES, TOPIC_COST_BYTES, HistoryLog, TopicLog
from fastsse.auth.rights import Rights
from fastsse.directives import read_control
from fastsse.entries import Entry, Extras
from fastsse.events import as_header_value
from fastsse.evicted import Evicted, Step, steps_of
from fastsse.hub.backfill import BackfilledEvents, Evictions
from fastsse.hub.templates import WantedTopics
from fastsse.hub.topic_log import (
    is_wanted,
    logs_of,
    once,
    position_of,
)
from fastsse.hub.topics import Topic, Topics
from fastsse.hub.views import Described
from fastsse.positions import TimeMarks, now_ms, parse_id
from fastsse.streamstate import StreamOp, read_stream_control

__all__ = ["PAGE_BYTES", "Erased", "History", "NewestEvents", "Page", "Selection", "sees_private"]

PAGE_BYTES = 256 * 1024
# A read ends after this many events that are hidden from the reader, or have expired. Otherwise a
# reader without rights could occupy the loop with private events.
LEFT_OUT_MAX = 2_000
# Events that one sweep examines: a few milliseconds at most.
SWEEP_EVENTS = 4_000

# For more topics the log of all events is read and filtered, instead of the logs of the topics.
MERGED_MAX = 1_000

# A snapshot of a template or of `*` examines each topic, up to this many. If there are more, it
# examines this many of the newest events instead: a few milliseconds.
SNAPSHOT_TOPICS_MAX = 10_000
SNAPSHOT_SCAN_MAX = 20_000
# Events of all topics that are read for a snapshot; the newest SNAPSHOT_EVENTS_MAX are sent. If
# there are more, fewer are read of the topics that have many: 10 ms at most.
SNAPSHOT_READ_MAX = 20_000

# The topics of a reader; None: every event.
Selection: TypeAlias = Sequence[Topic] | WantedTopics | None


class Erased(NamedTuple):
    """A deletion: the event at the place `through`, or (`topic`) all of a topic up to it."""

    through: int
    topic: str | None

    def covers(self, entry: Entry) -> bool:
        """Whether the deletion of a topic includes this entry."""
        return entry.position <= self.through and self.topic in entry.topics


class Page(NamedTuple):
    """Consecutive events for a reader: all kept ones after the requested place, up to `through`."""

    frames: list[Frame]
    through: int
    is_last: bool  # No matching event follows: `through` is the head.
    evicted: Evicted  # What its topics had evicted after that place when it was read.


class NewestEvents(NamedTuple):
    """The newest kept events of each topic that a reader may see."""

    by_topic: dict[str, list[Frame]]  # The newest first; topics without an event are missing.
    is_enough: bool  # Every topic has as many as were asked for.
    is_whole: bool  # False: there were too many topics or events to read all.


class History(HistoryLog):
    """The newest events of all topics.

    Arguments:
        topics: the live topics and their rules.
        total_bytes: the bound on all topics together; above it the oldest events are evicted.
        start: no event up to this place is kept, such as those from before a restart.

    A reader sees only the private events of topics that its rights cover; without rights, none.
    Results are as if other private events did not exist.

    Attributes:
        head: the position of the newest event.
        public_head: the newest position that is not a private event's.
        lost_through: events up to this place may be missing, because the followed log lost them.
        start: as given.
        expected_through: if above 0, another process is sending the events up to this place. Until
            they have arrived they count as evicted.
        times: the time of positions that were ahead of the clock.
        events: number of kept events.
        bytes: bytes of the kept events and of their bookkeeping.
        ended_count: number of topics whose end is kept.
        now_ms: the clock, in unix milliseconds.
        on_ended: called with a topic that has ended.
        on_key: called with position and publisher's key of each entry that has one; None: not.
        on_erased: called with each deletion, before anything else may be sent.
        on_reopened: called with an ended topic of which nothing is kept any more, so it is open.
        keeps_streams: no other store has the durable streams, so nothing of them is evicted.
        has_store: a store has more than memory, and says what purges leave.
    """

    def __init__(self, topics: Topics, total_bytes: int, start: int) -> None:
        super().__init__(topics, total_bytes, start)
        self.start = start
        self.lost_through = self._lost_at = 0
        self.expected_through = 0
        # For evictions learnt from another process: the counter's reading then, and up to where.
        self._learnt: Step = (0, 0)
        self.ended_count = 0
        self.on_ended: Callable[[Topic], None] = lambda topic: None
        self.now_ms: Callable[[], int] = now_ms
        self.on_key: Callable[[int, bytes], None] | None = None
        self.on_erased: Callable[[Erased], None] = lambda erased: None
        self.on_reopened: Callable[[Topic], None] = lambda topic: None
        self.keeps_streams = False
        self.has_store = False
        self._topics = topics
        self._aged_through = dict.fromkeys(topics.rules.ages_ms, start)
        # Topics with other rules than before, which may keep more than these allow.
        self._too_long: dict[Topic, None] = {}

    def apply_rules(self) -> None:
        """Gives each live topic the rule that is its own now. What the new rules do not keep is
        evicted by the next events of a topic, and by `sweep`. O(topics x rules)."""
        rules = self._topics.rules
        # From the beginning: events that one age passed by may be of topics that have it now.
        self._aged_through = dict.fromkeys(rules.ages_ms, self.start)
        self.look_at_all_again()
        for topic in self._topics.by_name.values():
            rule = rules.rule(topic.name)
            self.exempt(topic, rule.unbounded() if topic.is_exempt else rule, topic.is_exempt)
            if topic.log is not None:
                self._too_long[topic] = None

    def sweep(self, now_ms: int, limit: int = SWEEP_EVENTS) -> bool:
        """Evicts events that are too old, at most `limit`. Returns True if more are left.

        Each event is examined once for each age that a rule names.
        """
        limit = self._shorten(limit)
        if limit <= 0:
            return True
        for age_ms, after in self._aged_through.items():
            through = self.times.place_at(now_ms - age_ms)
            count, self._aged_through[age_ms] = self.sweep_age(age_ms, after, through, limit)
            limit -= count
            if limit <= 0:
                return True
        return False

    def _shorten(self, limit: int) -> int:
        """Evicts what new rules do not keep, at most about `limit` events; returns what is left of
        the limit."""
        while self._too_long and limit > 0:
            topic = next(iter(self._too_long))
            gone, is_done = self.shorten(topic, limit)
            limit -= gone + 1
            if is_done:
                del self._too_long[topic]
        return limit

    def page(
        self,
        selection: Selection,
        after: int,
        limit_bytes: int = PAGE_BYTES,
        rights: Rights | None = None,
    ) -> Page:
        """The next events after a place, in order, each once: at most `limit_bytes`, but at least
        one. After LEFT_OUT_MAX hidden or expired events the page ends, perhaps empty.
        O(log n + page)."""
        frames: list[Frame] = []
        room_bytes, left_out = limit_bytes, 0
        evicted = self.evicted(selection, after, sees_private(rights))
        for frame in self._after(selection, after):
            if self.is_expired(frame) or (frame.private and not self._may_read(frame, rights)):
                left_out += 1
                if left_out == LEFT_OUT_MAX:
                    return Page(frames, frame.position, False, evicted)
                continue
            room_bytes -= frame.size
            if room_bytes < 0 and frames:
                return Page(frames, frames[-1].position, False, evicted)
            frames.append(frame)
        return Page(frames, self.head, True, evicted)

    def between(
        self, selection: Selection, after: int, through: int, rights: Rights | None = None
    ) -> Iterator[Frame]:
        """The events after one place and up to another that a reader may see, in order. O(log n) to
        begin."""
        for frame in self._after(selection, after):
            if frame.position > through:
                return
            if self.is_expired(frame):
                continue
            if not frame.private or self._may_read(frame, rights):
                yield frame

    def described(self, frames: Iterable[Frame]) -> list[Described]:
        """Kept frames, each with its topics and meta for a view. O(log n) each."""
        return [self._described(frame) for frame in frames]

    def entry_at(self, position: int) -> Entry | None:
        """The entry kept at a position, or None. O(log n)."""
        entries = self.entries(position - 1, 1)
        return entries[0] if entries and entries[0].position == position else None

    def has_events(self, topic: str) -> bool:
        """Whether an event of a topic is kept. O(control entries and deleted events)."""
        found = self._topics.by_name.get(topic)
        if found is None or found.log is None:
            return False
        return any(frame.events for frame in found.log.newest_first())

    def event_at(self, position: int) -> Described | None:
        """The event kept at a position, or None. O(log n)."""
        frame = next(self.whole.after(position - 1), None)
        return self._described(frame) if frame and frame.position == position else None

    def _described(self, frame: Frame) -> Described:
        owners = self.whole.owners_of(frame.position)
        topics = owners if isinstance(owners, tuple) else (owners,)
        extras = self.extras_at.get(frame.position)
        meta = None if extras is None else extras.meta
        return Described(frame, tuple([topic.name for topic in topics]), meta)

    def evicted(self, selection: Selection, after: int, has_grants: bool = True) -> Evicted:
        """The evictions after a place that concern a reader of these topics, with grants or
        without. O(topics)."""
        evictions: Iterable[Step]
        if selection is None:
            evictions = [(self.evicted_at, self.evicted_from_all_through), *self.evicted_below]
            if has_grants:
                evictions = [*evictions, *self.evicted_apart]
        elif isinstance(selection, WantedTopics):
            evictions = [*selection.evictions, (self._lost_at, self.lost_through), self._learnt]
        else:
            evictions = [(topic.evicted_at, topic.evicted_through) for topic in selection]
        if self.expected_through:
            evictions = [*evictions, (0, self.expected_through)]
        steps = steps_of([step for step in evictions if step[1] > after])
        return Evicted(self.clock, steps, self.start)

    def evicted_through(self, selection: Selection, has_grants: bool = True) -> int:
        """The place after which memory has all events of these topics, for a reader with grants or
        without. Some of the topics may have older events, too. O(topics)."""
        if selection is None:
            through = self.evicted_from_all_through
            if has_grants:
                through = max(through, self.evicted_apart.through)
        elif isinstance(selection, WantedTopics):
            # A template may have been made before evictions of forgotten topics were learnt.
            through = max(selection.evicted_through, self.lost_through, self._learnt[1])
        else:
            through = max(topic.evicted_through for topic in selection)
        return through if through > self.expected_through else self.expected_through

    def evicted_after(self, selection: Selection, place: int) -> Iterator[str]:
        """The topics of a selection that evicted events after a place; names of forgotten topics
        too, whichever these are. O(topics)."""
        topics = self._topics.by_name.values() if selection is None else selection
        for topic in topics:
            if topic.evicted_through > place:
                yield topic.name
        if self._topics.forgotten_through > place:
            yield ""
        for name, through in self._topics.remembered():
            if through > place:
                yield name

    def before_newest(
        self, selection: Selection, count: int, rights: Rights | None = None
    ) -> tuple[int, bool]:
        """The place just before the newest `count` kept events, and whether there are so many.

        With fewer events it is the place before the oldest, without events the head. The search
        stops after LEFT_OUT_MAX hidden events. O(count)."""
        place, found, left_out = self.head, 0, 0
        for frame in self._newest_first(selection):
            if found == count or left_out == LEFT_OUT_MAX:
                return place, True
            if not frame.events or self.is_expired(frame):
                continue  # A control entry, or an expired event.
            if frame.private and not self._may_read(frame, rights):
                left_out += 1
            else:
                place, found = frame.position - 1, found + 1
        return place, found == count

    def newest_of_each(
        self, selection: Selection, count: int, rights: Rights | None = None
    ) -> NewestEvents:
        """The newest `count` kept events of each topic. With more than SNAPSHOT_TOPICS_MAX topics,
        only those with the newest events; with more than SNAPSHOT_READ_MAX events, fewer of each
        topic. Of a topic the search stops after LEFT_OUT_MAX hidden events. O(topics x count)."""
        newest: dict[str, list[Frame]] = {}
        is_enough = not isinstance(selection, WantedTopics | None)
        selected, are_all = self._topics_for_snapshot(selection)
        topics = list(selected)
        most = _count_that_fits([one.log.kept for one in topics if one.log is not None], count)
        for topic in topics:
            frames = [] if topic.log is None else self._newest_of(topic.log, most, rights)
            if frames:
                newest[topic.name] = frames
            is_enough = is_enough and len(frames) == count
        return NewestEvents(newest, is_enough, are_all and most == count)

    def _topics_for_snapshot(self, selection: Selection) -> tuple[Iterable[Topic], bool]:
        """The topics to look at, and whether all with a kept event are among them."""
        if selection is None:
            if len(self._topics.by_name) <= SNAPSHOT_TOPICS_MAX:
                return self._topics.by_name.values(), True
        elif not isinstance(selection, WantedTopics) or selection.size <= SNAPSHOT_TOPICS_MAX:
            return selection, True
        return self._busiest(selection)

    def _newest_of(self, log: TopicLog, count: int, rights: Rights | None) -> list[Frame]:
        frames: list[Frame] = []
        left_out = 0
        for frame in log.newest_first():
            is_shown = frame.events and not self.is_expired(frame)
            if is_shown and (not frame.private or self._may_read(frame, rights)):
                frames.append(frame)
            else:
                left_out += 1
            if len(frames) == count or left_out == LEFT_OUT_MAX:
                break
        return frames

    def _busiest(self, selection: WantedTopics | None) -> tuple[list[Topic], bool]:
        """The selected topics of the newest events, each once, and whether all events were looked
        at."""
        topics: dict[Topic, None] = {}
        for looked_at, (_, owners) in enumerate(self.whole.owned_newest_first()):
            for topic in owners if isinstance(owners, tuple) else (owners,):
                if selection is None or topic in selection:
                    if len(topics) == SNAPSHOT_TOPICS_MAX and topic not in topics:
                        return list(topics), False
                    topics[topic] = None
            if looked_at == SNAPSHOT_SCAN_MAX:
                return list(topics), False
        return list(topics), True

    def head_for(self, rights: Rights | None) -> int:
        """The newest place that a reader may see. Without grants it is not the place of a private
        event, because its id would reveal that and when the event was published."""
        return self.head if rights is not None and rights.subscribe else self.public_head

    def find(self, own_id: bytes) -> int | None:
        """The position of the kept event with this id of its publisher, the earliest if there are
        several; None: there is none."""
        return self.position_of.get(as_header_value(own_id))

    def may_read(self, position: int, rights: Rights | None) -> bool:
        """Whether the event kept at a position is public, or covered by the rights. O(log n)."""
        frame = next(self.whole.after(position - 1), None)
        return frame is None or not frame.private or self._may_read(frame, rights)

    def lose(self, place: int) -> int:
        """Evicts everything, because the log lost events up to a place. Returns the later of this
        place and the head, from where on history is complete again. O(events and topics)."""
        self.head = self.public_head = self.lost_through = place = max(place, self.head)
        while self.whole.first() is not None:
            self.evict_oldest()
        self._lost_at = self.tick()
        self.note_gone(place)
        for topic in self._topics.by_name.values():
            topic.evicted_through, topic.evicted_at = place, self._lost_at
        self._topics.forgotten_through = place
        return place

    def _may_read(self, frame: Frame, rights: Rights | None) -> bool:
        """Whether the rights cover a topic of a private event. Not cached, because it is rare."""
        if rights is None:
            return False
        owners = self.whole.owners_of(frame.position)
        topics = owners if isinstance(owners, tuple) else (owners,)
        return rights.covers_subscribe(topic.name for topic in topics if topic is not None)

    def entries(self, after: int, limit_bytes: int = PAGE_BYTES) -> list[Entry]:
        """The next kept events of all topics after a place, for another process: at most
        `limit_bytes`, but at least one; none at the end. O(log n + page)."""
        entries: list[Entry] = []
        for frame, owners in self.whole.owned_after(after):
            limit_bytes -= frame.size
            if limit_bytes < 0 and entries:
                break
            topics = owners if isinstance(owners, tuple) else (owners,)
            names = tuple(topic.name for topic in topics)
            own_id = self.own_id_at.get(frame.position)
            extras = self.extras_at.get(frame.position)
            entries.append(Entry(frame.position, names, own_id, frame, extras))
        return entries

    @property
    def begins(self) -> int:
        """The place after which memory has everything that the rules keep."""
        return max(self.start, self.expected_through)

    def evictions(self) -> Evictions:
        """All evictions so far. O(topics)."""
        topics, least = self._topics, self.begins
        by_topic = topics.evicted()
        if self.expected_through:
            by_topic = {name: max(place, least) for name, place in by_topic.items()}
        return Evictions(
            by_topic,
            max(self.evicted_through(None), least),
            max(topics.forgotten_through, least),
        )

    def evict(self, evictions: Evictions) -> None:
        """Evicts what another history evicted, from which the events here were copied. O(topics and
        events evicted)."""
        for name, through in evictions.by_topic.items():
            topic = self._topics.by_name.get(name)
            if topic is None:
                self._topics.remember(name, through)
            else:
                self.evict_through(topic, through)
        self.tick()
        self.note_gone(evictions.of_all)
        self._topics.forgotten_through = max(
            self._topics.forgotten_through, evictions.forgotten_through
        )

    def expect(self, through: int) -> None:
        """Expects the events up to a place from another process, through `prepend`. Call it before
        anything is appended."""
        self.expected_through = through
        self.head = self.public_head = max(self.head, through)

    def older(self) -> BackfilledEvents:
        """An empty collection for the events of another process."""
        return BackfilledEvents(self._topics)

    def prepend(self, older: BackfilledEvents, evictions: Evictions) -> None:
        """Inserts the events of another process before all others, and applies its evictions. The
        result is the history as if it had been here from the start. O(events and topics)."""
        self._learn(evictions)
        if gone_through := older.cut():
            self.note_gone(gone_through)
        exempt = [topic for topic in older.logs if topic.is_exempt]
        for topic in exempt:
            self.exempt(topic, topic.rule, False)
        for topic, log in older.logs.items():
            if topic.log is not None:
                topic.log.prepend(log)
            elif log.frames:
                topic.log = log
                self.bytes += TOPIC_COST_BYTES
        self.whole.prepend(older.frames, older.owners)
        for topic in exempt:  # With the older events.
            self.exempt(topic, topic.rule, True)
        self.look_at_all_again()
        ahead = ((one.time_ms, one.position) for one in older.frames if one.lead_ms > 0)
        self.times = TimeMarks(chain(ahead, self.times))
        self.events += len(older.positions)
        self.bytes += older.bytes
        for position, own_id in older.own_ids.items():
            self._index_older(own_id, position)
        for position, extras in older.extras.items():
            self.keep_extras(position, extras)
        # Also deletions that arrived meanwhile: they may concern the inserted events.
        controls = [(at, one.control) for at, one in self.extras_at.items() if one.control]
        for position, control in sorted(controls):
            owners = self.whole.owners_of(position)
            topics = owners if isinstance(owners, tuple) else (owners,)
            self.on_control(topics, position, control)
        if self.public_head == self.expected_through:
            public = (frame.position for frame in reversed(older.frames) if not frame.private)
            self.public_head = next(public, self.start)
        self._aged_through = dict.fromkeys(self._aged_through, self.start)
        self.expected_through = 0
        self.trim(tuple(older.logs))
        self.fit()

    def _learn(self, evictions: Evictions) -> None:
        """Notes the evictions of another process: of live topics, of others, and of topics that the
        other process does not remember."""
        by_topic, forgotten_through = evictions.by_topic, evictions.forgotten_through
        by_name = self._topics.by_name
        self.evict(evictions)
        for name, topic in by_name.items():
            if name not in by_topic and topic.evicted_through < forgotten_through:
                self.evict_through(topic, forgotten_through)
        if forgotten_through > self._learnt[1]:
            self._learnt = self.tick(), forgotten_through

    def _after(self, selection: Selection, position: int) -> Iterator[Frame]:
        if selection is None:
            return self.whole.after(position)
        if isinstance(selection, WantedTopics) and selection.size > MERGED_MAX:
            owned = self.whole.owned_after(position)
            return (frame for frame, owners in owned if is_wanted(selection, owners))
        logs = [log.after(position) for log in logs_of(selection)]
        return logs[0] if len(logs) == 1 else once(merge(*logs, key=position_of))

    def _newest_first(self, selection: Selection) -> Iterator[Frame]:
        if selection is None:
            return self.whole.newest_first()
        if isinstance(selection, WantedTopics) and selection.size > MERGED_MAX:
            owned = self.whole.owned_newest_first()
            return (frame for frame, owners in owned if is_wanted(selection, owners))
        logs = [log.newest_first() for log in logs_of(selection)]
        return logs[0] if len(logs) == 1 else once(merge(*logs, key=position_of, reverse=True))

    def ended_at(self, topic: str) -> int:
        """The position of a topic's end; 0: memory knows of none."""
        found = self._topics.by_name.get(topic)
        return 0 if found is None else found.ended_at

    def is_expired(self, frame: Frame) -> bool:
        """Whether an event, or an event of a page, is past its ttl."""
        return 0 < frame.expires_ms <= self.now_ms()

    def last_of(self, topic: str) -> int:
        """The position of a topic's newest event; 0 when none is kept. O(control entries)."""
        found = self._topics.by_name.get(topic)
        if found is None or found.log is None:
            return 0
        return next(filter(self._is_no_control, map(position_of, found.log.newest_first())), 0)

    def _is_no_control(self, position: int) -> bool:
        """Whether the entry at a place is an event, deleted or not."""
        extras = self.extras_at.get(position)
        return extras is None or extras.control is None

    def place_of_id(self, text: bytes) -> int | None:
        """The position that an id names: its own, or of the event published with it. O(1)."""
        position = parse_id(text)
        return self.find(text) if position is None else position

    def shared_events(self, topic: str) -> Iterator[tuple[int, Sequence[str]]]:
        """Position and topics of each kept event of a topic that has other topics too, and was not
        deleted. O(n log n)."""
        found = self._topics.by_name.get(topic)
        if found is None or found.log is None:
            return
        for frame in found.log.newest_first():
            owners = self.whole.owners_of(frame.position) if frame.events else ()
            if isinstance(owners, tuple) and owners:
                yield frame.position, [one.name for one in owners]

    def keep_extras(self, position: int, extras: Extras) -> None:
        """Keeps the optional fields of the event at a position."""
        super().keep_extras(position, extras)
        if extras.key is not None and self.on_key is not None:
            self.on_key(position, extras.key)

    def set_ended(self, topic: Topic, position: int) -> None:
        """Notes the end of a topic. It lasts while an entry of the topic is kept."""
        is_new = not topic.ended_at
        topic.ended_at = max(topic.ended_at, position)
        if is_new:
            self.ended_count += 1
            self.on_ended(topic)

    def on_reopen(self, topic: Topic) -> None:
        """Called when an ended topic has no kept entry any more, so it is open again."""
        topic.ended_at = 0
        self.ended_count -= 1
        self.on_reopened(topic)

    def on_control(self, topics: tuple[Topic, ...], position: int, text: bytes) -> None:
        """Applies a control entry."""
        of_stream = read_stream_control(text)
        if of_stream is not None:
            self._on_stream(topics[0], position, of_stream.op)
            return
        control = read_control(text)
        if control is None:
            return
        if control.kind == "end":
            for topic in topics:
                self.set_ended(topic, position)
        elif control.kind == "delete":
            self.blank(control.through)
            self.on_erased(Erased(control.through, None))
        else:
            for topic in topics:
                through = control.through or position
                if self.has_store:
                    self._evict_shared(topic, through)
                self.purge(topic, through)
                self.on_erased(Erased(through, topic.name))

    def _evict_shared(self, topic: Topic, through: int) -> None:
        """Evicts a topic's events up to a place that have other topics too, from all of these. If
        the store had evicted one of this topic, a purge leaves it in the others: it says so."""
        for position, names in list(self.shared_events(topic.name)):
            if position <= through:
                for name in names:
                    self.evict_through(self._topics.intern(name), position)

    def _on_stream(self, topic: Topic, position: int, op: StreamOp) -> None:
        """A durable stream was created or deleted."""
        if op == "create" and self.keeps_streams:
            self.exempt(topic, topic.rule.unbounded(), True)
        elif op == "drop":
            if topic.ended_at:
                self.on_reopen(topic)
            self.evict_through(topic, position)
            if topic.is_exempt:
                self.exempt(topic, self._topics.rules.rule(topic.name), False)

    def _index_older(self, own_id: bytes, position: int) -> None:
        """Makes `find` return the earliest event of an id."""
        later = self.position_of.get(as_header_value(own_id), 0)
        if later > position:
            del self.position_of[self.own_id_at.pop(later)]
            self.bytes -= OWN_ID_COST_BYTES
        self.index(own_id, position)


def _count_that_fits(kept: Sequence[int], count: int) -> int:
    """How many events are read of each topic, at most `count`: so many that there are at most
    SNAPSHOT_READ_MAX in total, but at least one.

    Arguments:
        kept: how many each topic has.
    """
    while count > 1 and sum([min(one, count) for one in kept]) > SNAPSHOT_READ_MAX:
        count //= 2
    return count


def sees_private(rights: Rights | None) -> bool:
    """Whether a reader may be allowed to see private events."""
    return rights is not None and bool(rights.subscribe)
