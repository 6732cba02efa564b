"""What every backbone promises. A backbone's test module makes a class from `BackboneContract` that
says how to open one, and has all these tests run on it.

What a backbone stores, and for how long, is its own affair: `evicted_through` says from where on
it must find everything.

Over 400 lines: what a backbone promises is one list, which the author of a backbone reads here.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import pairwise

import pytest

from fastsse._core import Frame
from fastsse.backbone import Backbone, Stretch
from fastsse.backbone.judge import JudgedPositions
from fastsse.backbone.keys import KeyTable
from fastsse.backbone.memory import MemoryBackbone
from fastsse.backbone.producers import ProducerTable
from fastsse.backbone.stream_table import StreamTable
from fastsse.config import Config
from fastsse.directives import END, Directives, Producer, RequestKey, producer_key
from fastsse.entries import Entry, encode_entries
from fastsse.errors import (
    FastsseError,
    KeyReused,
    PreconditionFailed,
    ProducerFenced,
    SequenceGap,
    SequenceRegressed,
    StreamChanged,
    StreamImmutable,
    StreamTypeMismatch,
    TopicEnded,
    Unavailable,
)
from fastsse.events import DATA_JSON, Event
from fastsse.hub.history import History
from fastsse.hub.topics import Rules, Topics
from fastsse.positions import format_position
from fastsse.streamstate import (
    Segment,
    StreamAsk,
    StreamConfig,
    StreamControl,
    StreamOp,
    StreamRow,
)
from fastsse.subscriptions import Cursor

START_MS = 1_700_000_000_000
TEXT_STREAM = StreamConfig("text/plain")
EVERY_FIELD = Event(
    ("a", "b"),
    '{"n":\n1}',
    event="tick",
    id="mine",
    retry=2500,
    private=True,
    meta={"tenant": "acmé", "level": 3, "share": 0.5, "test": False},
    data_kind=DATA_JSON,
)
# A topic of these matches a template too.
MIXED_TOPICS = ("a", "b", "t/1")
SELECTORS = {
    ("*",): {"a", "b", "c", "t/1"},
    ("a",): {"a"},
    ("a", "b"): {"a", "b"},
    ("nothing",): set[str](),
    ("t/{id}",): {"t/1"},
    ("a", "t/{id}"): {"a", "t/1"},
}


def keyed(topic: str, key: str) -> Event:
    return Event(topic, key, directives=Directives(key=key.encode()))


def requested(key: str, digest: bytes, *topics: str) -> list[Event]:
    request = RequestKey(key.encode(), digest * 16, len(topics))
    first, *others = topics
    return [Event(first, directives=Directives(request=request)), *map(Event, others)]


def appended(
    topic: str, sequence: int, *, epoch: int = 0, name: str = "p", strict: bool = False
) -> Event:
    producer = Producer(producer_key(topic, name.encode()), epoch, sequence, strict)
    return Event(topic, f"{epoch}.{sequence}", directives=Directives(producer=producer))


def of_stream(
    op: StreamOp, topic: str, generation: int = 0, config: StreamConfig = TEXT_STREAM
) -> Event:
    control = StreamControl(op, config if op == "create" else None).encode()
    ask = StreamAsk(op, generation)
    return Event(topic, directives=Directives(control=control, stream=ask))


def to_stream(topic: str, generation: int, data: str = "x", seq: bytes | None = None) -> Event:
    ask = StreamAsk("append", generation, seq)
    return Event(topic, data, directives=Directives(stream=ask))


def expecting(topic: str, expect: str, own_id: str | None = None) -> Event:
    return Event(topic, id=own_id, directives=Directives(expect=expect.encode()))


def same(left: Entry, right: Entry) -> bool:
    """Whether two entries are the same event, to the last byte."""
    return (left[:3], left.extras, _of(left.frame)) == (right[:3], right.extras, _of(right.frame))


def _of(frame: Frame) -> tuple[bytes, int, bool, int]:
    return frame.body, frame.position, frame.private, frame.data_kind


class Tail:
    """What a backbone delivers and acknowledges, in the order in which it does."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.entries: list[Entry] = []
        self.calls: list[str] = []
        self.broken: list[tuple[str, int]] = []
        self._history: History | None = None
        if isinstance(backbone, MemoryBackbone) and backbone.states is None:
            # Its hub's.
            topics = Topics(Rules(Config(), "disconnect"), backbone.start)
            self._history = History(topics, 1 << 30, backbone.start)
            self._intern = topics.intern
            backbone.states = self._history
            backbone.keys = KeyTable(600_000, 1 << 20, lambda: START_MS)
            backbone.producers = ProducerTable(600_000, 1 << 20, lambda: START_MS)
            backbone.streams = StreamTable(1 << 20, lambda: START_MS)
        backbone.tail(
            backbone.start, self._deliver, lambda why, place: self.broken.append((why, place))
        )

    @property
    def positions(self) -> list[int]:
        return [entry.position for entry in self.entries]

    def _deliver(self, entries: Sequence[Entry]) -> None:
        assert len(entries) > 0
        self.entries += entries
        if self._history is not None:
            for _, names, own_id, frame, extras in entries:
                self._history.append(frame, tuple(map(self._intern, names)), own_id, extras)
        self.calls.append(f"deliver {len(entries)}")

    def append(self, *events: Event) -> "asyncio.Future[list[int]]":
        """The positions that a batch gets, once it is acknowledged."""
        answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

        def done(outcome: Sequence[int] | FastsseError) -> None:
            self.calls.append(f"acknowledge {len(events)}")
            if isinstance(outcome, FastsseError):
                answer.set_exception(outcome)
            else:
                answer.set_result(
                    outcome if isinstance(outcome, JudgedPositions) else list(outcome)
                )

        self.backbone.append(events, done)
        return answer

    async def read(
        self, selectors: tuple[str, ...], after: int, limit_bytes: int = 1 << 20
    ) -> Stretch:
        answer: asyncio.Future[Stretch] = asyncio.get_running_loop().create_future()

        def done(outcome: Stretch | FastsseError) -> None:
            assert isinstance(outcome, Stretch)
            answer.set_result(outcome)

        self.backbone.read(selectors, after, limit_bytes, done)
        return await answer

    async def stream(self, topic: str) -> StreamRow | None:
        """The row of a durable stream."""
        answer: asyncio.Future[dict[str, StreamRow]] = asyncio.get_running_loop().create_future()

        def done(outcome: dict[str, StreamRow] | FastsseError) -> None:
            assert isinstance(outcome, dict)
            answer.set_result(outcome)

        self.backbone.find_streams((topic,), done)
        return (await answer).get(topic)

    async def read_all(
        self, selectors: tuple[str, ...], after: int, limit_bytes: int
    ) -> list[Entry]:
        """Everything stored after a place, page by page."""
        found: list[Entry] = []
        while True:
            stretch = await self.read(selectors, after, limit_bytes)
            assert stretch.is_last or stretch.through > after
            assert stretch.through <= self.backbone.head
            assert all(after < entry.position <= stretch.through for entry in stretch.entries)
            found += stretch.entries
            if stretch.is_last:
                return found
            after = stretch.through

    async def seek(self, selectors: tuple[str, ...], cursor: Cursor) -> int | None:
        answer: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

        def done(outcome: int | FastsseError | None) -> None:
            assert not isinstance(outcome, FastsseError)
            answer.set_result(outcome)

        self.backbone.seek(selectors, cursor, done)
        return await answer

    async def newest(
        self, selectors: tuple[str, ...], count: int, limit_bytes: int = 1 << 20
    ) -> Stretch:
        answer: asyncio.Future[Stretch] = asyncio.get_running_loop().create_future()

        def done(outcome: Stretch | FastsseError) -> None:
            assert isinstance(outcome, Stretch)
            answer.set_result(outcome)

        self.backbone.newest(selectors, count, limit_bytes, done)
        return await answer

    async def ended(self, *topics: str) -> dict[str, int]:
        answer: asyncio.Future[dict[str, int]] = asyncio.get_running_loop().create_future()

        def done(outcome: dict[str, int] | FastsseError) -> None:
            assert not isinstance(outcome, FastsseError)
            answer.set_result(outcome)

        self.backbone.ended_topics(topics, done)
        return await answer

    async def keeps(self, position: int) -> bool:
        """Whether the backbone promises to have stored what lies at a position."""
        stretch = await self.read(("*",), 0)
        return stretch.evicted_through < position


class BackboneContract(ABC):
    """The promises. `now_ms` is what the backbone's clock says."""

    now_ms = START_MS

    @abstractmethod
    def open(self) -> AbstractAsyncContextManager[Backbone]:
        """A new backbone on new storage, closed at the end."""

    async def is_ready(self, tail: Tail) -> None:
        """Waits until control entries can be written."""
        assert tail.backbone.trouble is None

    @asynccontextmanager
    async def tail(self) -> AsyncIterator[Tail]:
        async with self.open() as backbone:
            tail = Tail(backbone)
            await self.is_ready(tail)
            yield tail

    async def test_a_batch_is_delivered_whole_and_then_acknowledged(self) -> None:
        async with self.tail() as tail:
            positions = await tail.append(EVERY_FIELD, Event("b", "2"), Event("a", "3"))
            assert tail.calls == ["deliver 3", "acknowledge 3"]
            assert tail.positions == positions
            assert tail.backbone.head == positions[-1]

    async def test_events_come_back_as_they_were_appended(self) -> None:
        async with self.tail() as tail:
            events = [
                EVERY_FIELD,
                Event("a"),
                Event("é", "\r\n\r", event="x"),
                Event("a", "a UUID for an id", id_style="uuid"),
            ]
            positions = await tail.append(*events)
            assert all(map(same, tail.entries, encode_entries(positions, events)))

    async def test_positions_only_go_up_however_the_clock_jumps(self) -> None:
        async with self.tail() as tail:
            before = tail.backbone.head
            assert tail.backbone.start <= before
            for jump_ms in (0, 1, -86_400_000, 5, 86_400_000, -1):
                self.now_ms += jump_ms
                await tail.append(Event("a"), Event("a"))
            assert all(first < second for first, second in pairwise([before, *tail.positions]))

    async def test_batches_under_way_together_keep_their_order(self) -> None:
        async with self.tail() as tail:
            answers = [tail.append(Event("a", str(index)), Event("a")) for index in range(20)]
            positions = [position for answer in answers for position in await answer]
            assert positions == sorted(positions) == tail.positions
            bodies = [entry.frame.body for entry in tail.entries[::2]]
            assert all(b"data: %d\n" % index in body for index, body in enumerate(bodies))

    @pytest.mark.parametrize("limit_bytes", [1, 100, 1 << 20])
    async def test_reading_leaves_nothing_out_after_what_was_evicted(
        self, limit_bytes: int
    ) -> None:
        async with self.tail() as tail:
            start = tail.backbone.head
            for index in range(20):
                await tail.append(
                    Event(MIXED_TOPICS[index % 3], str(index), private=index % 4 == 0), Event("c")
                )
            for selectors, topics in SELECTORS.items():
                for after in (start, *tail.positions[::7], tail.positions[-1]):
                    found = await tail.read_all(selectors, after, limit_bytes)
                    evicted_through = (await tail.read(selectors, after)).evicted_through
                    expected = [
                        entry
                        for entry in tail.entries
                        if not topics.isdisjoint(entry.topics)
                        if entry.position > max(after, evicted_through)
                    ]
                    assert len(found) == len(expected)
                    assert all(map(same, found, expected))

    async def test_an_event_that_several_selectors_match_is_read_once(self) -> None:
        async with self.tail() as tail:
            await tail.append(Event(("a", "b", "t/1"), "once"), Event("c"))
            found = await tail.read_all(("a", "b", "t/{id}"), tail.backbone.start, 1 << 20)
            expected = [entry for entry in tail.entries[:1] if await tail.keeps(entry.position)]
            assert [entry.position for entry in found] == [entry.position for entry in expected]

    async def test_an_own_id_is_found_at_its_earliest_event(self) -> None:
        async with self.tail() as tail:
            first, *_ = await tail.append(Event("a", id="x y"), Event("b"), Event("b", id="x y"))
            place = first if await tail.keeps(first) else None
            assert await tail.seek(("a",), Cursor("after", "x y")) == place
            assert await tail.seek(("b",), Cursor("after", " x y\t")) == place
            assert await tail.seek(("a",), Cursor("after", "unknown")) is None

    async def test_a_position_in_the_future_is_nowhere(self) -> None:
        async with self.tail() as tail:
            (position,) = await tail.append(Event("a"))
            later = format_position(position + (60_000 << 64))
            assert await tail.seek(("a",), Cursor("after", later)) is None

    @pytest.mark.parametrize("selectors", SELECTORS)
    async def test_the_last_n_begin_before_the_nth_newest_that_matches(
        self, selectors: tuple[str, ...]
    ) -> None:
        async with self.tail() as tail:
            for index in range(9):
                await tail.append(Event(MIXED_TOPICS[index % 3]), Event("c"))
            evicted_through = (await tail.read(selectors, 0)).evicted_through
            kept = [
                entry.position
                for entry in tail.entries
                if not SELECTORS[selectors].isdisjoint(entry.topics)
                if entry.position > evicted_through
            ]
            for count in (1, 2, 3, 100):
                place = await tail.seek(selectors, Cursor("last", count))
                if count > len(kept):
                    assert place is None
                else:
                    assert place is not None
                    found = await tail.read_all(selectors, place, 1 << 20)
                    assert [entry.position for entry in found] == kept[-count:]

    @pytest.mark.parametrize("count", [1, 2, 100])
    @pytest.mark.parametrize("selectors", SELECTORS)
    async def test_the_newest_of_each_topic_are_given_once_and_in_order(
        self, selectors: tuple[str, ...], count: int
    ) -> None:
        async with self.tail() as tail:
            for index in range(12):
                await tail.append(
                    Event(MIXED_TOPICS[index % 3], str(index)), Event("c", private=True)
                )
            await tail.append(Event(("a", "c"), "of two topics"))
            stretch = await tail.newest(selectors, count)
            assert stretch.is_last
            assert stretch.through == tail.backbone.head
            if not stretch.entries:
                # A backbone that stores nothing of its own.
                assert SELECTORS[selectors] == set() or not await tail.keeps(tail.positions[-1])
                return
            wanted: set[int] = set()
            for topic in SELECTORS[selectors]:
                of_topic = [entry for entry in tail.entries if topic in entry.topics]
                wanted |= {entry.position for entry in of_topic[-count:]}
            expected = [entry for entry in tail.entries if entry.position in wanted]
            assert len(stretch.entries) == len(expected)
            assert all(map(same, stretch.entries, expected))

    async def test_of_too_many_bytes_the_newest_are_given(self) -> None:
        async with self.tail() as tail:
            await tail.append(*(Event(topic, "x" * 1000) for topic in MIXED_TOPICS if topic != "b"))
            stretch = await tail.newest(("a", "t/1"), 1, 1500)
            if not await tail.keeps(tail.positions[-1]):
                assert not stretch.entries
                return
            assert [entry.topics for entry in stretch.entries] == [("t/1",)]
            assert not stretch.is_last

    async def test_an_ended_topic_takes_no_more_events_and_others_do(self) -> None:
        async with self.tail() as tail:
            (before,) = await tail.append(Event("run/1", "a"))
            (end,) = await tail.append(Event.end("run/1"))
            assert end > before
            refused = [tail.append(Event("run/1", "b")), tail.append(Event(("x", "run/1"), "b"))]
            taken = tail.append(Event("run/2", "c"))
            for one in refused:
                with pytest.raises(TopicEnded) as caught:
                    await one
                assert caught.value.topic == "run/1"
            assert (await taken)[0] > end
            assert [entry.topics for entry in tail.entries] == [("run/1",), ("run/1",), ("run/2",)]
            (extras,) = [entry.extras for entry in tail.entries if entry.position == end]
            assert extras is not None
            assert extras.control == END

    async def test_what_is_published_in_one_turn_is_judged_one_by_one(self) -> None:
        async with self.tail() as tail:
            end = tail.append(Event.end("run"))
            first, second, third = (tail.append(Event(name)) for name in ("a", "run", "b"))
            assert await first < await third
            with pytest.raises(TopicEnded):
                await second
            assert len(await end) == 1

    async def test_an_end_and_what_follows_it_in_one_batch_are_judged_in_their_order(self) -> None:
        async with self.tail() as tail:
            with pytest.raises(TopicEnded):
                await tail.append(Event("run"), Event.end("run"), Event("run"))
            assert tail.entries == []
            positions = await tail.append(Event("run"), Event.end("run"))
            assert positions == tail.positions

    async def test_a_second_end_is_answered_with_the_first(self) -> None:
        async with self.tail() as tail:
            (end,) = await tail.append(Event.end("run"))
            assert await tail.append(Event.end("run")) == [end]
            (longer,) = await tail.append(Event.end(("run", "other")))
            assert longer > end
            assert len(tail.entries) == 2

    async def test_the_store_knows_the_ends_that_it_keeps(self) -> None:
        async with self.tail() as tail:
            await tail.append(Event("a"), Event("b"))
            (end,) = await tail.append(Event.end("a"))
            if tail.backbone.has_ended:
                assert await tail.ended("a", "b", "nothing") == {"a": end}
            else:
                assert await tail.ended("a", "b") == {}

    async def test_the_last_n_do_not_count_control_entries(self) -> None:
        async with self.tail() as tail:
            await tail.append(Event("a", "1"))
            await tail.append(Event("a", "2"), Event.end("a"))
            place = await tail.seek(("a",), Cursor("last", 1))
            if place is not None:
                found = await tail.read_all(("a",), place, 1 << 20)
                assert [entry.frame.events for entry in found] == [1, 0]

    async def test_an_event_with_a_known_key_is_not_stored_again(self) -> None:
        async with self.tail() as tail:
            first = await tail.append(keyed("a", "k1"), keyed("a", "k2"), keyed("b", "k1"))
            assert first[2] == first[0]
            again = await tail.append(keyed("a", "k2"), keyed("a", "k3"), Event("a"))
            assert again[0] == first[1]
            assert isinstance(again, JudgedPositions)
            assert again.duplicates == 1
            assert await tail.append(keyed("a", "k1")) == first[:1]
            assert tail.positions == [*first[:2], *again[1:]]

    async def test_keys_are_judged_before_the_state_of_topics(self) -> None:
        async with self.tail() as tail:
            first = await tail.append(keyed("run", "k"), Event.end("run"))
            assert await tail.append(keyed("run", "k"), Event.end("run")) == first
            with pytest.raises(TopicEnded):
                await tail.append(keyed("run", "other"))

    async def test_a_request_is_stored_once_and_its_key_is_for_no_other(self) -> None:
        async with self.tail() as tail:
            first = await tail.append(*requested("k", b"1", "a", "b"))
            again = tail.append(*requested("k", b"1", "a", "b"))
            other = tail.append(*requested("k", b"2", "a", "b"))
            assert await again == first
            with pytest.raises(KeyReused):
                await other
            assert tail.positions == first
            assert await tail.append(*requested("k2", b"1", "a", "b")) > first

    async def test_an_append_of_a_producer_is_stored_once_however_often_it_is_sent(self) -> None:
        async with self.tail() as tail:
            first = await tail.append(appended("a", 5))
            later = await tail.append(appended("a", 7), appended("a", 7), Event("a"))
            for old, place in ((5, later[1]), (7, later[1]), (6, later[1])):
                again = await tail.append(appended("a", old))
                assert again == [place]
                assert isinstance(again, JudgedPositions)
                assert (again.duplicates, again.sequence) == (1, 7)
            mixed = await tail.append(
                appended("a", 7), appended("a", 8), appended("a", 7, name="q")
            )
            assert mixed[0] == later[1]
            assert isinstance(mixed, JudgedPositions)
            assert (mixed.duplicates, mixed.sequence) == (1, 8)
            assert tail.positions == [*first, *later, *mixed[1:]]

    async def test_repeats_of_a_batch_are_known_as_a_whole(self) -> None:
        async with self.tail() as tail:
            batch = [appended("a", n, strict=True) for n in (0, 1, 1, 2)]
            first = await tail.append(*batch)
            again = await tail.append(*batch)
            assert again == [first[3]] * 4
            assert tail.positions == first

    async def test_a_producer_with_an_older_epoch_is_refused(self) -> None:
        async with self.tail() as tail:
            await tail.append(appended("a", 0, epoch=3, strict=True))
            with pytest.raises(ProducerFenced) as caught:
                await tail.append(appended("a", 1, epoch=2, strict=True))
            assert (caught.value.epoch, caught.value.status) == (3, 403)
            await tail.append(appended("a", 0, epoch=4, strict=True))
            assert len(tail.entries) == 2

    @pytest.mark.parametrize(
        ("known", "sent", "found"),
        [
            (None, (0, 1), (0, 1, None)),
            ((0, 0), (0, 2), (1, 2, 0)),
            ((2, 5), (3, 1), (0, 1, 2)),
        ],
        ids=["new", "same epoch", "new epoch"],
    )
    async def test_an_append_that_others_are_missing_before_is_refused_where_asked(
        self, known: tuple[int, int] | None, sent: tuple[int, int], found: tuple[object, ...]
    ) -> None:
        async with self.tail() as tail:
            if known is not None:
                await tail.append(appended("a", known[1], epoch=known[0]))
            with pytest.raises(SequenceGap) as caught:
                await tail.append(appended("a", sent[1], epoch=sent[0], strict=True))
            error = caught.value
            assert (error.expected, error.received, error.epoch) == found
            assert len(await tail.append(appended("a", sent[1], epoch=sent[0]))) == 1

    async def test_a_batch_that_is_refused_leaves_its_producers_as_they_were(self) -> None:
        async with self.tail() as tail:
            await tail.append(Event.end("run"))
            with pytest.raises(TopicEnded):
                await tail.append(appended("a", 0, strict=True), Event("run"))
            assert len(await tail.append(appended("a", 0, strict=True))) == 1
            assert len(tail.entries) == 2

    async def test_a_repeat_of_the_append_that_ended_a_topic_is_known(self) -> None:
        async with self.tail() as tail:
            end = Event.end("run")
            producer = Producer(producer_key("run", b"p"), 0, 0)
            end.direct(Directives(control=END, producer=producer))
            first = await tail.append(appended("run", 0), end)
            assert await tail.append(appended("run", 0), end) == [first[1]] * 2
            with pytest.raises(TopicEnded):
                await tail.append(appended("run", 1))

    async def test_a_stream_is_created_once_and_has_a_row_from_then_on(self) -> None:
        async with self.tail() as tail:
            assert await tail.stream("s") is None
            race = [tail.append(of_stream("create", "s")) for _ in "12"]
            outcomes = await asyncio.gather(*race, return_exceptions=True)
            assert [type(one) for one in outcomes].count(StreamChanged) == 1
            (generation,) = next(one for one in outcomes if isinstance(one, list))
            row = await tail.stream("s")
            assert row is not None
            assert (row.generation, row.tail, row.closed) == (generation, generation, 0)
            assert row.config == TEXT_STREAM

    async def test_a_row_has_the_end_of_a_stream_for_every_kind_of_append(self) -> None:
        async with self.tail() as tail:
            (generation,) = await tail.append(of_stream("create", "s"))
            await tail.append(to_stream("s", generation))
            (last,) = await tail.append(Event(("other", "s"), "plain"))
            row = await tail.stream("s")
            assert row is not None
            assert row.tail == last
            (closed,) = await tail.append(Event.end("s"))
            row = await tail.stream("s")
            assert row is not None
            assert (row.tail, row.closed) == (last, closed)

    async def test_an_append_to_another_generation_or_with_an_old_number_is_refused(self) -> None:
        async with self.tail() as tail:
            (generation,) = await tail.append(of_stream("create", "s"))
            await tail.append(to_stream("s", generation, seq=b"09"))
            for wrong, error in (
                (to_stream("s", generation, seq=b"09"), SequenceRegressed),
                (to_stream("s", generation, seq=b"0"), SequenceRegressed),
                (to_stream("s", generation - 1), StreamChanged),
                (to_stream("none", generation), StreamChanged),
            ):
                with pytest.raises(error):
                    await tail.append(wrong)
            assert len(await tail.append(to_stream("s", generation, seq=b"10"))) == 1
            assert len(tail.entries) == 3

    async def test_text_is_no_content_of_a_stream_of_json(self) -> None:
        async with self.tail() as tail:
            await tail.append(of_stream("create", "j", config=StreamConfig("application/json")))
            with pytest.raises(StreamTypeMismatch):
                await tail.append(Event("j", "text"))
            assert len(await tail.append(Event("j", "{}", data_kind=DATA_JSON))) == 1

    async def test_a_stream_with_forks_is_hidden_and_dropped_with_the_last_one(self) -> None:
        async with self.tail() as tail:
            (source,) = await tail.append(of_stream("create", "s"))
            config = TEXT_STREAM._replace(
                source="s", source_generation=source, segments=(Segment("s", 0, source),)
            )
            forks = [
                (await tail.append(of_stream("create", name, config=config)))[0] for name in "ab"
            ]
            with pytest.raises(StreamChanged):
                await tail.append(of_stream("drop", "s", source))
            await tail.append(of_stream("hide", "s", source))
            with pytest.raises(StreamChanged):
                await tail.append(to_stream("s", source))
            with pytest.raises(StreamChanged):
                await tail.append(of_stream("create", "c", config=config))
            await tail.append(of_stream("drop", "a", forks[0]))
            row = await tail.stream("s")
            assert row is not None
            assert (row.forks, row.is_hidden) == (1, True)
            both = of_stream("drop", "b", forks[1]), of_stream("drop", "s", source)
            await tail.append(*both)
            assert [await tail.stream(name) for name in "abs"] == [None] * 3

    async def test_a_stream_that_was_closed_and_dropped_can_be_created_again(self) -> None:
        async with self.tail() as tail:
            (first,) = await tail.append(of_stream("create", "s"))
            await tail.append(to_stream("s", first), Event.end("s"))
            drop = tail.append(of_stream("drop", "s", first))
            again = tail.append(of_stream("create", "s"))
            await drop
            (second,) = await again
            await tail.append(to_stream("s", second, "new"))
            row = await tail.stream("s")
            assert row is not None
            assert (row.generation, row.closed) == (second, 0)

    async def test_producers_of_a_stream_that_was_dropped_begin_again_in_the_next(self) -> None:
        def numbered(generation: int, epoch: int, sequence: int) -> Event:
            producer = Producer(producer_key("s", b"p"), epoch, sequence, True)
            ask = StreamAsk("append", generation)
            return Event("s", "x", directives=Directives(producer=producer, stream=ask))

        async with self.tail() as tail:
            (first,) = await tail.append(of_stream("create", "s"))
            for sequence in range(3):
                await tail.append(numbered(first, 4, sequence))
            await tail.append(of_stream("drop", "s", first))
            (second,) = await tail.append(of_stream("create", "s"))
            before = len(tail.entries)
            with pytest.raises(SequenceGap) as caught:
                await tail.append(numbered(second, 4, 3))
            assert caught.value.expected == 0
            places = [await tail.append(numbered(second, 0, sequence)) for sequence in range(3)]
            assert await tail.append(numbered(second, 0, 2)) == places[2]
            assert len(tail.entries) == before + 3

    async def test_an_event_is_stored_only_if_the_newest_is_the_expected_one(self) -> None:
        async with self.tail() as tail:
            (first,) = await tail.append(expecting("a", "earliest", own_id="one"))
            with pytest.raises(PreconditionFailed) as caught:
                await tail.append(expecting("a", "earliest"))
            assert caught.value.current == format_position(first).decode()
            await tail.append(Event("other"))
            (second,) = await tail.append(expecting("a", "one"))
            race = [tail.append(expecting("a", format_position(second).decode())) for _ in "12"]
            outcomes = await asyncio.gather(*race, return_exceptions=True)
            assert [type(one) for one in outcomes if not isinstance(one, list)] == [
                PreconditionFailed
            ]
            for wrong in ("one", "unknown", "1-1"):
                with pytest.raises(PreconditionFailed):
                    await tail.append(expecting("a", wrong))
            assert len(tail.entries) == 4

    async def test_a_time_to_live_is_kept_with_the_event(self) -> None:
        async with self.tail() as tail:
            await tail.append(Event("a", directives=Directives(ttl_ms=60_000)), Event("a"))
            mortal, other = tail.entries
            assert mortal.frame.expires_ms == mortal.frame.time_ms + 60_000
            assert other.frame.expires_ms == 0
            if await tail.keeps(tail.positions[0]):
                read = await tail.read_all(("a",), 0, 1 << 20)
                assert [entry.frame.expires_ms for entry in read] == [mortal.frame.expires_ms, 0]

    async def test_in_a_batch_each_event_sees_those_before_it(self) -> None:
        async with self.tail() as tail:
            chain = [expecting("a", "earliest", own_id="1"), expecting("a", "1", own_id="2")]
            assert len(await tail.append(*chain)) == 2
            with pytest.raises(PreconditionFailed):
                await tail.append(expecting("a", "2", own_id="3"), expecting("a", "2"))
            assert len(tail.entries) == 2

    async def test_a_deleted_event_is_read_no_more_and_nothing_else_is_missing(self) -> None:
        async with self.tail() as tail:
            one, two, three = await tail.append(
                Event("a", "one"),
                Event(("a", "b"), "two", id="mine", meta={"n": 1}, private=True),
                Event("a", "three", directives=Directives(ttl_ms=60_000)),
            )
            (control,) = await tail.append(Event.deletion(("a", "b"), two, "mine", private=True))
            later = await tail.append(Event("b", "later"))
            assert tail.positions == [one, two, three, control, *later]
            notice = tail.entries[3].frame
            assert (notice.events, notice.private) == (0, True)
            assert b'data: {"op":"delete","id":"mine"}' in notice.body
            if not await tail.keeps(one):
                return
            for selectors in (("a",), ("b",), ("a", "b"), ("*",), ("{x}",)):
                found = await tail.read_all(selectors, 0, 1 << 20)
                assert b"two" not in b"".join(entry.frame.body for entry in found)
                expected = [one, three, *later] if selectors != ("a",) else [one, three]
                expected = later if selectors == ("b",) else expected
                assert [one.position for one in found if one.frame.events] == expected
                newest = await tail.newest(selectors, 10)
                assert [entry.position for entry in newest.entries] == expected
                place = await tail.seek(selectors, Cursor("last", len(expected)))
                assert place == expected[0] - 1
            assert await tail.seek(("a",), Cursor("after", "mine")) == two
            assert (await tail.read(("a", "b"), two)).evicted_through <= one

    async def test_a_purge_empties_a_topic_and_takes_events_after_it(self) -> None:
        async with self.tail() as tail:
            await tail.append(Event("a", "1"), Event(("a", "b"), "2"), Event("b", "3"))
            await tail.append(Event("a", "4"), Event.end("a"))
            await tail.append(Event.purge("a"))
            with pytest.raises(TopicEnded):
                await tail.append(Event("a"))
            await tail.append(Event.purge("c"), Event("b", "5"))
            if not await tail.keeps(tail.positions[0]):
                return
            for selectors in (("a",), ("b",), ("*",), ("{x}",)):
                found = await tail.read_all(selectors, 0, 1 << 20)
                bodies = b"".join(entry.frame.body for entry in found if entry.frame.events)
                kept = {line[6:] for line in bodies.split(b"\n") if line.startswith(b"data: ")}
                assert kept == (set() if selectors == ("a",) else {b"3", b"5"})

    async def test_a_purge_that_would_take_content_out_of_a_stream_is_refused(self) -> None:
        async with self.tail() as tail:
            (before,) = await tail.append(Event(("a", "s"), "before"))
            (generation,) = await tail.append(of_stream("create", "s"))
            (content,) = await tail.append(Event(("s", "a"), "content"))
            for refused in (Event.purge("a"), Event.deletion(("s", "a"), content, "")):
                with pytest.raises(StreamImmutable) as caught:
                    await tail.append(refused)
                assert caught.value.topic == "s"
            positions = [before, generation, content]
            assert tail.positions == positions, "nothing of it was stored"
            if await tail.keeps(before):
                found = await tail.read_all(("a",), 0, 1 << 20)
                assert [one.position for one in found] == [before, content]
            # Content of a stream that is gone stands against nothing.
            await tail.append(of_stream("drop", "s", generation))
            await tail.append(Event.purge("a"))
            if await tail.keeps(before):
                found = await tail.read_all(("a",), 0, 1 << 20)
                assert not [one for one in found if one.frame.events]

    async def test_a_purge_in_the_commit_of_events_before_it_sees_them(self) -> None:
        async with self.tail() as tail:
            await tail.append(of_stream("create", "s"))
            both = [tail.append(Event(("a", "s"), "x")), tail.append(Event.purge("a"))]
            _, refused = await asyncio.gather(*both, return_exceptions=True)
            assert isinstance(refused, StreamImmutable)
            plain = Event("b", "1"), Event(("b", "c"), "2")
            both = [tail.append(*plain), tail.append(Event.purge("b"))]
            (first, _), _ = await asyncio.gather(*both)
            if await tail.keeps(first):
                found = await tail.read_all(("b", "c"), 0, 1 << 20)
                assert not [one for one in found if one.frame.events]

    async def test_a_publish_still_expects_the_newest_event_after_deletions(self) -> None:
        async with self.tail() as tail:
            first, second = await tail.append(Event("a", "1"), Event("a", "2"))
            await tail.append(Event.deletion(("a",), first, ""), Event.purge("other"))
            (third,) = await tail.append(expecting("a", format_position(second).decode()))
            await tail.append(Event.deletion(("a",), third, ""))
            await tail.append(expecting("a", format_position(third).decode()))
            await tail.append(Event.purge("a"))
            with pytest.raises(PreconditionFailed):
                await tail.append(expecting("a", "earliest"))

    async def test_a_deleted_event_with_a_key_is_still_known(self) -> None:
        async with self.tail() as tail:
            (first,) = await tail.append(keyed("a", "k"))
            await tail.append(Event.deletion(("a",), first, ""))
            assert await tail.append(keyed("a", "k")) == [first]

    async def test_all_is_well_until_it_is_closed(self) -> None:
        async with self.tail() as tail:
            await tail.append(Event("a"))
            assert tail.backbone.trouble is None
            assert all(type(count) is int for count in tail.backbone.counters().values())
            assert tail.broken == []

    async def test_after_it_is_closed_it_refuses(self) -> None:
        async with self.tail() as tail:
            await tail.append(Event("a"))
            await tail.backbone.close()
            with pytest.raises(Unavailable) as caught:
                await tail.append(Event("a"))
            assert caught.value.reason == "backbone"
            assert caught.value.retry_after_s > 0
            assert len(tail.entries) == 1
            assert tail.backbone.trouble
