"""Features crossed: whatever is published, deleted, evicted, expired, and however streams are
chosen, slowed, cut and resumed, each stream receives what it must, and a gap exactly where
something is missing. The model is `crossing_model.py`; ends of topics are here."""

import json
import time
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from fastsse._core import Sender
from fastsse.auth.rights import Rights
from fastsse.directives import directives_of
from fastsse.errors import Conflict, StreamRefused
from fastsse.events import Event
from fastsse.positions import format_position
from fastsse.subscriptions import HEAD, Cursor, View
from tests.hub.crossing_model import (
    LATEST,
    RUNS,
    SKIP,
    SPAN_MS,
    SYNC,
    TOPICS,
    TTL_MS,
    VIEWS,
    Check,
    Log,
    Opened,
    Reader,
    Sent,
    alive,
    history,
)
from tests.hub.onenode import Node

READERS_MAX: Final = 6
BIG: Final = "x" * 3_000
# Which readers are slow, by what they select.
SLOW: Final = ((SKIP,), (LATEST,), (SKIP, LATEST), ("all/1",), ("all/1", LATEST))
OFTEN: Final = ("few/1", "few/2", "some/1")  # Topics that evict.
some_topics = st.lists(st.sampled_from((*OFTEN, *TOPICS)), min_size=1, max_size=2, unique=True)


class Crossings(RuleBasedStateMachine):
    """Readers of one node. What they received is judged when they are cut, and by `settle`."""

    def __init__(self) -> None:
        super().__init__()
        sender = Sender(max_connections=50, max_lag_bytes=20_000, tick_ms=1)
        self.node = Node(history(), sender=sender, now_ms=time.time_ns() // 1_000_000)
        self.log = Log(now_ms=self.node.now_ms)
        self.readers: list[Reader] = []

    @initialize()
    def begin(self) -> None:
        self._publish((SYNC,), is_even=True)

    # ---- publishers ----------------------------------------------------------------------------

    def _publish(
        self,
        topics: tuple[str, ...],
        kind: str | None = "x",
        *,
        is_even: bool,
        is_private: bool = False,
        has_id: bool = False,
        has_ttl: bool = False,
        filling: str = "",
    ) -> Sent | None:
        """Publishes an event; None: one of its topics has ended."""
        number = len(self.log.events)
        data = json.dumps({"n": number, "even": is_even, "filling": filling})
        own = f"own{number}" if has_id else None
        asked = directives_of(ttl=TTL_MS / 1000) if has_ttl else None
        event = Event(topics, data, kind, own, private=is_private, data_kind=1, directives=asked)
        if set(topics) & set(self.log.ends):
            with pytest.raises(Conflict):
                self.node.publish_all([event])
            return None
        (position,) = self.node.publish_all([event]).positions
        expires_ms = self.node.now_ms + TTL_MS if has_ttl else None
        one = Sent(position, topics, number, kind or "message", is_even, is_private, expires_ms)
        self.log.events.append(one)
        if own is not None:
            self.log.by_own_id[own] = one
        self.log.done += 1
        return one

    @rule(
        topics=some_topics,
        kinds=st.lists(
            st.tuples(st.sampled_from([None, "x", "x", "done"]), st.booleans()),
            min_size=1,
            max_size=5,
        ),
        is_private=st.booleans(),
        has_id=st.booleans(),
        has_ttl=st.booleans(),
    )
    def publish(self, topics: list[str], kinds: list[Any], **options: bool) -> None:
        for kind, is_even in kinds:
            self._publish(tuple(topics), kind, is_even=is_even, **options)

    @rule(topic=st.sampled_from([SKIP, LATEST, "all/1"]), evens=st.integers(0, 3))
    def flood(self, topic: str, evens: int) -> None:
        """More than a slow reader takes."""
        for n in range(20):
            self._publish((topic,), is_even=n % 4 < evens, filling=BIG)
        self.node.run_until(lambda: self.node.sender.pending_commands == 0)
        for client in self.node.clients:  # The others are not to be blocked.
            client.read()

    @rule(topic=st.sampled_from(RUNS))
    def end(self, topic: str) -> None:
        if topic not in self.log.ends:
            (self.log.ends[topic],) = self.node.publish_all([Event.end((topic,))]).positions
            self.log.done += 1

    @rule(choice=st.integers(0, 1_000))
    def delete(self, choice: int) -> None:
        if not (kept := self._deletable()):
            return
        one = kept[choice % len(kept)]
        own = next((text for text, of in self.log.by_own_id.items() if of is one), "")
        shown = own or format_position(one.position).decode()
        outcomes: list[Any] = []
        self.node.hub.delete_event(one.topics[0], shown, outcomes.append)
        one.deleted_at = self.log.done = self.log.done + 1
        place = outcomes[0].positions[0]
        self.log.notices[place] = one.topics, one.is_private, f"delete {shown}"

    @rule(choice=st.integers(0, 1_000))
    def purge(self, choice: int) -> None:
        if not (kept := self._deletable()):
            return
        topic = kept[choice % len(kept)].topics[0]
        outcomes: list[Any] = []
        self.node.hub.purge_topic(topic, outcomes.append)
        self.log.done += 1
        for one in self.log.events:
            if topic in one.topics and one.deleted_at is None:
                one.deleted_at = self.log.done
        text = f"purge {outcomes[0].last.decode()}"
        self.log.notices[outcomes[0].positions[0]] = (topic,), False, text

    def _deletable(self) -> list[Sent]:
        return [
            one
            for one in self.log.events
            if one.deleted_at is None
            and SYNC not in one.topics
            and not self.log.is_evicted(one, one.topics)
        ]

    @rule(ms=st.sampled_from([1, SPAN_MS, 2 * TTL_MS]))
    def pass_time(self, ms: int) -> None:
        self.node.now_ms += ms
        self.log.now_ms = self.node.now_ms
        self.node.hub.sweep(self.node.now_ms)
        self.node.sender.advance_clock(ms)

    # ---- readers -------------------------------------------------------------------------------

    @rule(
        topics=some_topics,
        view=st.sampled_from(VIEWS),
        is_granted=st.booleans(),
        cursor=st.sampled_from(["head", "earliest", "last", "place"]),
        count=st.integers(0, 5),
    )
    def join(
        self, topics: list[str], view: View | None, is_granted: bool, cursor: str, count: int
    ) -> None:
        if len(self.readers) < READERS_MAX:
            self._join((*topics, SYNC), view or View(), is_granted, cursor, count)

    @rule(
        topics=st.sampled_from(SLOW),
        view=st.sampled_from([view for view in VIEWS if view is None or not view.interval_ms]),
        is_granted=st.booleans(),
    )
    def join_slowly(self, topics: tuple[str, ...], view: View | None, is_granted: bool) -> None:
        if len(self.readers) < READERS_MAX:
            self._join((*topics, SYNC), view or View(), is_granted, "head", 0, is_slow=True)

    @rule(
        topics=st.lists(st.sampled_from(RUNS), min_size=1, max_size=2, unique=True),
        view=st.sampled_from([None, View(envelope=True)]),
        cursor=st.sampled_from(["head", "earliest", "place"]),
        count=st.integers(0, 5),
    )
    def follow_runs(self, topics: list[str], view: View | None, cursor: str, count: int) -> None:
        """A stream that is over when its topics are."""
        if len(self.readers) < READERS_MAX:
            self._join(tuple(topics), view or View(), True, cursor, count)

    def _join(
        self,
        topics: tuple[str, ...],
        view: View,
        is_granted: bool,
        cursor: str,
        count: int,
        *,
        is_slow: bool = False,
    ) -> None:
        rights = Rights(subscribe=("*",)) if is_granted else None
        reader = Reader(topics, view, rights, is_slow)
        self.readers.append(reader)
        head = self.node.hub.history.head
        if cursor == "place":
            reader.last_each = count
            reader.place = format_position(self.log.events[count % len(self.log.events)].position)
            reader.place = reader.place.decode()
            self._open(reader)
        elif cursor == "last" and view == View():
            wanted = [one for one in self.log.events if reader.wants(one)]
            after = wanted[-count - 1].position if count < len(wanted) else 0
            self._open(reader, Cursor("last", count), after if count else head, last=count)
        elif cursor == "earliest":
            self._open(reader, Cursor("earliest"), 0)
        else:
            reader.last_each = count
            self._open(reader, HEAD, head)

    @rule(choice=st.integers(0, 100))
    def come_back(self, choice: int) -> None:
        if away := [one for one in self.readers if one.opened is None]:
            self._open(away[choice % len(away)])

    def _open(
        self, reader: Reader, cursor: Cursor | None = None, after: int = 0, last: int = 0
    ) -> None:
        if cursor is None:
            cursor, after = Cursor("after", reader.place), self.log.place(reader.place)
        snapshot = self.log.snapshot(reader) if reader.last_each else None
        try:
            client = self.node.subscribe(
                *reader.topics,
                cursor=cursor,
                view=None if reader.view == View() else reader.view,
                rights=reader.rights,
                last_each=reader.last_each,
                receive_bytes=4_096 if reader.is_slow else 0,
            )
        except StreamRefused:
            assert self.log.is_over(reader)
            assert not any(
                one.position > after and one.deleted_at is None and not self.log.is_expired(one)
                for one in self.log.events
                if reader.wants(one)
            )
            self.readers.remove(reader)
            return
        now_ms = self.node.now_ms
        reader.opened = Opened(client, after, last, self.log.done, now_ms, snapshot)

    @rule(choice=st.integers(0, 100))
    def pause(self, choice: int) -> None:
        slow = list(alive(self.readers, lambda one: one.is_slow and not one.is_paused))
        if slow:
            reader = slow[choice % len(slow)]
            reader.is_paused = True
            self.node.clients.remove(reader.opened.client)

    def _go_on(self, reader: Reader) -> None:
        if reader.is_paused:
            reader.is_paused = False
            self.node.clients.append(reader.opened.client)

    @rule(choice=st.integers(0, 100), reads=st.booleans())
    def cut(self, choice: int, reads: bool) -> None:
        if not (live := list(alive(self.readers, lambda one: True))):
            return
        reader = live[choice % len(live)]
        self._go_on(reader)
        if reads:
            reader.opened.client.read()
        self._leave(reader, 0)

    @rule(choice=st.integers(0, 100), count=st.integers(1, 8), is_private=st.booleans())
    def miss(self, choice: int, count: int, is_private: bool) -> None:
        """A reader is away while events come to one of its topics, and perhaps go again."""
        live = list(alive(self.readers, lambda one: not one.is_slow))
        if not live:
            return
        reader = live[choice % len(live)]
        self._leave(reader, 0)
        topic = reader.topics[choice % len(reader.topics)]
        for n in range(count):
            self._publish((topic,), is_even=n % 2 == 0, is_private=is_private and topic != SYNC)
        if reader in self.readers:
            self._open(reader)

    def _leave(self, reader: Reader, through: int) -> None:
        client = reader.opened.client
        place = client.stream.last_event_id
        through = max(through, self.log.place(place) if place else 0)
        self._judge(reader, through)
        self.node.hang_up(client)
        if b" 204 " in client.received[:20] or self._is_over(reader):
            self.readers.remove(reader)
        reader.place = place or reader.place or format_position(reader.opened.after).decode()
        reader.opened = None

    def _is_over(self, reader: Reader) -> bool:
        messages = reader.opened.client.stream.events
        return bool(messages) and messages[-1].type.encode() in (*reader.view.until, b"fastsse.end")

    def _judge(self, reader: Reader, through: int) -> None:
        Check(self.log, reader, through).run()

    @rule()
    def settle(self) -> None:
        """All that is due has come."""
        for reader in self.readers:
            self._go_on(reader) if reader.opened else None
        end = self._publish((SYNC,), is_even=True)
        live = list(alive(self.readers, lambda one: True))
        self.node.run_until(lambda: self._tick() or all(self._has(one, end) for one in live))
        for reader in live:
            if reader.opened.client.is_ended:
                self._leave(reader, 0)
            else:
                self._judge(reader, end.position)

    def _tick(self) -> bool:
        if any(one.view.interval_ms for one in self.readers):
            self.node.sender.advance_clock(SPAN_MS)
        return False

    def _has(self, reader: Reader, end: Sent) -> bool:
        client, place = reader.opened.client, reader.opened.client.stream.last_event_id
        if self.log.is_over(reader):
            return client.is_ended
        due = end.position if SYNC in reader.topics else self.log.newest_for(reader)
        return client.is_ended or (place != "" and self.log.place(place) >= due)

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            self.node.close()


TestCrossings = Crossings.TestCase
TestCrossings.settings = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    phases=(Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
