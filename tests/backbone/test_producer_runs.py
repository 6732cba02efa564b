"""What sources bring is stored the short way exactly as the judge would have it."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fastsse._batch import producer_runs
from fastsse.backbone.keys import KeyTable
from fastsse.backbone.memory import MemoryBackbone
from fastsse.backbone.producers import ProducerTable
from fastsse.directives import Directives, Producer
from fastsse.entries import Entry
from fastsse.events import Event
from tests.sources.soak import NoStates

HOUR_MS = 3_600_000


class LongWay(MemoryBackbone):
    """Judges event by event."""

    def _append_runs(self, events: Any, runs: Any, done: Any) -> bool:
        return False


class Log:
    """A log in memory, what it delivered, and what it answered."""

    def __init__(self, kind: type[MemoryBackbone], *, keeps_keys: bool, room_bytes: int) -> None:
        self.delivered: list[Any] = []
        self.answers: list[Any] = []
        self.backbone = kind(lambda: 1000)
        self.backbone.keeps_keys = keeps_keys  # type: ignore[misc]
        self.backbone.states = NoStates()
        self.backbone.keys = KeyTable(HOUR_MS, 1 << 20, lambda: 1000)
        self.backbone.producers = ProducerTable(HOUR_MS, room_bytes, lambda: 1000)
        self.backbone.tail(self.backbone.start, self._deliver, lambda why, place: None)

    def append(self, asked: Sequence[Directives | None]) -> None:
        events = [Event("t", str(n), directives=one) for n, one in enumerate(asked)]
        self.backbone.append(events, self._answered)

    def _answered(self, outcome: Any) -> None:
        found = list(outcome) if not isinstance(outcome, Exception) else str(outcome)
        self.answers.append((found, getattr(outcome, "duplicates", 0)))

    def _deliver(self, entries: Sequence[Entry]) -> None:
        self.delivered += [
            (entry.position, entry.frame.body, None if entry[4] is None else entry[4].key)
            for entry in entries
        ]


def asked() -> st.SearchStrategy[Directives | None]:
    plain = st.builds(
        Producer,
        st.sampled_from((b"a", b"b")),
        st.integers(0, 1),
        st.integers(0, 6),
        st.just(False),
    )
    strict = st.builds(Producer, st.just(b"c"), st.just(0), st.integers(0, 2), st.just(True))
    numbered = (plain | strict).map(lambda one: Directives(producer=one))
    return numbered | st.sampled_from((None, Directives(key=b"k1"), Directives(ttl_ms=5)))


def rising() -> st.SearchStrategy[list[Directives | None]]:
    def batch(start: int, count: int, epoch: int) -> list[Directives | None]:
        return [
            Directives(producer=Producer(b"ab"[n % 2 : n % 2 + 1], epoch, start + n))
            for n in range(count)
        ]

    return st.builds(batch, st.integers(0, 8), st.integers(1, 6), st.integers(0, 1))


@given(
    batches=st.lists(st.lists(asked(), min_size=1, max_size=5) | rising(), max_size=6),
    keeps_keys=st.booleans(),
    room_bytes=st.sampled_from((1 << 20, 300, 600)),
)
def test_short_and_long_way_store_answer_and_remember_the_same(
    batches: list[list[Directives | None]], keeps_keys: bool, room_bytes: int
) -> None:
    logs = [
        Log(kind, keeps_keys=keeps_keys, room_bytes=room_bytes)
        for kind in (MemoryBackbone, LongWay)
    ]
    for batch in batches:
        for log in logs:
            log.append(batch)
    short, long = logs
    assert short.answers == long.answers
    assert short.delivered == long.delivered
    assert short.backbone.producers._rows == long.backbone.producers._rows
    assert short.backbone.producers.bytes == long.backbone.producers.bytes


def test_only_rising_numbers_of_producers_and_nothing_else_are_runs() -> None:
    def runs(*given: Directives | None) -> Any:
        return producer_runs([Event("t", directives=one) for one in given])

    def number(key: bytes, epoch: int, sequence: int, gaps: bool = False) -> Directives:
        return Directives(producer=Producer(key, epoch, sequence, gaps))

    mixed = (number(b"a", 0, 3), number(b"b", 1, 0), number(b"a", 0, 7))
    assert runs(*mixed) == {b"a": [0, 3, 7, 2], b"b": [1, 0, 0, 1]}
    assert runs(number(b"a", 0, 3), number(b"a", 0, 3)) is None
    assert runs(number(b"a", 0, 3), number(b"a", 1, 4)) is None
    assert runs(number(b"a", 0, 0, True)) is None
    assert runs(number(b"a", 0, 0), None) is None
    for more in ({"key": b"k"}, {"ttl_ms": 0}, {"ends": True}, {"control": b""}, {"takes": b""}):
        assert runs(number(b"a", 0, 0)._replace(**more)) is None
