"""The supervisor starts, watches, replaces and ends its children. Real processes and signals."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from fastsse.supervisor.children import PAUSE_AFTER_SERVICE_S_MAX, PAUSE_S_MAX, Child, Slot
from fastsse.supervisor.process_link import ProcessLink
from fastsse.supervisor.reloadsocket import ReloadError, ask_to_reload
from tests.supervisor.service import gone


async def test_hub_starts_first_and_ends_last(begin) -> None:
    little = await begin(2, "hub")
    await little.line("serving")
    assert next(line[1] for line in little.lines if line[0] == "start") == "-1"
    little.signal(signal.SIGTERM)
    assert await little.ended() == 0
    ends = [line[1:] for line in little.lines if line[0] == "end"]
    assert sorted(ends[:2]) == [["0", "1", "drain"], ["1", "2", "drain"]]
    assert ends[2] == ["-1", "0", "term"]


@pytest.mark.parametrize("number", [0, 1])
async def test_killed_child_is_replaced(begin, number: int) -> None:
    little = await begin(1, "hub")
    await little.line("serving")
    os.kill(little.pid_of(number), signal.SIGKILL)
    line = await little.line("start")
    assert line[1:3] == [str(number - 1), "2"]
    little.signal(signal.SIGINT)
    assert await little.ended() == 0


async def test_child_that_ends_again_and_again_is_started_with_growing_pauses(begin) -> None:
    little = await begin(2, DIE_SOON="1")
    await little.line("serving")
    os.kill(little.pid_of(1), signal.SIGKILL)
    for _ in range(4):
        await little.line("start", 1)
    little.signal(signal.SIGTERM)
    assert await little.ended() == 0
    assert [line[2] for line in little.lines if line[:2] == ["start", "0"]] == ["0"]


def test_pauses_double_up_to_a_bound_and_end_with_one_that_was_well() -> None:
    one, other = ProcessLink.pair()
    slot = Slot("worker 0", 0)
    child = Child("worker 0", 1, 1, one, 0.0)
    assert [slot.lost(child, 0.0) for _ in range(4)] == [0.1, 0.2, 0.4, 0.8]
    assert max(slot.lost(child, 0.0) for _ in range(10)) == PAUSE_S_MAX
    child.ready_s = 0.0
    assert slot.lost(child, 0.9) == PAUSE_AFTER_SERVICE_S_MAX < 1
    assert slot.lost(child, 1.0) == 0
    one.close()
    other.close()


@pytest.mark.parametrize("slot", ["-1", "1"])
async def test_child_that_can_not_start_ends_the_program_with_its_reason(begin, slot: str) -> None:
    little = await begin(2, "hub", FAIL_AT_START=slot)
    assert await little.ended() == 7
    assert ["failed", "7", "it", "does", "not", "want", "to"] in little.lines
    assert not [line for line in little.lines if line[0] == "serving"]


async def test_second_signal_ends_at_once(begin) -> None:
    little = await begin(2, "hub", SLOW="60")
    await little.line("serving")
    little.signal(signal.SIGTERM)
    await little.line("ordered", 0)
    little.signal(signal.SIGINT)
    assert await little.ended() == 128 + signal.SIGINT


async def test_child_that_will_not_drain_is_killed(begin) -> None:
    little = await begin(1, SLOW="600")
    await little.line("serving")
    little.signal(signal.SIGTERM)
    assert await little.ended() == 0


async def test_children_end_when_the_supervisor_is_killed(begin) -> None:
    little = await begin(2)
    await little.line("serving")
    little.signal(signal.SIGKILL)
    await gone(little.pid_of(0))
    await gone(little.pid_of(1))
    await little.ended()
    assert ["end", "0", "0", "orphan"] in little.lines


async def test_child_that_stands_still_is_killed_and_replaced(begin) -> None:
    little = await begin(1, HUNG="0.5")  # Little children speak only once.
    await little.line("serving")
    await little.line("start", 0, 1)
    little.signal(signal.SIGTERM)
    assert await little.ended() == 0


# ── Reload ────────────────────────────────────────────────────────────────────────────────────


async def test_reload_replaces_one_worker_after_another(begin) -> None:
    little = await begin(3, "hub")
    await little.line("serving")
    before = len(little.lines)
    little.signal(signal.SIGHUP)
    line = await little.line("reloaded")
    assert line == [
        "reloaded",
        "True",
        "Reloaded:",
        "3",
        "workers",
        "replaced.",
        "port",
        "needs",
        "a",
        "restart.",
    ]
    little.signal(signal.SIGTERM)
    assert await little.ended() == 0
    started = [line[1:3] for line in little.lines[before:] if line[0] == "start"]
    assert started == [["0", "4"], ["1", "5"], ["2", "6"]]
    ends = [line[1:] for line in little.lines[before:] if line[0] == "end"]
    assert sorted(end for end in ends if end[2] == "replaced") == [
        ["0", "1", "replaced"], ["1", "2", "replaced"], ["2", "3", "replaced"],
    ]  # fmt: skip
    for slot, old, new in (("0", "1", "4"), ("1", "2", "5"), ("2", "3", "6")):
        lines = [line[:3] for line in little.lines]
        assert lines.index(["start", slot, new]) < lines.index(["end", slot, old])


async def test_reload_that_all_can_take_over_replaces_no_worker(begin) -> None:
    little = await begin(2, POSTS="yes")
    await little.line("serving")
    little.signal(signal.SIGHUP)
    assert " ".join(await little.line("reloaded")) == "reloaded True Reloaded."
    assert sorted(line[1] for line in little.lines if line[0] == "applied") == ["0", "1"]
    little.signal(signal.SIGTERM)
    assert await little.ended() == 0
    assert len([line for line in little.lines if line[0] == "start"]) == 2


async def test_a_child_that_dies_while_it_takes_over_holds_no_reload(begin) -> None:
    little = await begin(2, POSTS="yes", DIES="1")
    await little.line("serving")
    little.signal(signal.SIGHUP)
    assert " ".join(await little.line("reloaded")) == "reloaded True Reloaded."
    await little.has("start", 1, 2)  # In its place; its line may come before that of the reload.
    little.signal(signal.SIGHUP)
    assert " ".join(await little.line("reloaded")) == "reloaded True Reloaded."
    little.signal(signal.SIGTERM)
    assert await little.ended() == 0
    assert [line[2] for line in little.lines if line[:2] == ["start", "0"]] == ["0"]


async def test_reload_that_no_worker_can_start_with_is_given_up(begin) -> None:
    little = await begin(3, FAIL_FROM="4")
    await little.line("serving")
    little.signal(signal.SIGHUP)
    await little.line("reverted")
    line = await little.line("reloaded")
    assert " ".join(line) == "reloaded False A new worker can't start. it does not want to"
    little.signal(signal.SIGTERM)
    assert await little.ended() == 0
    # The first was replaced by number 3; the others are as they were.
    drained = sorted(line[1:3] for line in little.lines if line[0] == "end" and line[3] == "drain")
    assert drained == [["0", "3"], ["1", "1"], ["2", "2"]]


async def test_two_reloads_at_once_are_one_after_the_other(begin) -> None:
    little = await begin(2)
    await little.line("serving")
    little.signal(signal.SIGHUP)
    little.signal(signal.SIGHUP)
    await little.line("reloaded", "True")
    little.signal(signal.SIGTERM)
    assert await little.ended() == 0


async def test_reload_by_pid_file_says_how_it_went(begin, tmp_path: Path) -> None:
    pidfile, bad = str(tmp_path / "pid"), tmp_path / "bad"
    little = await begin(2, PIDFILE=pidfile, BAD=str(bad))
    await little.line("serving")
    assert int(Path(pidfile).read_text()) == little.process.pid  # noqa: ASYNC240
    said = await asyncio.to_thread(ask_to_reload, pidfile, 20)
    assert said == "Reloaded: 2 workers replaced. port needs a restart."
    bad.touch()
    with pytest.raises(ReloadError, match="port = no must be a number"):
        await asyncio.to_thread(ask_to_reload, pidfile, 20)
    little.signal(signal.SIGKILL)
    await gone(little.process.pid)
    # No child holds the socket open.
    with pytest.raises(ReloadError, match="No server answers"):
        await asyncio.to_thread(ask_to_reload, pidfile, 20)
