"""Those turned away come back spread out, and later the more there are."""

from fastsse.api.handoff import CALM_A_S, RetryAfter


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def at_rate(a_second: float, for_s: float, spread: float) -> int:
    """What the last answer says when so many are turned away for some time."""
    clock = Clock()
    retry_after = RetryAfter(clock, lambda: spread)
    told = 0
    for _ in range(round(a_second * for_s)):
        told = retry_after.retry_ms()
        clock.now_s += 1 / a_second
    return told


def test_few_come_back_after_five_seconds_and_half_more_at_most() -> None:
    assert at_rate(10, 60, 0.0) == 5000
    assert 7490 <= at_rate(10, 60, 0.9999) <= 7500


def test_many_are_asked_to_wait_longer() -> None:
    assert 9_000 <= at_rate(2 * CALM_A_S, 60, 0.0) <= 11_000


def test_the_retry_time_is_at_most_a_minute() -> None:
    assert 59_900 <= at_rate(100 * CALM_A_S, 20, 0.9999) <= 60_000


def test_a_storm_is_forgotten() -> None:
    clock = Clock()
    retry_after = RetryAfter(clock, lambda: 0.0)
    for _ in range(100_000):
        retry_after.retry_ms()
    assert retry_after.retry_ms() == 40_000
    clock.now_s += 200
    assert retry_after.retry_ms() == 5000
