"""What a hub process keeps in memory is what a worker would, however rarely it is looked at."""

from hypothesis import given
from hypothesis import strategies as st

from fastsse.bus.server.memory import HubMemory
from fastsse.config import Config
from fastsse.entries import encode_entries
from fastsse.events import Event
from fastsse.hub.history import History
from fastsse.hub.topics import Rules, Topics
from fastsse.positions import position_at, position_ms

CONFIG = Config(
    port=0,
    history_events=3,
    lag_policy="skip",
    topics=[{"match": "none", "history_events": 0}, {"match": "few", "history_bytes": "1KiB"}],
)
START_MS = 1_000

names = st.sampled_from(["a", "b", "few", "none"])
topics = st.lists(names, min_size=1, max_size=3, unique=True)
steps = st.lists(st.lists(topics, min_size=1, max_size=30), max_size=6)


@given(steps, st.lists(st.booleans(), min_size=6, max_size=6))
def test_it_keeps_the_same_as_a_worker(batches: list[list[list[str]]], look: list[bool]) -> None:
    kept = HubMemory(lambda: START_MS, CONFIG, CONFIG)
    kept.tail(kept.head, lambda entries: None, lambda reason, place: None)
    topics = Topics(Rules(CONFIG, CONFIG.lag_policy), kept.start)
    history = History(topics, CONFIG.history_total, kept.start)
    first = position_at(START_MS) + 1
    for batch, looked_at in zip(batches, look, strict=False):
        events = [Event(one, "x" * 200, id=f"{first + n}x") for n, one in enumerate(batch)]
        entries = encode_entries(range(first, first + len(events)), events)
        first += len(events)
        kept.keep(entries)
        for _, names, own_id, frame, _ in entries:
            history.append(frame, tuple(map(topics.intern, names)), own_id)
        if looked_at:
            assert kept.history.events <= history.events
    assert [one.position for one in kept.history.entries(0)] == [
        one.position for one in history.entries(0)
    ]
    assert (kept.history.events, kept.history.bytes) == (history.events, history.bytes)
    left, right = kept.history.evictions(), history.evictions()
    assert left.of_all == right.of_all
    lost = {name: place for name, place in right.by_topic.items() if place > kept.start}
    assert {name: place for name, place in left.by_topic.items() if place > kept.start} == lost


def test_hubs_that_are_lost_one_after_the_other_do_not_move_positions_away_from_the_clock() -> None:
    clock = [START_MS]
    kept = HubMemory(lambda: clock[0], CONFIG, CONFIG)
    for _ in range(100):
        before = kept.head
        clock[0] += 60
        kept = HubMemory(lambda: clock[0], CONFIG, CONFIG)
        kept.go_on(0, before)
        assert kept.head > before
        assert position_ms(kept.head) - clock[0] <= 2_000
