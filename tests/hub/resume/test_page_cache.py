"""Pages are kept for streams that resume from the same place: the last used ones, within a bound of
bytes, and never one that says less than the stream must be sent."""

import sys
from typing import Any

import pytest

from fastsse._core import raw_frame
from fastsse.evicted import Evicted
from fastsse.hub.resume import pages
from fastsse.hub.resume.pages import (
    KEY_FREE_BYTES,
    PAGE_COST_BYTES,
    TOPIC_COST_BYTES,
    EvictionsSeen,
    JoinedPage,
    PageCache,
)

NOTHING_SEEN = EvictionsSeen()
SIZE = 2_000


def page(through: int = 9, size: int = SIZE, **other: Any) -> JoinedPage:
    given = {"is_last": False, "is_stored": False, "evicted": Evicted(), "lost_through": 0, **other}
    return JoinedPage(raw_frame(b"x" * size), 1, through, **given)


def key(after: int, *names: str, grants: tuple[str, ...] = ()) -> Any:
    return names or ("a",), grants, after, None


def cost(names: tuple[str, ...], size: int = SIZE) -> int:
    return size + PAGE_COST_BYTES + sum(sys.getsizeof(one) + TOPIC_COST_BYTES for one in names)


ONE = cost(("a",))


def found(cache: PageCache, *places: int) -> list[bool]:
    return [cache.find(key(place), 9, NOTHING_SEEN) is not None for place in places]


def test_the_pages_that_were_used_last_stay_within_the_bound() -> None:
    cache = PageCache(2 * ONE)
    for place in (1, 2):
        cache.keep(key(place), page())
    assert (len(cache), cache.bytes) == (2, 2 * ONE)
    assert found(cache, 1) == [True]
    cache.keep(key(3), page())
    assert (len(cache), cache.bytes) == (2, 2 * ONE)
    assert found(cache, 1, 2, 3) == [True, False, True]
    cache.keep(key(4), page(size=2 * ONE))
    assert (len(cache), cache.bytes) == (0, 0), "larger than all of it"
    cache.keep(key(5), page())
    cache.clear()
    assert (len(cache), cache.bytes) == (0, 0)
    assert found(cache, 5) == [False]


def test_a_page_takes_the_place_of_an_earlier_one() -> None:
    cache = PageCache(10 * ONE)
    cache.keep(key(1), page(5))
    cache.keep(key(1), page(6, size=SIZE + 7))
    assert (len(cache), cache.bytes) == (1, ONE + 7)
    kept = cache.find(key(1), 9, NOTHING_SEEN)
    assert kept is not None
    assert kept.through == 6
    cache.keep(key(1), page()._replace(frame=None))
    assert (len(cache), cache.bytes) == (1, ONE + 7)


def test_there_are_only_so_many_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGES_MAX", 3)
    cache = PageCache(100 * ONE)
    for place in range(5):
        cache.keep(key(place), page())
    assert found(cache, 0, 1, 2, 3, 4) == [False, False, True, True, True]
    assert cache.bytes == 3 * ONE


def test_names_that_are_longer_than_their_page_are_not_kept() -> None:
    empty = sys.getsizeof("") + TOPIC_COST_BYTES
    cache = PageCache(1_000_000)
    for free_bytes, size in ((KEY_FREE_BYTES, 10), (3_000, 3_000)):
        fits, is_longer = "n" * (free_bytes - empty), "n" * (free_bytes - empty + 1)
        cache.keep(key(1, is_longer), page(size=size))
        # Grants count as names do.
        cache.keep(key(1, fits, grants=("g",)), page(size=size))
        assert len(cache) == 0
        cache.keep(key(1, fits), page(size=size))
        assert (len(cache), cache.bytes) == (1, cost((fits,), size))
        cache.clear()


def test_a_last_page_holds_until_the_next_event() -> None:
    cache = PageCache()
    cache.keep(key(1), page(9, is_last=True))
    assert cache.find(key(1), 9, NOTHING_SEEN) is not None
    assert cache.find(key(1), 10, NOTHING_SEEN) is None
    cache.keep(key(2), page(9))
    assert cache.find(key(2), 10, NOTHING_SEEN) is not None


@pytest.mark.parametrize("is_stored", [False, True])
def test_a_page_of_before_an_eviction_that_a_stream_knows_is_not_sent(is_stored: bool) -> None:
    cache = PageCache()
    cache.keep(key(1), page(evicted=Evicted(5), is_stored=is_stored))
    for clock, is_sent in ((4, True), (5, True), (6, False)):
        seen = EvictionsSeen(store=clock) if is_stored else EvictionsSeen(memory=clock)
        assert (cache.find(key(1), 9, seen) is not None) is is_sent
    other = EvictionsSeen(memory=6) if is_stored else EvictionsSeen(store=6)
    assert cache.find(key(1), 9, other) is not None
