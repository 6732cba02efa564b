"""Deletions crossed with what else happens to streams: store reads under way, transferred history,
resumes, filters, types, envelopes, grants, own ids and eviction."""

import json
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fastsse.auth.rights import Rights
from fastsse.config import HistoryOptions
from fastsse.events import Event
from fastsse.positions import parse_id
from fastsse.subscriptions import Cursor, View
from tests.hub.onenode import Client, Node
from tests.hub.storednode import Disk

TOPICS = ("a", "b", "c/1")
VIEWS = (
    None,
    View(filter="data.even"),
    View(types=(b"x",)),
    View(envelope=True),
    View(notices=True),
    View(filter="data.even", notices=True, envelope=True),
)


def test_a_read_of_the_store_that_began_before_a_deletion_does_not_show_the_event() -> None:
    disk = Disk()
    first = Node(disk=disk)
    published = first.publish_all([Event("a", str(n)) for n in range(3)])
    first.close()
    node = Node(disk=disk)
    try:
        node.store.holds = True
        before = node.subscribe("a", cursor=Cursor("earliest"))
        node.publish_all([Event.deletion(("a",), published.positions[1], "")])
        after = node.subscribe("a", cursor=Cursor("earliest"))
        node.run_until(lambda: len(before.events) == len(after.events) == 2)
        assert before.data == after.data == ["0", "2"]
        again = node.subscribe("a", cursor=Cursor("last", 1))
        node.publish("a", "3")
        node.run_until(lambda: "3" in again.data)
        assert "1" not in again.data
        assert not before.gaps + after.gaps + again.gaps
    finally:
        node.close()


def test_history_that_comes_late_does_not_bring_a_deleted_event_back() -> None:
    source, node = Node(), Node()
    try:
        published = source.publish_all([Event(("a", "b"), str(n), id=f"own{n}") for n in range(3)])
        entries = source.hub.history.entries(0)
        node.hub.history.expect(published.positions[-1])
        node.now_ms += 1_000
        node.publish_all([Event.deletion(("a", "b"), published.positions[1], "own1")])
        older = node.hub.history.older()
        older.add(entries)
        node.hub.history.prepend(older, source.hub.history.evictions())
        older.release()
        frames = node.hub.history.page(None, 0).frames
        assert [b"data: 1\n" in frame.body for frame in frames if frame.events] == [False, False]
        assert node.hub.history.find(b"own1") == published.positions[1]
    finally:
        source.close()
        node.close()


@dataclass
class Sent:
    """An event, as the model knows it."""

    position: int
    topics: tuple[str, ...]
    number: int
    is_x: bool
    is_private: bool
    is_deleted: bool = False


@dataclass
class Reader:
    """A client over all of its connections, and what it must have received."""

    topics: tuple[str, ...]
    view: View | None
    rights: Rights | None
    client: Client | None = None
    expected: list[str] = field(default_factory=list)
    received: list[str] = field(default_factory=list)
    place: str = ""

    def wants(self, event: Sent) -> bool:
        view = self.view or View()
        if not set(self.topics) & set(event.topics) or (event.is_private and self.rights is None):
            return False
        if view.types and not event.is_x:
            return False
        return view.filter is None or event.number % 2 == 0

    def shown(self, messages: list) -> list[str]:
        """What of a stream counts: events by their number, notices by what they say."""
        found = []
        for message in messages:
            body = json.loads(message.data) if message.data else {}
            if message.type == "fastsse.deleted":
                found.append(f"{body['op']} {body.get('id') or body['through']}")
            elif message.data:
                body = body["data"] if self.view is not None and self.view.envelope else body
                found.append(str(body["n"]))
        return found


class Deletions(RuleBasedStateMachine):
    """Everything is kept, so nothing may be missing: no gap ever comes."""

    def __init__(self) -> None:
        super().__init__()
        self.node = Node(HistoryOptions(history_events=1_000))
        self.sent: list[Sent] = []
        self.notices: list[tuple[int, tuple[str, ...], bool, str]] = []
        self.readers: list[Reader] = []
        self.start = self.node.publish("start", "{}")

    @rule(
        topics=st.lists(st.sampled_from(TOPICS), min_size=1, max_size=2, unique=True),
        is_x=st.booleans(),
        is_private=st.booleans(),
        has_id=st.booleans(),
    )
    def publish(self, topics: list[str], is_x: bool, is_private: bool, has_id: bool) -> None:
        number = len(self.sent)
        data = json.dumps({"n": number, "even": number % 2 == 0})
        own = f"own{number}" if has_id else None
        event = Event(topics, data, "x" if is_x else None, own, private=is_private, data_kind=1)
        (position,) = self.node.publish_all([event]).positions
        one = Sent(position, tuple(topics), number, is_x, is_private)
        self.sent.append(one)
        for reader in self.readers:
            if reader.client is not None and reader.wants(one):
                reader.expected.append(str(number))

    @precondition(lambda self: any(not one.is_deleted for one in self.sent))
    @rule(choice=st.integers(0, 1_000))
    def delete(self, choice: int) -> None:
        kept = [one for one in self.sent if not one.is_deleted]
        one = kept[choice % len(kept)]
        entry = self.node.hub.history.entry_at(one.position)
        assert entry is not None
        own = "" if entry.own_id is None else entry.own_id.decode()
        shown = own or f"{one.position >> 64}-{one.position & (1 << 64) - 1}"
        outcomes: list = []
        self.node.hub.delete_event(one.topics[0], shown, outcomes.append)
        one.is_deleted = True
        self._notice(outcomes[0].positions[0], one.topics, one.is_private, f"delete {shown}")

    @precondition(lambda self: any(not one.is_deleted for one in self.sent))
    @rule(choice=st.integers(0, 1_000))
    def purge(self, choice: int) -> None:
        kept = [one for one in self.sent if not one.is_deleted]
        topic = kept[choice % len(kept)].topics[0]
        outcomes: list = []
        self.node.hub.purge_topic(topic, outcomes.append)
        for one in self.sent:
            one.is_deleted |= topic in one.topics
        text = outcomes[0].last.decode()
        self._notice(outcomes[0].positions[0], (topic,), False, f"purge {text}")

    def _notice(self, position: int, topics: tuple[str, ...], private: bool, text: str) -> None:
        self.notices.append((position, topics, private, text))
        for reader in self.readers:
            if reader.client is not None and self._gets(reader, topics, private):
                reader.expected.append(text)

    def _gets(self, reader: Reader, topics: tuple[str, ...], private: bool) -> bool:
        has_notices = reader.view is not None and reader.view.notices
        may_read = not private or reader.rights is not None
        return has_notices and may_read and bool(set(reader.topics) & set(topics))

    @precondition(lambda self: len(self.readers) < 6)
    @rule(
        topics=st.lists(st.sampled_from(TOPICS), min_size=1, max_size=3, unique=True),
        view=st.sampled_from(VIEWS),
        is_granted=st.booleans(),
    )
    def begin(self, topics: list[str], view: View | None, is_granted: bool) -> None:
        rights = Rights(subscribe=("*",)) if is_granted else None
        reader = Reader(tuple(topics), view, rights, place=self.start)
        self.readers.append(reader)
        self._open(reader)

    @precondition(lambda self: any(one.client is None for one in self.readers))
    @rule(choice=st.integers(0, 100))
    def come_back(self, choice: int) -> None:
        away = [one for one in self.readers if one.client is None]
        self._open(away[choice % len(away)])

    def _open(self, reader: Reader) -> None:
        after = parse_id(reader.place.encode())
        assert after is not None
        missed = [
            (one.position, str(one.number))
            for one in self.sent
            if not one.is_deleted and reader.wants(one)
        ]
        missed += [
            (at, text)
            for at, topics, private, text in self.notices
            if self._gets(reader, topics, private)
        ]
        reader.expected += [text for at, text in sorted(missed) if at > after]
        reader.client = self.node.resume(
            *reader.topics, after=reader.place, view=reader.view, rights=reader.rights
        )

    @precondition(lambda self: any(one.client is not None for one in self.readers))
    @rule(choice=st.integers(0, 100))
    def cut(self, choice: int) -> None:
        live = [one for one in self.readers if one.client is not None]
        reader = live[choice % len(live)]
        self._settle()
        assert reader.client is not None
        messages = reader.client.stream.events
        reader.received += reader.shown(messages)
        # A client may have been moved past what it was not sent; its own ids are places too.
        place = messages[-1].last_event_id if messages else ""
        reader.place = self._position_of(place) or reader.place
        self.node.hang_up(reader.client)
        reader.client = None

    def _position_of(self, event_id: str) -> str:
        if not event_id or parse_id(event_id.encode()) is not None:
            return event_id
        place = self.node.hub.history.find(event_id.encode())
        assert place is not None, "an own id is a place, also of a deleted event"
        return f"{place >> 64}-{place & (1 << 64) - 1}"

    def _settle(self) -> None:
        self.node.run_until(
            lambda: all(
                len(reader.received) + len(reader.shown(reader.client.stream.events))
                >= len(reader.expected)
                for reader in self.readers
                if reader.client is not None
            )
        )

    @invariant()
    def everyone_has_what_it_must_have(self) -> None:
        self._settle()
        for reader in self.readers:
            if reader.client is not None:
                assert not reader.client.gaps
                shown = reader.received + reader.shown(reader.client.stream.events)
                assert shown == reader.expected
            else:
                assert reader.received == reader.expected

    def teardown(self) -> None:
        self.node.close()


TestDeletions = Deletions.TestCase
TestDeletions.settings = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
