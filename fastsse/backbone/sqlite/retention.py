"""Retention: what is evicted, and in which steps.

A topic keeps the newest events that its rule allows, by count, bytes and age. The file as a whole
keeps `total_bytes`; the oldest events are evicted first. An event is deleted when no topic keeps
it. Each step is a short transaction between those of publishers and does not wait for the disk. If
a crash loses a step, it is repeated.

Over 400 lines: one step of the writer thread evicts by all bounds, which share its counters.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Final

from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.late_rows import write_rows
from fastsse.backbone.sqlite.places import EVENT_COST_BYTES, place_of
from fastsse.backbone.sqlite.topic_rows import TopicRow
from fastsse.backbone.sqlite.values import (
    KEPT,
    RECORD,
    TOPIC_BYTES,
    TOPIC_EVENTS,
    TOPIC_EVICTED,
    TOPIC_NAME,
)
from fastsse.config import TopicLimits
from fastsse.entries import unpack_entries

__all__ = ["SqliteRetention"]

# Most events of one step, and the time after which a step starts no other topic.
STEP_EVENTS: Final = 500
STEP_S: Final = 0.003
# The part of its bounds by which a topic may be over until the next round. Evicting many at once
# costs little more than evicting one.
SLACK: Final = 16
# Topics examined in one step of the round, about 1 ms, and how often a round begins.
ROUND_TOPICS: Final = 256
ROUND_MS: Final = 1_000
# Topics without events whose last evicted place is kept.
REMEMBERED_MAX: Final = 100_000
# They are counted once in so many rounds.
FORGET_ROUNDS: Final = 15
# How long keys of publishes are kept. A worker repeats a publish at once or never.
KEYS_KEPT_MS: Final = 10 * 60 * 1_000
KEYS_STEP: Final = 2_000
# Streams are counted again when such a part of `total_bytes` was written.
COUNT_PARTS: Final = 64
_NO_BOUND: Final = 1 << 53
_OF_STREAMS: Final = TopicLimits(_NO_BOUND, _NO_BOUND, _NO_BOUND, None, None, keep_last=_NO_BOUND)


class SqliteRetention:
    """Evicts, step by step.

    Arguments:
        file: the file.
        limits: the limits of each topic.
        total_bytes: the bound over all events; 0: none.
        now_ms: gives unix milliseconds.

    Attributes:
        let_go: events that have left the file.
    """

    def __init__(
        self,
        file: HistoryFile,
        limits: Callable[[str], TopicLimits],
        total_bytes: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._file: Final = file
        self._limits: Final = self._limits_of
        self._rules = limits
        self._has_new_rules = False
        self._total_bytes: Final = total_bytes
        self._now_ms: Final = now_ms
        self._over: dict[str, None] = {}
        self._round_at = 0
        self._round_began_ms: int | None = None
        self._rounds = 0
        # What lies up to here was looked at for the total, and stays as one of its topic's newest.
        self._spared_through = 0
        # The size of the file when streams were counted last, and what they took; below 0: never.
        self._counted_at = 0, -1
        self.let_go = 0

    def apply_rules(self, limits: Callable[[str], TopicLimits]) -> None:
        """Applies other limits from the next step on. Any thread."""
        self._rules = limits
        self._has_new_rules = True

    def _limits_of(self, topic: str) -> TopicLimits:
        """The limits of a topic: of a stream none."""
        return _OF_STREAMS if topic in self._file.streams.topics else self._rules(topic)

    def note(self, rows: Iterable[TopicRow]) -> None:
        """Takes topics with new events. Those far over their bounds are evicted next."""
        for row in rows:
            limits = self._limits(row.name)
            if (
                row.events > limits.events + limits.events // SLACK
                or row.bytes > limits.bytes + limits.bytes // SLACK
                or (self._spared_through and row.events > limits.keep_last > 0)
            ):
                self._over[row.name] = None

    @property
    def is_behind(self) -> bool:
        """Whether some topics are known to be over their bounds."""
        return bool(self._over) or self._is_over_total or self._file.streams.has_dropped

    @property
    def _is_over_total(self) -> bool:
        return 0 < self._total_bytes < self._file.state.bytes and (
            self._total_bytes < self._plain_bytes()
        )

    def _plain_bytes(self) -> int:
        """What events of other topics than durable streams take, which have a bound of their own.
        O(streams) once for each part of the bound that was written."""
        state, streams = self._file.state, self._file.streams
        if not streams.topics:
            return state.bytes
        at_bytes, streams_bytes = self._counted_at
        if abs(state.bytes - at_bytes) * COUNT_PARTS > self._total_bytes or streams_bytes < 0:
            (counted,) = self._file.connection.execute(
                f"SELECT coalesce(sum({TOPIC_BYTES}), 0) FROM topic"
                " WHERE name IN (SELECT topic FROM stream)"
            ).fetchone()
            counted += self._file.late.size_bytes
            at_bytes, streams_bytes = self._counted_at = state.bytes, counted
        return state.bytes - streams_bytes

    def round_is_due(self, now_ms: int) -> bool:
        """Whether a round is due, which examines topics for age and changed rules."""
        if self._round_began_ms is None or now_ms < self._round_began_ms:
            return True  # The clock went back, so the next round must not wait for it.
        return self._round_at > 0 or now_ms - self._round_began_ms >= ROUND_MS

    def step(self) -> bool:
        """Evicts at most about STEP_EVENTS events, or examines some topics, in one transaction.

        Returns whether there is more to do: at once if it `is_behind`, else the rest of a round.
        """
        if not self.is_behind and not self.round_is_due(self._now_ms()):
            return False
        done: list[str] = []
        if self._has_new_rules:
            # They may spare less, so all is looked at again.
            self._has_new_rules, self._spared_through = False, 0
        with self._file.evictions.noting(), self._file.transaction(synced=False):
            if self._file.streams.has_dropped:
                self._remove_dropped()
            elif self._over:
                done = self._trim_topics(list(islice(self._over, ROUND_TOPICS)))
            elif self._is_over_total:
                self._trim_oldest()
            else:
                self._go_round()
        for name in done:
            del self._over[name]
        return self.is_behind or self._round_at > 0

    def _remove_dropped(self) -> None:
        """Removes entries of a stream that was dropped."""
        connection = self._file.connection
        found = connection.execute("SELECT topic, place FROM dropped LIMIT 1").fetchone()
        if found is None:
            self._file.streams.has_dropped = False
            return
        topic, place = found
        self._file.topics.load(connection, (topic,))
        row = self._file.topics.get(topic)
        entries: list[Sequence[int]] = []
        if row is not None:
            entries = connection.execute(
                f"SELECT {KEPT} FROM topic_event WHERE topic = ? AND place <= ?"
                " ORDER BY place LIMIT ?",
                (row.number, place, STEP_EVENTS),
            ).fetchall()
        if row is not None and entries:
            self._let_go(row, self._noted(entries))
        if len(entries) < STEP_EVENTS:
            connection.execute("DELETE FROM dropped WHERE topic = ?", (topic,))

    def _trim_topics(self, names: list[str]) -> list[str]:
        """Trims topics until the step is full; returns those that are within their limits."""
        budget, done, until_s = STEP_EVENTS, [], time.perf_counter() + STEP_S
        self._file.topics.load(self._file.connection, names)
        for name in names:
            row = self._file.topics.get(name)
            gone, is_done = (0, True) if row is None else self._trim(row, budget)
            budget -= gone
            if is_done:
                done.append(name)
            if budget <= 0 or time.perf_counter() > until_s:
                break
        return done

    def _trim(self, row: TopicRow, budget: int) -> tuple[int, bool]:
        """Evicts events of a topic over its bounds. Returns how many, and whether the topic is
        within its bounds now."""
        limits = self._limits(row.name)
        aged_through = self._aged_through(limits)
        oldest = self._oldest(row.number, budget)
        events, kept_bytes, count = row.events, row.bytes, 0
        for place, size_bytes, _ in oldest:
            fits = events <= limits.events and kept_bytes <= limits.bytes
            if fits and (
                events <= limits.keep_last or not self._is_old(place, limits, aged_through)
            ):
                break
            events, kept_bytes, count = events - 1, kept_bytes - size_bytes, count + 1
        if count:
            self._let_go(row, oldest[:count])
        return count, count < len(oldest) or len(oldest) < budget

    def _is_old(self, place: int, limits: TopicLimits, aged_through: int) -> bool:
        """Whether an event is too old, or stayed as one of the newest when older ones were removed
        for the total."""
        return place <= aged_through or (limits.keep_last > 0 and place <= self._spared_through)

    def _oldest(self, topic: int, count: int) -> list[list[int]]:
        """Place, size and `shared` of a topic's oldest events."""
        (found,) = self._file.connection.execute(
            "SELECT json_group_array(json_array(place, bytes, shared, is_whole)) FROM"
            f" (SELECT {KEPT} FROM topic_event WHERE topic = ? ORDER BY place LIMIT ?)",
            (topic, count),
        ).fetchone()
        return self._noted(json.loads(found))

    def _noted(self, rows: Iterable[Sequence[int]]) -> list[list[int]]:
        """Rows of `KEPT` without `is_whole`, which is noted as damage where it is false."""
        oldest = []
        for place, size_bytes, shared, is_whole in rows:
            oldest.append([place, size_bytes, shared])
            if not is_whole:
                self._file.damage.found(place, "its size in a topic is damaged")
        return oldest

    def _aged_through(self, limits: TopicLimits) -> int:
        age_ms = round(limits.age_s * 1000)
        return place_of(self._file.times.place_at(max(0, self._now_ms() - age_ms)))

    def _let_go(self, row: TopicRow, oldest: list[list[int]]) -> None:
        """Removes the oldest events of a topic, and deletes those that no other topic has."""
        connection, through = self._file.connection, oldest[-1][0]
        connection.execute(
            "DELETE FROM topic_event WHERE topic = ? AND place <= ?", (row.number, through)
        )
        row.events -= len(oldest)
        row.bytes -= sum(size_bytes for _, size_bytes, _ in oldest)
        row.evicted_through = max(row.evicted_through, through)
        if row.events <= 0:
            row.ended = 0  # The state of a topic lasts as long as something of it is kept.
        self._file.evictions.note(row.number, row.evicted_through)
        self._file.topics.touch(row)
        gone = [(place, size) for place, size, shared in oldest if not shared]
        gone += self._unshared([(place, size) for place, size, shared in oldest if shared])
        self._delete(gone)

    def _unshared(self, shared: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The events of several topics that the last of them has just evicted."""
        return [(place, size) for place, size in shared if not self._is_kept(place)]

    def _is_kept(self, place: int) -> bool:
        connection = self._file.connection
        found = connection.execute(
            f"SELECT {RECORD} FROM event WHERE place = ?", (place,)
        ).fetchone()
        if found is None:
            return True  # Nothing to delete.
        kept = connection.execute(
            "SELECT 1 FROM topic JOIN topic_event ON topic = number AND place = ?"
            " WHERE name IN (SELECT value FROM json_each(?)) LIMIT 1",
            (place, json.dumps(self._topics_of(place, found[0]))),
        ).fetchone()
        return kept is not None

    def _topics_of(self, place: int, record: bytes | None) -> Sequence[str]:
        """The topics of an event. O(topics stored) when its record is damaged."""
        with contextlib.suppress(ValueError):
            (entry,) = unpack_entries(record or b"")
            return entry.topics
        self._file.damage.found(place, "the record is damaged", record)
        rows = self._file.connection.execute(
            "SELECT name FROM topic JOIN topic_event ON topic = number AND place = ?"
            f" WHERE {TOPIC_NAME} IS NOT NULL",
            (place,),
        )
        return [name for (name,) in rows]

    def _delete(self, gone: list[tuple[int, int]]) -> None:
        if not gone:
            return
        places = [place for place, _ in gone]
        self._file.evictions.note_gone(max(places))
        self._file.connection.execute(
            "DELETE FROM event WHERE place IN (SELECT value FROM json_each(?))",
            (json.dumps(places),),
        )
        state = self._file.state
        self._file.update(
            events=state.events - len(gone),
            bytes=state.bytes - sum(size for _, size in gone),
            evicted_through=max(state.evicted_through, *places),
        )
        self.let_go += len(gone)

    def _trim_oldest(self) -> None:
        """Removes the oldest events of the file from every topic, except the newest ones that rules
        spare. Those are removed when nothing else is left."""
        if not self._trim_oldest_after(self._spared_through, spares=True):
            self._trim_oldest_after(0, spares=False)

    def _trim_oldest_after(self, after: int, *, spares: bool) -> bool:
        """Removes the oldest events after a place. Returns whether there were any."""
        left = self._plain_bytes() - self._total_bytes
        through: dict[str, int] = {}
        looked_at: dict[int, int] = {}
        rows = self._file.connection.execute(
            f"SELECT place, {RECORD} FROM event WHERE place > ? ORDER BY place LIMIT ?",
            (after, STEP_EVENTS // 4),
        )
        with closing(rows):
            for place, record in rows:
                size_bytes = len(record or b"") + EVENT_COST_BYTES
                through.update(dict.fromkeys(self._topics_of(place, record), place))
                looked_at[place] = size_bytes
                left -= size_bytes
                if left <= 0:
                    break
        write_rows(self._file, through)
        for name in self._file.topics.load(self._file.connection, through):
            del through[name]  # No row: its name is what is damaged.
        spared: set[int] = set()
        for name, place in through.items():
            is_stream = name in self._file.streams.topics
            keep = self._limits(name).keep_last if spares or is_stream else 0
            spared.update(self._let_go_through(self._file.topics[name], place, keep))
        if spared:
            self._spared_through = max(looked_at)
        # The rest has no topic, or none with a valid name.
        left_over = self._file.stored_places(looked_at).difference(spared)
        self._delete([(place, looked_at[place]) for place in looked_at if place in left_over])
        return bool(looked_at)

    def _let_go_through(self, row: TopicRow, place: int, keep: int) -> list[int]:
        """Removes a topic's events up to a place, but not its newest `keep`. Returns the places of
        those that stay."""
        found = self._file.connection.execute(
            f"SELECT {KEPT} FROM topic_event WHERE topic = ? AND place <= ? ORDER BY place",
            (row.number, place),
        ).fetchall()
        gone = found[: max(0, row.events - keep)] if keep else found
        if gone:
            self._let_go(row, self._noted(gone))
        return [place for place, *_ in found[len(gone) :]]

    def _go_round(self) -> None:
        """Examines the next topics for events that are too old or that the present rules do not
        allow."""
        if self._round_at == 0:
            self._round_began_ms = self._now_ms()
            self._forget_keys()
            self._file.keys.begin(self._file.connection)
            self._file.keys.forget_old()
            self._file.producers.begin(self._file.connection)
            self._file.producers.forget_old()
            if self._rounds % FORGET_ROUNDS == 0:
                self._forget_topics()
            self._rounds += 1
        (found,) = self._file.connection.execute(
            "SELECT json_group_array(json_array(number, name, events, bytes)) FROM"
            f" (SELECT number, {TOPIC_NAME} AS name, {TOPIC_EVENTS} AS events,"
            f" {TOPIC_BYTES} AS bytes FROM topic WHERE number > ? ORDER BY number LIMIT ?)",
            (self._round_at, ROUND_TOPICS),
        ).fetchone()
        topics = json.loads(found)
        may_be_aged: dict[int, tuple[str, TopicLimits]] = {}
        for number, name, events, kept_bytes in topics:
            if name is None:
                self._drop_nameless(number)
            elif name not in self._file.streams.topics:
                limits = self._rules(name)
                if events > limits.events or kept_bytes > limits.bytes:
                    self._over[name] = None
                elif events > limits.keep_last:
                    may_be_aged[number] = name, limits
        self._find_aged(may_be_aged)
        self._round_at = topics[-1][0] if len(topics) == ROUND_TOPICS else 0

    def _find_aged(self, topics: Mapping[int, tuple[str, TopicLimits]]) -> None:
        """Notes those topics whose oldest event is too old."""
        if not topics:
            return
        (found,) = self._file.connection.execute(
            "SELECT json_group_array(json_array(value, (SELECT min(place) FROM topic_event"
            " WHERE topic = value))) FROM json_each(?)",
            (json.dumps(list(topics)),),
        ).fetchone()
        through: dict[float, int] = {}
        for number, oldest in json.loads(found):
            name, limits = topics[number]
            if limits.age_s not in through:
                through[limits.age_s] = self._aged_through(limits)
            if oldest is not None and oldest <= through[limits.age_s]:
                self._over[name] = None

    def _drop_nameless(self, number: int) -> None:
        """A topic whose name is damaged loses its events, some with each round, and then its row.
        Their topic is unknown, so readers of any topic without a row get a gap event."""
        file, oldest = self._file, self._oldest(number, STEP_EVENTS)
        file.damage.found_topic(number, "its name is damaged")
        if oldest:
            through = oldest[-1][0]
            file.connection.execute(
                "DELETE FROM topic_event WHERE topic = ? AND place <= ?", (number, through)
            )
            file.update(forgotten_through=max(file.state.forgotten_through, through))
            self._delete(self._unshared([(place, size) for place, size, _ in oldest]))
        if len(oldest) < STEP_EVENTS:
            file.connection.execute("DELETE FROM topic WHERE number = ?", (number,))

    def _forget_keys(self) -> None:
        before = place_of(self._file.times.place_at(max(0, self._now_ms() - KEYS_KEPT_MS)))
        self._file.connection.execute(
            "DELETE FROM publish WHERE place IN"
            " (SELECT place FROM publish WHERE place < ? ORDER BY place LIMIT ?)",
            (before, KEYS_STEP),
        )

    def _forget_topics(self) -> None:
        """Forgets topics without events when there are too many, those longest without first."""
        connection = self._file.connection
        (count,) = connection.execute("SELECT count(*) FROM topic WHERE events = 0").fetchone()
        rows = connection.execute(
            f"SELECT number, {TOPIC_NAME}, {TOPIC_EVICTED} FROM topic WHERE events = 0"
            " ORDER BY evicted_through LIMIT ?",
            (min(max(0, count - REMEMBERED_MAX), KEYS_STEP),),
        ).fetchall()
        for number, name, evicted_through in rows:
            self._file.topics.drop(name)
            self._file.evictions.note_forgotten(number)
            connection.execute("DELETE FROM topic WHERE number = ?", (number,))
            forgotten = max(self._file.state.forgotten_through, evicted_through)
            self._file.update(forgotten_through=forgotten)
