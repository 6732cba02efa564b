"""Sets of numbers are sets, however they are kept."""

from hypothesis import given
from hypothesis import strategies as st

from fastsse.hub.topic_set import TopicSet, united

some = st.sets(st.integers(0, 900), max_size=400)


def numbers(members: set[int]) -> TopicSet:
    made = TopicSet()
    for one in members:
        made.add(one)
        made.add(one)
    return made


@given(some, some, some)
def test_numbers_are_a_set_few_or_many(members: set[int], gone: set[int], named: set[int]) -> None:
    made = numbers(members)
    for one in gone:
        assert made.discard(one) == (one in members)
    left = members - gone
    assert made.count == len(left)
    assert {one for one in range(1000) if one in made} == left
    assert sorted(united([made], named)) == sorted(left | named)


@given(st.lists(some, max_size=5))
def test_united_sets_give_each_number_once(sets: list[set[int]]) -> None:
    assert sorted(united(map(numbers, sets))) == sorted(set().union(*sets))


def test_a_set_of_few_high_numbers_is_as_small_as_they_are_few() -> None:
    made = numbers({1_000_000 + index for index in range(100)})
    assert not made._bits
    for number in range(100_000):
        made.add(number)
    assert len(made._bits) < 130_000
