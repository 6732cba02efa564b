"""History does what a plain model of it does, whatever is published, evicted and read."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsse._hub import EVENT_COST_BYTES, OWN_ID_COST_BYTES, TOPIC_COST_BYTES, set_cuts
from fastsse.config import HistoryOptions, TopicRule
from fastsse.positions import position_at
from tests.hub.made_history import START, Made, make, positions

# -- a model ------------------------------------------------------------------------------------

NAMES = ("a", "b", "few", "brief", "small", "none", "current", "latest")
RULES = (
    TopicRule(match="few", history_events=2),
    TopicRule(match="brief", history_age=2.0),
    TopicRule(match="small", history_bytes=600),
    TopicRule(match="none", history_events=0),
    TopicRule(match="current", history_age=1.0, keep_last=1),
    TopicRule(match="latest", keep_last=3),
)
TOTAL_BYTES = 6_000


@dataclass
class ModelEvent:
    position: int
    size: int
    names: tuple[str, ...]
    own_id: bytes | None = None


@dataclass
class Model:
    """The same promises, by lists that are searched."""

    limits: HistoryOptions
    kept: dict[str, list[ModelEvent]] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    lost_of_all: int = START
    ids: dict[bytes, int] = field(default_factory=dict)
    # Through which place a topic's events stayed only as its newest; and what was looked at for
    # the total.
    spared: dict[str, int] = field(default_factory=dict)
    looked_through: int = 0

    def alive(self) -> list[ModelEvent]:
        events = {id(event): event for log in self.kept.values() for event in log}
        return sorted(events.values(), key=lambda event: event.position)

    def cost(self) -> int:
        alive = self.alive()
        topics = sum(1 for log in self.kept.values() if log)
        events = sum(event.size + EVENT_COST_BYTES for event in alive)
        return events + topics * TOPIC_COST_BYTES + len(self.ids) * OWN_ID_COST_BYTES

    def evict_first(self, name: str) -> None:
        event = self.kept[name].pop(0)
        self.lost[name] = event.position
        if not any(event in log for log in self.kept.values()):
            self.lost_of_all = max(self.lost_of_all, event.position)
            if event.own_id is not None and self.ids.get(event.own_id) == event.position:
                del self.ids[event.own_id]

    def append(self, event: ModelEvent) -> None:
        for name in event.names:
            self.kept.setdefault(name, []).append(event)
        if event.own_id is not None:
            self.ids.setdefault(event.own_id, event.position)
        for name in event.names:
            limits, log = self.limits.limits(name), self.kept[name]
            while log and (
                len(log) > limits.events
                or sum(event.size + EVENT_COST_BYTES for event in log) > limits.bytes
                or (len(log) > limits.keep_last and log[0].position <= self.spared.get(name, 0))
            ):
                self.evict_first(name)
        while self.cost() > TOTAL_BYTES:
            alive = self.alive()
            later = [one for one in alive if one.position > self.looked_through]
            if later:
                self.looked_through = later[0].position
            for name in (later or alive)[0].names:
                self.evict_at(name, (later or alive)[0], spares=bool(later))

    def evict_at(self, name: str, event: ModelEvent, *, spares: bool) -> None:
        if self.kept[name][:1] != [event]:
            return
        if spares and len(self.kept[name]) <= self.limits.limits(name).keep_last:
            self.spared[name] = event.position
        else:
            self.evict_first(name)

    def sweep(self, now_ms: int) -> None:
        for name, log in self.kept.items():
            limits = self.limits.limits(name)
            horizon = position_at(now_ms - round(limits.age_s * 1000))
            while len(log) > limits.keep_last and log[0].position <= horizon:
                self.evict_first(name)
            aged = [event.position for event in log if event.position <= horizon]
            if aged:
                self.spared[name] = max(aged[-1], self.spared.get(name, 0))

    def read(self, names: tuple[str, ...], after: int) -> list[int]:
        return [
            event.position
            for event in self.alive()
            if event.position > after
            and (names == ("*",) or any(event in self.kept.get(name, ()) for name in names))
        ]


adding = st.tuples(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True),
    st.integers(10, 300),
    st.sampled_from([None, None, b"x", b"y"]),
)
steps = st.lists(adding | st.integers(0, 3_000), max_size=120)
readers = st.lists(st.sampled_from(NAMES), min_size=1, unique=True).map(tuple) | st.just(("*",))


@contextlib.contextmanager
def small_cuts(least: int, block: int) -> Iterator[None]:
    set_cuts(least, block)
    try:
        yield
    finally:
        set_cuts(64, 32 * 1024)


@settings(deadline=None, max_examples=200)
@given(steps=steps, names=readers, limit_bytes=st.integers(1, 1000), cut=st.integers(0, 120))
@pytest.mark.parametrize("cut_min", [1, 64])
def test_history_keeps_and_reads_what_the_model_does(
    cut_min: int,
    steps: list[tuple[list[str], int, bytes | None] | int],
    names: tuple[str, ...],
    limit_bytes: int,
    cut: int,
) -> None:
    with small_cuts(cut_min, 8):
        made = make(*RULES, history_events=20, history_age=5.0, history_total=TOTAL_BYTES)
        model = Model(made.history_options)
        seen = [START]
        for step in steps:
            if isinstance(step, int):
                made.now_ms += step
                made.history.sweep(made.now_ms)
                model.sweep(made.now_ms)
            else:
                topics, size, own_id = step
                seen.append(made.add(*topics, size=size, own_id=own_id))
                model.append(ModelEvent(seen[-1], size, tuple(topics), own_id))
            assert (made.history.bytes, made.history.events) == (model.cost(), len(model.alive()))
        check_reader(made, model, names, seen[min(cut, len(seen) - 1)], limit_bytes)


def check_reader(
    made: Made, model: Model, names: tuple[str, ...], after: int, limit_bytes: int
) -> None:
    """Reads page by page from a place and compares with the model, and everything else there is
    to know."""
    lost = max(model.lost.get(name, START) for name in names)
    assert made.lost_through(*names) == (model.lost_of_all if names == ("*",) else lost)
    assert {own_id: made.history.find(own_id) for own_id in model.ids} == model.ids
    expected = model.read(names, after)
    earliest = model.read(names, 0)
    selection = made.select(*names)
    for count in (1, 3, 1000):
        newest = earliest[-count:]
        before = newest[0] - 1 if newest else made.history.head
        assert made.history.before_newest(selection, count) == (before, len(newest) == count)
    read: list[int] = []
    while True:
        page = made.history.page(selection, after, limit_bytes)
        read += positions(page.frames)
        assert len(page.frames) <= 1 or sum(frame.size for frame in page.frames) <= limit_bytes
        if page.is_last:
            break
        after = page.through
    assert read == expected
