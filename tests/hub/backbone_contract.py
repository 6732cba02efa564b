"""What every backbone promises. A backbone's test module makes a class from `BackboneContract` that
says how to open one, and has all these tests run on it."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import pairwise

import pytest

from fastsse.backbone import Backbone, Stretch
from fastsse.errors import FastsseError, Refused
from fastsse.events import Event

START_MS = 1_700_000_000_000
EVERY_FIELD = Event(("a", "b"), "line 1\nline 2", event="tick", id="mine", retry=2500, private=True)


def same(left: Event, right: Event) -> bool:
    return all(getattr(left, name) == getattr(right, name) for name in Event.__slots__)


class Tail:
    """What a backbone delivers and acknowledges, in the order in which it does."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.positions: list[int] = []
        self.events: list[Event] = []
        self.calls: list[str] = []
        backbone.tail(backbone.head, self._deliver)

    def _deliver(self, positions: Sequence[int], events: Sequence[Event]) -> None:
        assert len(positions) == len(events) > 0
        self.positions += positions
        self.events += events
        self.calls.append(f"deliver {len(events)}")

    def append(self, *events: Event) -> "asyncio.Future[list[int]]":
        """The positions that a batch gets, once it is acknowledged."""
        answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

        def done(outcome: Sequence[int] | FastsseError) -> None:
            self.calls.append(f"acknowledge {len(events)}")
            if isinstance(outcome, FastsseError):
                answer.set_exception(outcome)
            else:
                answer.set_result(list(outcome))

        self.backbone.append(events, done)
        return answer

    async def read(
        self, topics: Sequence[str] | None, after: int, limit_bytes: int = 1 << 20
    ) -> Stretch:
        answer: asyncio.Future[Stretch] = asyncio.get_running_loop().create_future()

        def done(outcome: Stretch | FastsseError) -> None:
            assert isinstance(outcome, Stretch)
            answer.set_result(outcome)

        self.backbone.read(topics, after, limit_bytes, done)
        return await answer

    async def read_all(
        self, topics: Sequence[str] | None, after: int, limit_bytes: int
    ) -> list[tuple[int, Event]]:
        """Everything stored after a place, page by page."""
        found: list[tuple[int, Event]] = []
        while True:
            stretch = await self.read(topics, after, limit_bytes)
            assert stretch.is_last or stretch.through > after
            found += zip(stretch.positions, stretch.events, strict=True)
            if stretch.is_last:
                return found
            after = stretch.through


class BackboneContract(ABC):
    """The promises. `now_ms` is what the backbone's clock says."""

    now_ms = START_MS

    @abstractmethod
    def open(self) -> AbstractAsyncContextManager[Backbone]:
        """A new backbone on new storage, closed at the end."""

    @asynccontextmanager
    async def tail(self) -> AsyncIterator[Tail]:
        async with self.open() as backbone:
            yield Tail(backbone)

    async def test_a_batch_is_delivered_whole_and_then_acknowledged(self) -> None:
        async with self.tail() as tail:
            positions = await tail.append(EVERY_FIELD, Event("b", "2"), Event("a", "3"))
            assert tail.calls == ["deliver 3", "acknowledge 3"]
            assert tail.positions == positions
            assert tail.backbone.head == positions[-1]

    async def test_events_come_back_as_they_were_appended(self) -> None:
        async with self.tail() as tail:
            events = [EVERY_FIELD, Event("a"), Event("é", "\r\n\r", event="x")]
            await tail.append(*events)
            assert all(map(same, tail.events, events))

    async def test_positions_only_go_up_however_the_clock_jumps(self) -> None:
        async with self.tail() as tail:
            before = tail.backbone.head
            for jump_ms in (0, 1, -86_400_000, 5, 86_400_000, -1):
                self.now_ms += jump_ms
                await tail.append(Event("a"), Event("a"))
            assert all(first < second for first, second in pairwise([before, *tail.positions]))

    async def test_batches_under_way_together_keep_their_order(self) -> None:
        async with self.tail() as tail:
            answers = [tail.append(Event("a", str(index)), Event("a")) for index in range(20)]
            positions = [position for answer in answers for position in await answer]
            assert positions == sorted(positions) == tail.positions
            assert [event.data for event in tail.events[::2]] == [b"%d" % n for n in range(20)]

    @pytest.mark.parametrize("limit_bytes", [1, 100, 1 << 20])
    async def test_reading_leaves_nothing_out_after_what_was_evicted(
        self, limit_bytes: int
    ) -> None:
        async with self.tail() as tail:
            start = tail.backbone.head
            for index in range(20):
                await tail.append(Event(["a", "b", "ab"][index % 3], str(index)), Event("c"))
            for topics in (None, ["a"], ["a", "b"], ["nothing"]):
                for after in (start, *tail.positions[::7], tail.positions[-1]):
                    found = await tail.read_all(topics, after, limit_bytes)
                    evicted_through = (await tail.read(topics, after)).evicted_through
                    expected = [
                        position
                        for position, event in zip(tail.positions, tail.events, strict=True)
                        if topics is None or not set(topics).isdisjoint(event.topics)
                        if position > max(after, evicted_through)
                    ]
                    assert [position for position, _ in found] == expected

    async def test_after_it_is_closed_it_refuses(self) -> None:
        async with self.tail() as tail:
            await tail.append(Event("a"))
            await tail.backbone.close()
            with pytest.raises(Refused) as caught:
                await tail.append(Event("a"))
            assert caught.value.reason == "backbone"
            assert caught.value.retry_after_s > 0
            assert len(tail.events) == 1
