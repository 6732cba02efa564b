"""Queries to a store that does not answer are bounded by the streams that wait for them."""

from typing import Any

import pytest

from fastsse.hub.resume.store_queries import ENDED_MAX, StoreQueries

COUNT = 20_000


class Stuck:
    """A store that never answers."""

    def read(self, *question: Any) -> None:
        """No answer."""


class Stream:
    """One that may end while it waits."""

    def __init__(self) -> None:
        self.ended = False
        self.outcomes: list[Any] = []

    def on_answer(self, outcome: Any) -> None:
        self.outcomes.append(outcome)


def come_and_go(queries: StoreQueries, *, same: bool) -> list[Stream]:
    """Streams that end before they are answered, one in a hundred stays."""
    staying = []
    for n in range(COUNT):
        stream = Stream()
        queries.read(("t",), 0 if same else n, 1_000, stream)
        if n % 100 == 0:
            staying.append(stream)
        else:
            stream.ended = True
    return staying


def test_questions_of_ended_streams_do_not_pile_up() -> None:
    queries = StoreQueries(Stuck(), 4)  # type: ignore[arg-type]
    staying = come_and_go(queries, same=False)
    assert queries.waiting <= 2 * len(staying) + ENDED_MAX
    assert len(queries._questions) <= queries.waiting + 4
    waiting = [stream for question in queries._waiting for stream in question.askers]
    assert set(staying[1:]) <= set(waiting)


def test_ended_streams_do_not_pile_up_at_one_question() -> None:
    questions: list[Any] = []
    store = Stuck()
    store.read = lambda *question: questions.append(question)  # type: ignore[method-assign]
    queries = StoreQueries(store, 4)  # type: ignore[arg-type]
    staying = come_and_go(queries, same=True)
    (question,) = queries._questions.values()
    assert len(question.askers) <= 2 * len(staying) + ENDED_MAX
    questions[0][-1]("outcome")
    assert all(stream.outcomes == ["outcome"] for stream in staying)


@pytest.mark.parametrize("same", [True, False])
def test_a_stream_that_waits_is_looked_at_a_few_times(same: bool) -> None:
    looks = 0

    class Counted(Stream):
        """Every hundredth stays."""

        def __init__(self, number: int) -> None:
            self.number = number

        @property  # type: ignore[override]
        def ended(self) -> bool:
            nonlocal looks
            looks += 1
            return self.number % 100 > 0

    queries = StoreQueries(Stuck(), 4)  # type: ignore[arg-type]
    for n in range(COUNT):
        queries.read(("t",), 0 if same else n, 1_000, Counted(n))
    assert looks < 5 * COUNT
