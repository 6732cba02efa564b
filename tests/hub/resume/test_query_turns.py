"""Queries to a store: a bounded number at once, the oldest first, and identical ones are one."""

from collections.abc import Callable
from typing import Any

import pytest

from fastsse._core import encode_frame
from fastsse.backbone import Stretch
from fastsse.entries import Entry
from fastsse.errors import Unavailable
from fastsse.evicted import Evicted
from fastsse.hub.history import Erased
from fastsse.hub.resume.store_queries import UNKNOWN_YET, StoreQueries
from fastsse.subscriptions import Cursor


class Store:
    """A backbone whose answers a test gives; with `answer`, it has one within the call."""

    has_ended = False

    def __init__(self, answer: Any = None) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self._answer = answer
        self._done: dict[tuple[Any, ...], Callable[[Any], None]] = {}

    def __getattr__(self, name: str) -> Callable[..., None]:
        def ask(*question: Any) -> None:
            *words, done = question
            self.asked.append((name, *words))
            if self._answer is None:
                self._done[(name, *words)] = done
            else:
                done(self._answer)

        return ask

    def answer(self, question: tuple[Any, ...], outcome: Any) -> None:
        self._done.pop(question)(outcome)


class Asker:
    """A stream that waits."""

    def __init__(self) -> None:
        self.ended = False
        self.outcomes: list[Any] = []

    def on_answer(self, outcome: Any) -> None:
        self.outcomes.append(outcome)


def queries_of(store: Store, at_once_max: int = 2) -> StoreQueries:
    return StoreQueries(store, at_once_max)  # type: ignore[arg-type]


def entry(position: int, *topics: str) -> Entry:
    return Entry(position, topics, None, encode_frame(b"x", None, b"1", 0, position))


def stretch(*entries: Entry) -> Stretch:
    return Stretch(entries, 9, True, Evicted(0, 0))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("read", (("t",), 5, 100)),
        ("newest", (("t",), 5, 100)),
        ("seek", (("t",), Cursor("after", "1-1"))),
        ("ended_topics", (("t",),)),
    ],
)
def test_every_query_is_passed_on_and_its_answer_returned(
    name: str, words: tuple[Any, ...]
) -> None:
    store, asker = Store(answer="now"), Asker()
    assert getattr(queries_of(store), name)(*words, asker) == "now"
    assert store.asked == [(name, *words)]
    assert asker.outcomes == [], "it was returned"
    store, askers = Store(), (Asker(), Asker())
    queries = queries_of(store)
    for one in askers:
        assert getattr(queries, name)(*words, one) is UNKNOWN_YET
    assert store.asked == [(name, *words)], "two askers, one query"
    store.answer((name, *words), "later")
    assert [one.outcomes for one in askers] == [["later"], ["later"]]
    assert queries.under_way == 0
    assert getattr(queries, name)(*words, askers[0]) is UNKNOWN_YET, "it is asked again"
    assert len(store.asked) == 2


def test_a_store_without_ended_topics_is_known_as_such() -> None:
    store = Store()
    queries = queries_of(store)
    assert queries.has_ended is False
    store.has_ended = True
    assert queries.has_ended is True


def test_queries_that_differ_in_anything_are_apart() -> None:
    store, asker = Store(), Asker()
    queries = queries_of(store, 10)
    queries.read(("t",), 5, 100, asker)
    queries.read(("u",), 5, 100, asker)
    queries.read(("t",), 6, 100, asker)
    queries.read(("t",), 5, 101, asker)
    queries.newest(("t",), 5, 100, asker)
    queries.newest(("t",), 6, 100, asker)
    queries.newest(("t",), 5, 101, asker)
    assert len(store.asked) == queries.under_way == 7


def test_only_so_many_are_under_way_and_the_oldest_is_next() -> None:
    store, asker = Store(), Asker()
    queries = queries_of(store, 2)
    for after in range(5):
        queries.read(("t",), after, 1, asker)
    assert (queries.under_way, queries.waiting) == (2, 3)
    order = [0, 1]
    assert [one[2] for one in store.asked] == order
    for answered, begun in ((1, 2), (0, 3), (2, 4)):
        store.answer(("read", ("t",), answered, 1), answered)
        order.append(begun)
        assert [one[2] for one in store.asked] == order
        assert queries.under_way == 2
    assert queries.waiting == 0
    assert asker.outcomes == [1, 0, 2]


def test_a_query_without_a_stream_that_waits_is_not_asked() -> None:
    store, first, gone, other = Store(), Asker(), Asker(), Asker()
    queries = queries_of(store, 1)
    queries.read(("t",), 1, 1, first)
    queries.read(("t",), 2, 1, gone)
    queries.read(("t",), 3, 1, gone)
    queries.read(("t",), 3, 1, other)
    gone.ended = True
    store.answer(("read", ("t",), 1, 1), "one")
    assert [one[2] for one in store.asked] == [1, 3]
    store.answer(("read", ("t",), 3, 1), "three")
    assert (gone.outcomes, other.outcomes) == ([], ["three"])
    queries.read(("t",), 2, 1, other)
    assert [one[2] for one in store.asked] == [1, 3, 2], "the query that was dropped can be asked"


def test_an_asker_may_ask_the_same_again_from_its_answer() -> None:
    store, queries = Store(), None

    class Again(Asker):
        def on_answer(self, outcome: Any) -> None:
            super().on_answer(outcome)
            if len(self.outcomes) == 1:
                queries.read(("t",), 1, 1, self)

    queries = queries_of(store)
    again = Again()
    queries.read(("t",), 1, 1, again)
    for number in (1, 2):
        store.answer(("read", ("t",), 1, 1), number)
    assert again.outcomes == [1, 2]


def test_what_is_deleted_while_a_query_is_under_way_is_not_in_its_answer() -> None:
    store, asker = Store(), Asker()
    queries = queries_of(store)
    question = ("read", ("t", "u"), 0, 9)
    entries = [entry(1, "t"), entry(2, "u"), entry(3, "t"), entry(4, "t", "u"), entry(5, "u")]
    queries.read(("t", "u"), 0, 9, asker)
    queries.on_erased(Erased(3, None))
    queries.on_erased(Erased(4, "u"))
    store.answer(question, stretch(*entries))
    (given,) = asker.outcomes
    assert [one.position for one in given.entries] == [1, 5]
    assert given[1:] == stretch()[1:]
    # The store knows it by now.
    queries.read(("t", "u"), 0, 9, asker)
    store.answer(question, stretch(*entries))
    assert asker.outcomes[1] == stretch(*entries)


def test_a_deletion_counts_until_no_query_is_under_way() -> None:
    store, asker = Store(), Asker()
    queries = queries_of(store)
    queries.on_erased(Erased(1, None))
    for after in (1, 2):
        queries.read(("t",), after, 9, asker)
    queries.on_erased(Erased(2, None))
    for after in (1, 2):
        store.answer(("read", ("t",), after, 9), stretch(entry(1, "t"), entry(2, "t")))
    assert [[one.position for one in given.entries] for given in asker.outcomes] == [[1], [1]]


def test_an_error_and_an_answer_of_another_kind_pass_as_they_are() -> None:
    store, asker = Store(), Asker()
    queries = queries_of(store)
    refused = Unavailable("store", 1)
    queries.read(("t",), 1, 1, asker)
    queries.seek(("t",), Cursor("after", "own"), asker)
    queries.on_erased(Erased(7, None))
    store.answer(("read", ("t",), 1, 1), refused)
    store.answer(("seek", ("t",), Cursor("after", "own")), 7)
    assert asker.outcomes == [refused, 7]
