"""The table of publishers' keys: single keys and whole batches of them."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from fastsse.backbone.keys import KEY_COST_BYTES, KeyTable, KnownKey, key_cost

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
