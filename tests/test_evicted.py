"""What was evicted, and when: `Evicted`, held against the list of all evictions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse.bus.frames import Fields, FrameError, pack_evicted, read_evicted
from fastsse.evicted import NEVER, STEPS_MAX, Evicted, Steps, steps_of

evictions = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), max_size=40)


def naive_since(all_evictions: list[tuple[int, int]], clock: int) -> int:
    return max((position for at, position in all_evictions if at > clock), default=0)


@given(evictions, st.integers(NEVER, 31))
def test_what_was_evicted_since_any_reading_is_known(
    all_evictions: list[tuple[int, int]], clock: int
) -> None:
    evicted = Evicted(31, steps_of(all_evictions))
    assert evicted.since(clock) == naive_since(all_evictions, clock)
    assert evicted.through == naive_since(all_evictions, NEVER)
    assert evicted.up_to(15).since(clock) == min(15, naive_since(all_evictions, clock))


@given(evictions, st.integers(NEVER, 31))
def test_steps_may_be_noted_one_by_one_in_any_order(
    all_evictions: list[tuple[int, int]], clock: int
) -> None:
    steps = Steps()
    for at, position in all_evictions:
        steps.add(at, position)
    assert Evicted(31, tuple(steps)).since(clock) == naive_since(all_evictions, clock)


@given(evictions)
def test_clocks_rise_and_positions_fall(all_evictions: list[tuple[int, int]]) -> None:
    steps = steps_of(all_evictions)
    assert list(steps) == sorted(steps)
    assert [position for _, position in steps] == sorted({p for _, p in steps}, reverse=True)


def test_steps_are_bounded_and_never_report_less() -> None:
    falling = [(clock, 10_000 - clock) for clock in range(4 * STEPS_MAX)]
    steps = Steps()
    for clock, position in falling:
        steps.add(clock, position)
    for bounded in (tuple(steps), steps_of(falling)):
        assert len(bounded) <= STEPS_MAX
        evicted = Evicted(0, bounded)
        for clock in range(-1, 4 * STEPS_MAX, 7):
            assert evicted.since(clock) >= naive_since(falling, clock)


@given(evictions)
def test_it_passes_the_bus_unchanged(all_evictions: list[tuple[int, int]]) -> None:
    evicted = Evicted(2**63, steps_of(all_evictions), begins=2**100)
    fields = Fields(pack_evicted(evicted) + b"rest")
    assert read_evicted(fields) == evicted
    assert fields.rest() == b"rest"


def test_more_steps_than_are_allowed_are_refused_on_the_bus() -> None:
    steps = tuple((clock, 10_000 - clock) for clock in range(STEPS_MAX + 1))
    with pytest.raises(FrameError):
        read_evicted(Fields(pack_evicted(Evicted(0, steps))))
