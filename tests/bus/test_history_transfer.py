"""What is kept in memory is handed over next to the live log: to a worker that starts, and to a hub
that lost it. Whichever process dies meanwhile, nothing is missing, or a gap reports it.

Over 400 lines: the gate that holds histories back is used by every test here, and nowhere else.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from fastsse.backbone import Stretch
from fastsse.bus import history_transfer
from fastsse.bus.batch_ids import pack_batch_ids
from fastsse.bus.frames import VERSION, FrameKind, frame, pack_position
from fastsse.bus.handshake import Hello
from fastsse.bus.server import fanout, recovery
from fastsse.bus.server.memory import HubMemory
from fastsse.bus.server.session import Session
from fastsse.entries import encode_entries, pack_entry
from fastsse.errors import FastsseError, Unavailable
from fastsse.events import Event
from fastsse.paging import Pager
from fastsse.positions import position_at
from fastsse.subscriptions import Cursor
from tests.bus.onebus import Bus, End, a_bus, until
from tests.bus.test_sessions import KEY, RawWorker

EVENTS = 100


class Gate:
    """Where histories on their way wait behind their first event, until it is opened. The end of
    a log may pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_open = False
        self.held: list[Pager] = []
        self._go_on = Pager.go_on
        monkeypatch.setattr(recovery, "WAIT_S", 20.0)
        monkeypatch.setattr(history_transfer, "SLICE_BYTES", 1)
        monkeypatch.setattr(Pager, "go_on", lambda pager: self._pass(pager))

    def open(self) -> None:
        self.is_open = True
        while self.held:
            self._go_on(self.held.pop())

    def _pass(self, pager: Pager) -> None:
        if self.is_open or not any(_is_kept(pages) for pages, _ in pager._jobs):
            self._go_on(pager)
        else:
            self.held.append(pager)


def _is_kept(pages: Any) -> bool:
    """Whether a job of a pager hands over what is kept, and not the end of a log."""
    if getattr(pages, "gi_code", None) is not history_transfer._frames.__code__:
        return False
    end = pages.gi_frame.f_locals["end"]
    return not end.__qualname__.startswith("BusBackbone._on_last")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.held.clear()


@pytest.fixture
async def bus(gate: Gate) -> AsyncIterator[Bus]:
    async with a_bus() as bus:
        await bus.start()
        yield bus


async def fill(end: End, count: int = EVENTS) -> None:
    """Something to hand over."""
    await end.publish(*(Event(f"t{n % 7}", str(n), id=f"id{n}") for n in range(count)))


def kept(bus: Bus) -> HubMemory:
    assert bus.hub is not None
    memory = bus.hub.broker.kept
    assert memory is not None
    return memory


def positions_of(memory: HubMemory) -> list[int]:
    return [one.position for one in memory.history.entries(0, 1 << 30)]


async def asked_of(bus: Bus) -> Session:
    """The worker that the hub asks for what it keeps."""
    asked: list[Session] = []

    def is_asked() -> bool:
        assert bus.hub is not None
        asked[:] = [one for one in bus.hub.broker.sessions.values() if one._on_kept is not None]
        return bool(asked)

    await until(is_asked)
    return asked[0]


def same(*ends: End) -> bool:
    """Whether they keep the same, and have evicted the same."""
    first, *others = ends
    return all(
        other.kept == first.kept and other.history.evictions() == first.history.evictions()
        for other in others
    )


async def restart(bus: Bus, workers: int) -> None:
    await bus.stop()
    await bus.start(workers=workers, restarted=True)


async def test_a_worker_serves_before_it_has_what_was_kept(bus: Bus, gate: Gate) -> None:
    first = await bus.worker()
    await fill(first)
    second = await bus.newcomer()
    assert not second.backbone.is_whole
    assert second.backbone.counters()["bus_workers_filling"] == 1
    await second.publish(Event("a", "live"))
    assert second.data == [b"live"]
    assert not second.backbone.is_whole
    gate.open()
    await until(lambda: second.backbone.is_whole)
    assert second.backbone.counters()["bus_workers_filling"] == 0
    assert len(second.kept) == EVENTS + 1
    assert same(second, first)


async def test_readers_of_what_was_kept_wait_for_it(bus: Bus, gate: Gate) -> None:
    first = await bus.worker()
    await fill(first)
    second = await bus.newcomer()
    stretches: list[Stretch | FastsseError] = []
    places: list[int | FastsseError | None] = []
    live = second.backbone.head
    second.backbone.read(("t1",), 0, 1_000, stretches.append)
    second.backbone.seek(("*",), Cursor("after", "id7"), places.append)
    second.backbone.seek(("*",), Cursor("last", 3), places.append)
    # A place that memory has from the beginning needs no history.
    second.backbone.seek(("*",), Cursor("after", f"{live >> 64}-{live & 0xFFFF}"), places.append)
    assert places == [live]
    await second.publish(Event("a", "live"))
    assert (stretches, places) == ([], [live])
    gate.open()
    await until(lambda: stretches and len(places) == 3)
    assert second.backbone.is_whole
    assert isinstance(stretches[0], Stretch)
    assert stretches[0].evicted_through >= second.history.evicted_through(None)
    assert places[1:] == [first.positions[7], None]


async def test_a_waiting_reader_gets_an_error_when_the_worker_ends(bus: Bus) -> None:
    first = await bus.worker()
    await fill(first)
    second = await bus.newcomer()
    outcomes: list[Stretch | FastsseError] = []
    second.backbone.read(("t1",), 0, 1_000, outcomes.append)
    await second.backbone.close()
    assert isinstance(outcomes[0], Unavailable)


async def test_a_reader_that_waits_too_long_gets_an_error(bus: Bus) -> None:
    first = await bus.worker()
    await fill(first)
    second = await bus.newcomer()
    second.backbone._backfill._wait_s = 0.01
    outcomes: list[Stretch | FastsseError] = []
    for _ in range(3):
        second.backbone.read(("t1",), 0, 1_000, outcomes.append)
    # The hub falls silent: it is asked for no page more.
    await bus.stop()
    await until(lambda: len(outcomes) == 3)
    assert all(isinstance(one, Unavailable) for one in outcomes)


async def test_a_worker_whose_hub_is_lost_meanwhile_asks_the_next(bus: Bus, gate: Gate) -> None:
    first = await bus.worker()
    await fill(first)
    second = await bus.newcomer()
    for _ in range(3):
        assert not second.backbone.is_whole
        await restart(bus, workers=2)
        await second.publish(Event("a", "on"))
    gate.open()
    await until(lambda: second.backbone.is_whole)
    assert len(second.kept) == EVENTS + 3
    assert same(second, first)


async def test_a_hub_serves_before_it_has_what_was_kept(bus: Bus, gate: Gate) -> None:
    ends = [await bus.worker() for _ in range(2)]
    await fill(ends[0])
    await restart(bus, workers=2)
    memory = kept(bus)
    assert not memory.is_whole
    assert memory.counters() == {"bus_hub_filling": 1}
    for end in ends:
        await end.publish(Event("a", "live"))
    assert not memory.is_whole
    gate.open()
    await until(lambda: memory.is_whole)
    assert memory.counters() == {"bus_hub_filling": 0}
    assert positions_of(memory) == ends[0].positions
    third = await bus.worker()
    assert same(*ends, third)


async def test_a_worker_that_comes_to_a_hub_without_history_is_handed_it_in_the_end(
    bus: Bus, gate: Gate
) -> None:
    first = await bus.worker()
    await fill(first)
    await restart(bus, workers=1)
    second = await bus.newcomer()
    assert not kept(bus).is_whole
    await second.publish(Event("a", "live"))
    gate.open()
    await until(lambda: second.backbone.is_whole)
    assert kept(bus).is_whole
    assert same(second, first)


async def test_when_the_worker_that_is_asked_dies_another_is(bus: Bus, gate: Gate) -> None:
    ends = [await bus.worker() for _ in range(3)]
    await fill(ends[0])
    await restart(bus, workers=3)
    for _ in range(2):
        asked = await asked_of(bus)
        dying = next(end for end in ends if end.backbone._key == asked.key)
        ends.remove(dying)
        await dying.backbone.close()
        assert not kept(bus).is_whole
        await ends[0].publish(Event("a", "on"))
    gate.open()
    await until(lambda: kept(bus).is_whole)
    assert kept(bus).history.evictions() == ends[0].history.evictions()
    assert positions_of(kept(bus)) == ends[0].positions
    assert len(ends[0].positions) == EVENTS + 2


async def test_a_hub_that_no_worker_can_fill_reports_what_is_missing(
    bus: Bus, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await bus.worker()
    await fill(first)
    await restart(bus, workers=1)
    monkeypatch.setattr(recovery, "WAIT_S", 0.05)
    second = await bus.newcomer()
    lost_through = kept(bus).history.expected_through
    await first.backbone.close()
    (position,) = await second.publish(Event("t1", "on"))
    gate.open()
    await until(lambda: kept(bus).is_whole and second.backbone.is_whole)
    assert second.kept == [b"on"]
    for history in (kept(bus).history, second.history):
        assert lost_through <= history.evicted_through(None) < position
        topic = history._topics.by_name["t1"]
        assert lost_through <= history.evicted_through((topic,)) < position


async def test_a_worker_that_only_just_began_is_not_relied_on_for_what_is_kept(
    bus: Bus, gate: Gate
) -> None:
    first = await bus.worker()
    await fill(first)
    second = await bus.newcomer()
    # The one that began last has the end of the log to itself.
    assert bus.hub is not None
    session = next(session for session in bus.hub.broker.sessions.values() if session.worker == 0)
    bus.hub.broker.fanout.leave(session)
    await second.publish(Event("a", "its own"))
    assert not second.backbone.is_whole
    await restart(bus, workers=2)
    gate.open()
    await until(lambda: second.backbone.is_whole)
    assert first.data[-1] == b"its own"
    assert same(first, second)
    assert first.broken == second.broken == []
    await until(lambda: kept(bus).is_whole)
    assert same(first, await bus.worker())


async def test_events_of_before_that_new_ones_push_out_are_gone_everywhere(
    gate: Gate,
) -> None:
    async with a_bus(history_events=20) as bus:
        await bus.start()
        first = await bus.worker()
        await fill(first, 140)
        await restart(bus, workers=1)
        second = await bus.newcomer()
        assert not kept(bus).is_whole
        await second.publish(*(Event("t1", f"new {n}") for n in range(30)))
        gate.open()
        await until(lambda: kept(bus).is_whole and second.backbone.is_whole)
        assert kept(bus).history.evictions() == first.history.evictions()
        assert same(first, second)
        assert len(first.kept) == 140
        assert first.kept[-20:] == [b"new %d" % n for n in range(10, 30)]


async def test_a_worker_far_behind_waits_until_the_hub_has_its_missing_events(
    bus: Bus, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "RECENT_BYTES", 1_000)
    ends = [await bus.worker() for _ in range(2)]
    assert bus.hub is not None
    session = next(session for session in bus.hub.broker.sessions.values() if session.worker == 1)
    bus.hub.broker.fanout.leave(session)
    for _ in range(20):
        await ends[0].publish(*[Event("a", "x" * 1_000)] * 20)
    assert ends[1].data == []
    await restart(bus, workers=2)
    answer = ends[1].publish(Event("a", "its own"))
    assert not answer.done()
    gate.open()
    await until(lambda: len(ends[1].entries) == 401)
    await answer
    assert ends[1].positions == ends[0].positions
    assert ends[1].broken == []


async def test_a_worker_that_is_silent_when_it_is_asked_is_not_waited_for(
    bus: Bus, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.open()
    end = await bus.worker()
    await fill(end, 10)
    head = end.backbone.head
    await bus.stop()
    silent = RawWorker(bus.address)
    await silent.send(Hello(VERSION, 9, KEY, head + 1, 1).pack())
    monkeypatch.setattr(recovery, "SILENT_S", 0.05)
    drop = Session.drop

    def dropped(session: Session) -> None:
        monkeypatch.setattr(recovery, "SILENT_S", 20.0)
        drop(session)

    monkeypatch.setattr(Session, "drop", dropped)
    await bus.start(workers=2, restarted=True)
    await end.publish(Event("a", "on"))
    assert end.data[-1] == b"on"
    assert len(end.kept) == 11
    silent.socket.close()


LIES = {
    "an event above its head": frame(FrameKind.KEPT, b"%s"),
    "a damaged event": frame(FrameKind.KEPT, b"123"),
    "the end of another log": frame(FrameKind.ENDED, bytes(32), bytes(4)),
    "an end that was cut": frame(FrameKind.ENDED, bytes(16)),
    "all that it keeps": frame(FrameKind.DUMPED, bytes(32)),
    "a batch that is not there": frame(FrameKind.ENDED, bytes(32), b"\1\0\0\0"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_worker_that_lies_about_the_log_is_given_up(bus: Bus, lie: str) -> None:
    end = await bus.worker()
    await fill(end, 10)
    head = end.backbone.head
    await bus.stop()
    liar = RawWorker(bus.address)
    await liar.send(Hello(VERSION, 9, KEY, head + 1, position_at(1_000)).pack())
    starting = asyncio.create_task(bus.start(workers=2, restarted=True))
    kind, _ = await liar.receive()
    while kind != FrameKind.LAST:
        kind, _ = await liar.receive()
    (entry,) = encode_entries([head + 2], [Event("a")])
    told = LIES[lie]
    await liar.send(frame(FrameKind.KEPT, pack_entry(entry)) if b"%s" in told else told)
    assert await liar.cut_off()
    liar.socket.close()
    await starting
    await end.publish(Event("a", "on"))
    assert end.data[-1] == b"on"


async def test_a_worker_that_lies_about_what_it_keeps_is_given_up(bus: Bus, gate: Gate) -> None:
    end = await bus.worker()
    await fill(end, 10)
    head = end.backbone.head
    await bus.stop()
    liar = RawWorker(bus.address)
    # It began before all others, so it is asked.
    await liar.send(Hello(VERSION, 9, KEY, head, 1).pack())
    starting = asyncio.create_task(bus.start(workers=2, restarted=True))
    while (await liar.receive())[0] not in (FrameKind.LAST, FrameKind.CAUGHT_UP):
        pass
    places = pack_position(head) + pack_position(head)
    await liar.send(frame(FrameKind.ENDED, places, bytes(4), pack_batch_ids(())))
    await starting
    while (await liar.receive())[0] != FrameKind.DUMP:
        pass
    packed = list(map(pack_entry, encode_entries([head, head - 1], [Event("a")] * 2)))
    await liar.send(frame(FrameKind.KEPT, *packed))
    assert await liar.cut_off()
    liar.socket.close()
    gate.open()
    await until(lambda: kept(bus).is_whole)
    assert kept(bus).history.evictions().by_topic.keys() == end.history.evictions().by_topic.keys()
    assert positions_of(kept(bus)) == end.positions


@pytest.mark.parametrize(
    "kind", [FrameKind.KEPT, FrameKind.EVICTED, FrameKind.DUMPED, FrameKind.ENDED, FrameKind.LAST]
)
async def test_an_unrequested_part_of_a_history_closes_the_link(bus: Bus, kind: FrameKind) -> None:
    raw = RawWorker(bus.address)
    await raw.greet()
    await raw.send(frame(kind, bytes(32)))
    assert await raw.cut_off()
    raw.socket.close()


async def test_a_history_is_handed_to_a_worker_once(bus: Bus) -> None:
    raw = RawWorker(bus.address)
    await raw.greet()
    await raw.send(frame(FrameKind.DUMP, pack_position(1)))
    assert (await raw.receive())[0] == FrameKind.DUMPED
    await raw.send(frame(FrameKind.DUMP, pack_position(1)))
    assert await raw.cut_off()
    raw.socket.close()
