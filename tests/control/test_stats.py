"""Figures of the whole service come from any worker, and no count of it ever goes back."""

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from fastsse.control.service import LocalControlClient, MemoryControlStore
from fastsse.control.stats import (
    SUBJECT,
    Help,
    StatsClient,
    StatsService,
    WorkerStats,
    stats_service,
)
from fastsse.errors import FastsseError
from tests.test_metrics import samples_of

BOUNDS = (0.001, 0.01)


class Member:
    """A worker of a made-up service: its numbers, and its wire to the control service."""

    def __init__(self, service: "Service", number: int, slot: int) -> None:
        self.service, self.number, self.slot, self.worker = service, number, slot, number
        self.counters = {"connections": 1, "deliveries": 10, "events_published": 5, "topics": 3}
        self.room, self.unready, self.leaving = 9, None, False
        self.is_shared = False
        self.help: list[Help] = []
        self.listeners: list[Any] = []
        self.on_back: list[Any] = []
        self.is_busy = False
        self.figures = StatsClient(self, self.reading, self.help.append)  # type: ignore[arg-type]

    def reading(self) -> WorkerStats:
        return WorkerStats(
            self.slot, 3, 1000 + self.number, 0.0, self.room, self.unready, self.leaving,
            self.is_shared, self.counters, BOUNDS, [1, 0, 0], 0.5, 2.0, 1_000_000,
        )  # fmt: skip

    def listen(self, subject: str, on_broadcast: Any) -> None:
        self.listeners.append(on_broadcast)

    def notify(self, subject: str, message: bytes) -> None:
        self.service.service.on_message(self.number, message)

    def ask(self, subject: str, message: bytes, done: Any) -> None:
        self.service.service.on_request(self.number, message, done)

    def hear(self, message: bytes) -> None:
        if not self.is_busy:
            for on_broadcast in self.listeners:
                on_broadcast(message)


class Service:
    """A control service and its workers."""

    def __init__(self, slots: int = 3) -> None:
        self.now_s = 100.0
        self.members: dict[int, Member] = {}
        self.start_desk()
        for number in range(slots):
            self.join(number, number)

    def start_desk(self) -> None:
        self.service = StatsService(self.broadcast, dict, {"version": "1"}, lambda: self.now_s)

    def join(self, number: int, slot: int) -> Member:
        member = self.members[number] = Member(self, number, slot)
        member.figures.report()
        return member

    def kill(self, number: int) -> None:
        del self.members[number]
        self.service.on_worker_gone(number)

    def broadcast(self, message: bytes) -> None:
        for member in list(self.members.values()):
            member.hear(message)

    async def samples(self, asks: int = 0) -> Mapping[str, float]:
        return samples_of((await answer(self.members[asks].figures.metrics)).decode())

    async def stats(self) -> Any:
        return orjson.loads(await answer(next(iter(self.members.values())).figures.stats))


async def answer(ask: Any) -> bytes:
    done: asyncio.Future[bytes | FastsseError] = asyncio.get_running_loop().create_future()
    ask(done.set_result)
    outcome = await done
    assert isinstance(outcome, bytes)
    return outcome


async def test_counters_add_up() -> None:
    service = Service()
    service.members[1].counters.update(deliveries=100, topics=7)
    for worker in range(3):
        found = await service.samples(worker)
        assert found["fastsse_deliveries_total{}"] == 120
        assert found["fastsse_connections{}"] == 3
        assert found["fastsse_topics{}"] == 7
        assert found["fastsse_events_published_total{}"] == 15
        assert found["fastsse_workers{}"] == 3
        assert found["fastsse_delivery_latency_seconds_count{}"] == 3
        assert found["process_cpu_seconds_total{}"] >= 6


async def test_counts_of_a_worker_that_ended_stay_and_its_gauges_go() -> None:
    service = Service()
    service.members[0].counters["deliveries"] = 1000
    await service.samples()
    service.kill(0)
    found = await service.samples(1)
    assert found["fastsse_deliveries_total{}"] == 1020
    assert found["fastsse_connections{}"] == 2
    assert found["fastsse_delivery_latency_seconds_count{}"] == 3
    service.join(7, 0).counters["deliveries"] = 5
    assert (await service.samples(7))["fastsse_deliveries_total{}"] == 1025


async def test_no_count_goes_back_when_the_desk_is_killed() -> None:
    service = Service()
    for member in service.members.values():
        member.counters.update(deliveries=1000, events_published=500)
    await service.samples()
    service.kill(0)
    before = await service.samples(1)
    service.start_desk()
    for member in service.members.values():
        member.figures.report()
    after = await service.samples(1)
    for name in ("deliveries", "events_published"):
        assert after[f"fastsse_{name}_total{{}}"] == before[f"fastsse_{name}_total{{}}"] > 0


async def test_a_busy_worker_delays_a_scrape_for_a_bounded_time() -> None:
    service = Service()
    service.members[2].is_busy = True
    service.members[2].counters["deliveries"] = 99
    # Its last figures count.
    assert (await service.samples())["fastsse_deliveries_total{}"] == 30


async def test_stats_show_the_spread_and_rates_of_all() -> None:
    service = Service()
    for _ in range(2):
        service.now_s += 1.0
        for member in service.members.values():
            member.counters["deliveries"] += 10
            member.figures.report()
    stats = await service.stats()
    assert [one["worker"] for one in stats["processes"]] == [0, 1, 2]
    assert {one["connections"] for one in stats["processes"]} == {1}
    assert stats["connections"] == 3
    assert 10 <= stats["rates_per_s"]["deliveries"] <= 30


async def test_service_is_ready_while_one_worker_is() -> None:
    service = Service()

    async def unready() -> str | None:
        done: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        service.members[0].figures.unready(done.set_result)
        return await done

    service.members[0].unready = service.members[1].unready = "full"
    assert await unready() is None
    service.members[2].unready = "full"
    assert await unready() == "full"


# ── Who accepts for whom ──────────────────────────────────────────────────────────────────────


def test_full_worker_is_helped_by_the_one_with_most_room() -> None:
    service = Service()
    service.members[2].room = 50
    service.members[2].figures.report()
    service.members[0].room = 0
    service.members[0].figures.report()
    for member in service.members.values():
        assert member.help[-1] == Help({0: 2}, True)


def test_slot_without_a_worker_is_helped_until_there_is_one() -> None:
    service = Service()
    service.kill(1)
    helper = service.members[0].help[-1].helper
    assert helper.keys() == {1}
    assert helper[1] in (0, 2)
    service.join(3, 1)
    assert service.members[0].help[-1].helper == {}


def test_no_worker_helps_when_all_are_full() -> None:
    service = Service()
    for member in service.members.values():
        member.room = 0
        member.figures.report()
    assert service.members[0].help[-1] == Help({}, False)


def test_leaving_worker_neither_helps_nor_is_helped() -> None:
    service = Service()
    service.join(3, 0).room = 1
    service.members[3].figures.report()
    service.members[0].leaving, service.members[0].room = True, 1000
    service.members[0].figures.report()
    service.members[1].room = 0
    service.members[1].figures.report()
    assert service.members[2].help[-1].helper == {1: 2}


def test_workers_at_one_socket_learn_who_has_too_much_of_it() -> None:
    service = Service()
    for number, member in service.members.items():
        member.is_shared = True
        member.counters["connections"] = 10 * number
    for _ in range(2):
        service.now_s += 1.0
        for member in service.members.values():
            member.figures.report()
    assert {member.help[-1].heavy for member in service.members.values()} == {frozenset({2})}


async def test_only_worker_answers_within_the_call() -> None:
    control = LocalControlClient(
        {SUBJECT: stats_service(dict, {})}, lambda events, done: done(True), MemoryControlStore()
    )
    member = Member.__new__(Member)
    member.slot, member.number, member.leaving, member.unready = 0, 0, False, None
    member.is_shared = False
    member.counters, member.room = {"deliveries": 3}, 1
    figures = StatsClient(control, member.reading)
    figures.report()
    bodies: list[Any] = []
    figures.metrics(bodies.append)
    assert samples_of(bodies[0].decode())["fastsse_deliveries_total{}"] == 3
