"""Work that strangers ask for has a share of the loop's time and no more."""

from fastsse.hub import time_budget
from fastsse.hub.time_budget import TimeBudget


class Clock:
    """Each step of the work takes so long; nothing else takes time by itself."""

    def __init__(self, step_s: float) -> None:
        self.now_s = 100.0
        self.steps = 0
        self._step_s = step_s
        self.share = TimeBudget(self, self)

    def __call__(self) -> float:
        return self.now_s

    def work(self) -> bool:
        self.steps += 1
        self.now_s += self._step_s
        return True

    def steps_in_a_run(self) -> int:
        before = self.steps
        self.share.run(self.work)
        return self.steps - before


def test_a_run_ends_when_its_time_is_used_up() -> None:
    clock = Clock(time_budget.BURST_S / 10)
    assert clock.steps_in_a_run() in (10, 11)
    assert clock.steps_in_a_run() <= 6


def test_who_asks_again_and_again_gets_the_share() -> None:
    clock = Clock(0.0001)
    for _ in range(10_000):
        clock.steps_in_a_run()
        clock.now_s += 0.0005
    assert clock.steps * 0.0001 <= (clock.now_s - 100) * time_budget.SHARE + 2 * time_budget.BURST_S


def test_a_long_step_is_paid_back_before_the_next() -> None:
    clock = Clock(1.0)
    assert clock.steps_in_a_run() == 1
    assert clock.steps_in_a_run() == 0
    clock.now_s += 1 / time_budget.SHARE
    assert clock.steps_in_a_run() == 1


def test_a_run_ends_when_nothing_is_left() -> None:
    clock = Clock(0.0)
    clock.share.run(lambda: clock.work() and clock.steps < 5)
    assert clock.steps == 5
