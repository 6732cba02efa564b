"""The table of publishers' keys: single keys and whole batches of them."""

import random
from collections import deque
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse._keys import NEW_KEYS_MAX
from fastsse.backbone.keys import KEY_COST_BYTES, KeyTable, KnownKey, key_cost
from fastsse.positions import Clock as PositionClock

WINDOW_MS: Final = 100
ROOM: Final = 12 * (KEY_COST_BYTES + 1)

KEYS = st.sampled_from([bytes((letter,)) for letter in b"abcdefgh"])
STEPS = st.one_of(
    st.tuples(st.just("wait"), st.integers(1, WINDOW_MS)),
    st.tuples(st.just("add"), KEYS),
    st.tuples(st.just("batch"), st.lists(st.one_of(st.none(), KEYS), min_size=1, max_size=6)),
)


class Clock:
    """Milliseconds that only a test moves."""

    def __init__(self) -> None:
        self.now_ms = 1_000

    def __call__(self) -> int:
        return self.now_ms


def digest_of(key: bytes | None) -> bytes | None:
    return None if key is None else key * 16


@given(st.lists(STEPS, max_size=40))
def test_a_table_knows_each_key_for_the_window_and_counts_what_it_has(steps) -> None:
    clock = Clock()
    table = KeyTable(WINDOW_MS, ROOM, clock)
    known: dict[bytes, tuple[int, int]] = {}  # Position, and until when.
    position = 0
    for kind, what in steps:
        known = {key: row for key, row in known.items() if row[1] > clock.now_ms}
        if kind == "wait":
            clock.now_ms += what
        elif kind == "add" and what not in known:
            position += 1
            table.add(what, KnownKey(digest_of(what) or b"", (position,)))
            known[what] = position, clock.now_ms + WINDOW_MS
        elif kind == "batch":
            new = [key for key in what if key is not None]
            fits = key_cost(b"a", 1) * (len(known) + len(new)) <= ROOM
            is_new = len({*new}) == len(new) and known.keys().isdisjoint(new)
            places = range(position + 1, position + 1 + len(what))
            stored = table.add_new(what, list(map(digest_of, what)), lambda places=places: places)
            assert stored == (places if fits and is_new else None)
            if stored is not None:
                position += len(what)
                until_ms = clock.now_ms + WINDOW_MS
                rows = [(place, until_ms) for place in places]
                known |= {key: row for key, row in zip(what, rows, strict=True) if key is not None}
    table.has_room(0)
    known = {key: row for key, row in known.items() if row[1] > clock.now_ms}
    assert len(table) == len(known)
    assert table.bytes == sum(key_cost(key, 1) for key in known)
    for key, (place, _) in known.items():
        assert table.find(key) == KnownKey(digest_of(key) or b"", (place,))


def test_a_key_of_a_request_with_several_events_has_all_its_positions() -> None:
    table = KeyTable(WINDOW_MS, ROOM, Clock())
    table.add(b"k", KnownKey(b"digest", (4, 5, 6)))
    assert table.find(b"k") == KnownKey(b"digest", (4, 5, 6))
    assert table.bytes == key_cost(b"k", 3)


def test_a_key_that_comes_again_counts_once() -> None:
    clock = Clock()
    table = KeyTable(WINDOW_MS, ROOM, clock)
    table.add(b"k", KnownKey(b"", (4,)))
    clock.now_ms += 10
    table.add(b"k", KnownKey(b"", (9,)))
    assert table.bytes == key_cost(b"k", 1)
    clock.now_ms += WINDOW_MS - 10
    assert table.find(b"k") == KnownKey(b"", (9,))
    clock.now_ms += 10
    assert table.has_room(ROOM)
    assert table.bytes == len(table) == 0


def test_a_table_without_a_window_remembers_nothing() -> None:
    table = KeyTable(0, ROOM, Clock())
    assert table.add_new([b"k"], [b"d"], lambda: (4,)) == (4,)
    assert len(table) == table.bytes == 0


def test_many_keys_come_and_go_and_each_is_found_while_it_is_known() -> None:
    chance, clock = random.Random(7), Clock()
    table = KeyTable(WINDOW_MS, 1 << 40, clock)
    known: deque[tuple[bytes, tuple[int, ...], int]] = deque()
    for nth in range(30_000):
        # Keys of all lengths, so rows lie over the ends of blocks.
        key = b"%d-" % nth + b"k" * chance.randrange(300)
        places = tuple(range(nth, nth + chance.choice((1, 1, 1, 3))))
        table.add(key, KnownKey(key[:16], places))
        known.append((key, places, clock.now_ms + WINDOW_MS))
        clock.now_ms += chance.random() < 0.1
        if nth % 500 == 0:
            table.has_room(0)
            while known[0][2] <= clock.now_ms:
                assert table.find(known.popleft()[0]) is None
            assert len(table) == len(known)
            assert table.bytes == sum(key_cost(key, len(places)) for key, places, _ in known)
            for key, places, _ in chance.sample(known, min(len(known), 50)):
                assert table.find(key) == KnownKey(key[:16], places)
    clock.now_ms += WINDOW_MS
    assert table.has_room(1 << 40)
    assert len(table) == table.bytes == 0


def test_a_key_that_is_used_again_while_a_batch_is_appended_is_remembered_once() -> None:
    table = KeyTable(WINDOW_MS, ROOM, Clock())

    def append() -> tuple[int, ...]:
        table.add(b"a", KnownKey(b"other", (1,)))
        return (2, 3)

    assert table.add_new([b"a", b"b"], [b"x", b"y"], append) == (2, 3)
    assert table.find(b"a") == KnownKey(b"x", (2,))
    assert table.bytes == 2 * key_cost(b"a", 1)
    assert len(table) == 2


def test_a_batch_that_could_not_be_appended_leaves_no_key() -> None:
    table = KeyTable(WINDOW_MS, ROOM, Clock())

    def append() -> tuple[int, ...]:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        table.add_new([b"a"], [b"x"], append)
    assert len(table) == table.bytes == 0
    assert table.add_new([b"a"], [b"x"], lambda: (1,)) == (1,)


def test_positions_of_a_run_are_those_of_its_events() -> None:
    clock = Clock()
    table = KeyTable(WINDOW_MS, ROOM, clock)
    positions = PositionClock(clock).take_all(3)
    assert table.add_new([b"a", None, b"c"], [b"x", None, b"z"], lambda: positions) is positions
    assert table.find(b"a") == KnownKey(b"x", (positions[0],))
    assert table.find(b"c") == KnownKey(b"z", (positions[2],))


def test_a_batch_of_too_many_keys_is_left_to_be_judged_one_by_one() -> None:
    table = KeyTable(WINDOW_MS, 1 << 40, Clock())
    keys: list[bytes | None] = [b"%d" % nth for nth in range(NEW_KEYS_MAX + 1)]
    assert table.add_new(keys, keys, lambda: ()) is None
    assert table.add_new(keys[1:], keys[1:], lambda: range(NEW_KEYS_MAX)) == range(NEW_KEYS_MAX)
    assert table.find(b"256") == KnownKey(b"256", (255,))
