"""What a worker reads of itself once a second."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from fastsse.vitals import Vitals


class Sender:
    """Answers when a test has it answer."""

    def __init__(self) -> None:
        self.waiting: list[Callable[..., None]] = []

    def inspect(self, handles: tuple[int, ...], filled: Callable[..., None]) -> bool:
        self.waiting.append(filled)
        return True


class Clocks:
    """Both clocks of a machine."""

    def __init__(self) -> None:
        self.now_s, self.wall_s = 100.0, 5000.0

    def go_on(self, seconds: float, wall_s: float | None = None) -> None:
        self.now_s += seconds
        self.wall_s += seconds if wall_s is None else wall_s


def vitals(clocks: Clocks, sender: Any, used: Callable[[], int] = lambda: 0) -> Vitals:
    return Vitals(sender, used, 1.0, lambda: clocks.now_s, lambda: clocks.wall_s)


def test_a_loop_that_is_late_and_a_sender_that_does_not_answer_are_seen() -> None:
    clocks, sender = Clocks(), Sender()
    vital = vitals(clocks, sender)
    vital.tick()
    clocks.go_on(1.75)
    vital.tick()
    figures = vital.counters()
    assert (figures["loop_lag_us"], figures["sender_lag_us"]) == (750_000, 1_750_000)
    sender.waiting.pop()()
    clocks.go_on(1.0)
    vital.tick()
    assert vital.counters()["loop_lag_us"] == 0
    assert vital.counters()["sender_lag_us"] == 1_750_000
    sender.waiting.pop()()
    assert vital.counters()["sender_lag_us"] == 0


def test_a_clock_that_is_set_is_counted_once_and_a_slewed_one_never(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clocks = Clocks()
    vital = vitals(clocks, Sender())
    for _ in range(100):
        clocks.go_on(1.0, 1.5)
        vital.tick()
    assert vital.counters()["clock_jumps"] == 0
    with caplog.at_level(logging.WARNING, "fastsse.server"):
        for step_s in (3600.0, -7200.0):
            clocks.go_on(1.0, 1.0 + step_s)
            vital.tick()
            clocks.go_on(1.0)
            vital.tick()
    assert vital.counters()["clock_jumps"] == 2
    assert [record.by_s for record in caplog.records] == [3600.0, -7200.0]  # type: ignore[attr-defined]


def test_descriptors_of_nothing_known_are_counted() -> None:
    used = 0
    vital = vitals(Clocks(), Sender(), lambda: used)
    vital.tick()
    if "descriptors" not in vital.counters():
        pytest.skip("this kernel does not count descriptors")
    leaked = [open("/dev/null") for _ in range(7)]  # noqa: SIM115
    assert vital.counters()["descriptors_unaccounted"] == 7
    used = 7
    assert vital.counters()["descriptors_unaccounted"] == 0
    for file in leaked:
        file.close()
