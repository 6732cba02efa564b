"""Python readers judge order as the native swarm does."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fastsse.stamp import Stamp
from fastsse.swarm import _swarm
from loadtests.order import Arrivals

arrivals = st.lists(st.none() | st.tuples(st.integers(1, 3), st.integers(1, 200)), max_size=200)


@settings(deadline=None)
@given(arrivals)
def test_every_sequence_is_judged_as_the_native_swarm_judges_it(
    sequence: list[tuple[int, int] | None],
) -> None:
    judge = Arrivals()
    verdicts = []
    for arrival in sequence:
        if arrival is None:
            judge.announce_gap()
        else:
            verdicts.append(tuple(judge.judge(Stamp(0, *arrival))))
    assert [kind for kind, _ in verdicts] == [kind for kind, _ in _swarm.judge_counts(sequence)]
    jumps = [(kind, missing) for kind, missing in verdicts if kind in ("lost", "announced")]
    native = [v for v in _swarm.judge_counts(sequence) if v[0] in ("lost", "announced")]
    assert jumps == native


def test_what_came_before_a_reader_was_there_is_not_lost() -> None:
    assert Arrivals().judge(Stamp(0, 1, 50)) == ("first", 0)


def test_a_jump_in_silence_says_how_many_are_missing() -> None:
    judge = Arrivals()
    judge.judge(Stamp(0, 1, 1))
    assert judge.judge(Stamp(0, 1, 5)) == ("lost", 3)
    assert judge.judge(Stamp(0, 1, 3)) == ("late", 0)
    assert judge.judge(Stamp(0, 1, 3)) == ("again", 0)
