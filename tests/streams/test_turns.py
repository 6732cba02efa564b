# ruff: noqa: ASYNC110 — it counts turns of the loop.
"""Readers that catch up take turns, so that they do not delay live streams."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from fastsse.hub.time_budget import TimeBudget
from fastsse.server import Server
from fastsse.streams.turns import LIVE_PAGE_BYTES, PAGE_BYTES, ReadTurns
from tests.http.conftest import Start, asked
from tests.http.raw import connected, request
from tests.streams.test_protocol import TEXT, server_waiters, tail, until


class Clock:
    """Each step uses so much CPU; the time passes as the test says."""

    def __init__(self) -> None:
        self.used_s = 0.0
        self.passed_s = 0.0

    def turns(self, *, is_live: bool = True, share: float = 1.0) -> ReadTurns:
        budget = TimeBudget(lambda: self.passed_s, lambda: self.used_s, share=share, burst_s=0)
        return ReadTurns(lambda: is_live, budget)


async def turn_of_each(turns: ReadTurns, count: int, step: Callable[[], None]) -> list[int]:
    """Asks for so many reads at once; returns the turn of the loop in which each was made."""
    made: list[int] = []
    for nth in range(count):

        def read(nth: int = nth) -> None:
            step()
            order.append(nth)
            made.append(turn)

        turns.take(read)
    order, turn = [], 0
    while len(made) < count:
        await asyncio.sleep(0)
        turn += 1
    assert order == list(range(count))
    return made


async def test_without_live_streams_a_page_is_whole_and_made_within_the_call() -> None:
    turns = Clock().turns(is_live=False)
    made: list[int] = []
    turns.take(lambda: made.append(1))
    assert made == [1]
    assert turns.page_bytes == PAGE_BYTES


async def test_with_live_streams_a_turn_of_the_loop_makes_one_small_page() -> None:
    turns = Clock().turns()
    made = await turn_of_each(turns, 20, lambda: None)
    assert len(set(made)) == 20
    assert turns.page_bytes == LIVE_PAGE_BYTES < PAGE_BYTES


async def test_readers_get_their_share_and_are_never_starved() -> None:
    clock = Clock()
    turns = clock.turns(share=0.25)

    def step() -> None:
        clock.used_s += 0.001

    task = asyncio.ensure_future(turn_of_each(turns, 10, step))
    while not task.done():
        clock.passed_s += 0.0005
        await asyncio.sleep(0.002)
    await task
    # The first page is free; each later one waits until the one before is paid for.
    assert 9 * 0.001 / 0.25 <= clock.passed_s <= 2 * 10 * 0.001 / 0.25


async def test_a_step_that_fails_stops_no_later_one() -> None:
    turns = Clock().turns()
    made: list[int] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: made.append(0))
    turns.take(lambda: made.append(1 // 0))
    turns.take(lambda: made.append(2))
    while len(made) < 2:
        await asyncio.sleep(0)
    assert made == [0, 2]


async def test_close_makes_the_pages_that_wait() -> None:
    turns, made = Clock().turns(), []
    for nth in range(3):
        turns.take(lambda nth=nth: made.append(nth))
    turns.close()
    assert made == [0, 1, 2]


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_pages_are_small_while_a_tail_is_open_and_their_content_the_same(
    start: Start, tmp_path: Path, store: str
) -> None:
    options = {"streams_total": "64MiB"}
    if store == "sqlite":
        # Memory has less than what is read.
        options |= {"store": f"sqlite:{tmp_path}/h.db", "history_total": "1MiB", "max_lag": "1MiB"}
    server = await start(**options)
    await asked(server, "PUT", "/streams/log", TEXT)
    parts = [b"%d " % n * 2000 for n in range(300)] + [b"x" * 300_000]
    async with connected(server) as raw:
        for part in parts:
            await raw.send(request("POST", "/streams/log", TEXT, body=part))
            assert (await raw.answer()).status == 204
    alone = await read_all(server)
    async with connected(server) as raw:
        live = await tail(raw, "/streams/log?offset=now&live=sse")
        assert (await live.next()).type == "control"
        found = await asyncio.gather(*(read_all(server) for _ in range(8)))
        await asked(server, "POST", "/streams/log", TEXT, body=b"live")
        assert (await live.next()).data == "live"
    assert b"".join(alone) == b"".join(parts)
    assert max(len(page) for page in alone[:-1]) > LIVE_PAGE_BYTES
    for pages in found:
        assert b"".join(pages) == b"".join(parts)
        # The last append is larger than a page.
        assert max(len(page) for page in pages[:-1]) <= LIVE_PAGE_BYTES
        assert pages[-1] == parts[-1]


async def read_all(server: Server) -> list[bytes]:
    """All pages of the stream."""
    pages, offset = [], "-1"
    async with connected(server) as raw:
        while True:
            await raw.send(request("GET", f"/streams/log?offset={offset}"))
            answer = await raw.answer()
            assert answer.status == 200
            pages.append(answer.body)
            offset = answer.headers["stream-next-offset"]
            if "stream-up-to-date" in answer.headers:
                return pages


async def test_a_poll_that_an_event_has_woken_does_not_wait_behind_readers_that_catch_up(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await start()
    await asked(server, "PUT", "/streams/log", TEXT)
    async with connected(server) as raw:
        await raw.send(request("GET", "/streams/log?offset=now&live=long-poll"))
        await until(lambda: server_waiters(server) == 1)
        held: list[Callable[[], None]] = []
        monkeypatch.setattr(ReadTurns, "take", lambda self, step: held.append(step))
        await asked(server, "POST", "/streams/log", TEXT, body=b"new")
        answer = await raw.answer()
    assert (answer.status, answer.body) == (200, b"new")
    assert held == []
