"""Where a replay begins, what it must not reveal, and what each of its pages reports."""

import json
from dataclasses import replace
from typing import Any

import pytest

from fastsse._core import encode_frame
from fastsse.auth.rights import Rights
from fastsse.backbone import Stretch
from fastsse.entries import Entry, encode_entries
from fastsse.events import Event
from fastsse.evicted import Evicted
from fastsse.hub.resume.cursor import (
    GapEvent,
    ReplayCursor,
    ReplayStart,
    after_gap,
    begin,
    begin_at,
    is_hidden,
)
from fastsse.hub.resume.pages import JoinedPage
from fastsse.positions import format_position
from fastsse.subscriptions import Cursor
from tests.eventstream import parse
from tests.hub.readers import memory_pages, read
from tests.hub.resume.kept import START, Kept

# --- private events


GRANTED = Rights(subscribe=["a"])
OTHERS = Rights(subscribe=["b"])


@pytest.mark.parametrize(
    ("rights", "is_readable"), [(GRANTED, True), (OTHERS, False), (None, False)]
)
def test_the_own_id_of_a_private_event_is_unknown_without_a_grant(
    rights: Rights | None, is_readable: bool
) -> None:
    kept = Kept("a")
    position = kept.add_private("a", b"secret")
    kept.add("a")
    audience = replace(kept.audience("a"), rights=rights)
    start = begin(kept.history, audience, Cursor("after", b"secret"))
    assert start is not None
    if is_readable:
        assert (start.replay.after, start.gap) == (position, None)
    else:
        assert start.gap is not None
        assert (start.gap.reason, start.gap.requested) == ("unknown", b"secret")
        # In place of the secret position.
        assert start.replay.after == kept.history.head


def stored(*topics: str, private: bool) -> list[Entry]:
    """Three entries of the store, of which the second one may be private."""
    events = [Event(topics, b"x", private=private and n == 1) for n in range(3)]
    return encode_entries([START + 100, START + 101, START + 102], events)


def test_a_stored_private_event_is_hidden_without_a_grant() -> None:
    kept = Kept("a")
    public, private = stored("a", private=False), stored("a", private=True)
    for rights in (GRANTED, OTHERS, None):
        assert not is_hidden(kept.history, public, START + 101, rights)
        # Only the entry at the place counts.
        assert not is_hidden(kept.history, private, START + 100, rights)
        assert is_hidden(kept.history, private, START + 101, rights) is (rights is not GRANTED)
    assert not is_hidden(kept.history, (), START + 101, None)


def test_a_private_event_in_memory_is_hidden_without_a_grant() -> None:
    kept = Kept("a")
    position = kept.add_private("a", b"secret")
    assert is_hidden(kept.history, (), position, None)
    assert is_hidden(kept.history, (), position, OTHERS)
    assert not is_hidden(kept.history, (), position, GRANTED)
    assert not is_hidden(kept.history, (), START + 1, None)


# --- what memory can say alone


def test_memory_begins_last_n_alone_exactly_while_nothing_was_evicted() -> None:
    kept = Kept("a", "a", "a")
    start = begin(kept.history, kept.audience("a"), Cursor("last", 2))
    assert start is not None
    assert (start.replay.after, start.gap) == (START + 1, None)
    assert begin(kept.history, kept.audience("a"), Cursor("last", 4)) is None
    few = Kept(*"aaa", history_events=2)
    assert few.history.evicted_through(few.audience("a").topics) == START + 1
    edge = begin(few.history, few.audience("a"), Cursor("last", 2))
    assert edge is not None
    assert edge.replay.after == START + 1


def test_a_replay_since_a_time_is_of_kept_events_only() -> None:
    few = Kept(*"aaa", history_events=2)
    replay, _ = few.begin("a", Cursor("since", 2_000))
    assert replay.after > 0
    assert replay.is_kept_only


def test_memory_begins_since_a_time_alone_where_it_has_all_after_it() -> None:
    few = Kept(*"aaa", history_events=2)
    audience = few.audience("a")
    later = begin(few.history, audience, Cursor("since", 2_000))
    assert later is not None
    assert later.replay.after == few.history.head
    assert begin(few.history, audience, Cursor("since", 0)) is None


def test_a_place_that_the_store_found_is_where_the_stream_continues() -> None:
    kept = Kept("a", "a")
    head, cursor = kept.history.head, Cursor("after", b"own")
    for place in (START + 1, head):
        start = begin_at(kept.history, kept.audience("a"), cursor, place)
        assert (start.replay.after, start.replay.requested, start.gap) == (place, b"own", None)
    beyond = begin_at(kept.history, kept.audience("a"), cursor, head + 1)
    assert beyond.gap is not None
    assert beyond.gap.reason == "future"


# --- gap events


def test_a_gap_before_a_snapshot_has_no_id() -> None:
    gap = GapEvent("evicted", b"1-0", START)
    (event,) = parse(gap.encode()).events
    (bare,) = parse(gap.before_snapshot().encode()).events
    assert (event.type, bare.type) == ("fastsse.gap", "fastsse.gap")
    assert json.loads(event.data) == json.loads(bare.data)
    assert b"id:" in gap.encode()
    assert b"id:" not in gap.before_snapshot().encode()


def test_a_gap_in_a_replay_stands_before_its_page() -> None:
    gap = GapEvent("evicted", b"1-0", START)
    page = encode_frame(b"x", None, None, 0, START + 5)
    assert after_gap(gap, None).body == gap.encode()
    assert after_gap(gap, page).body == gap.encode() + page.body


# --- page by page


def page(through: int, **other: Any) -> JoinedPage:
    given = {"is_last": True, "is_stored": False, "evicted": Evicted(), "lost_through": 0, **other}
    return JoinedPage(None, START + 50, through, **given)


def test_a_page_moves_the_place_and_names_it_in_the_next_gap() -> None:
    replay = ReplayCursor(START, b"mine")
    assert replay.advance(page(START + 9)) is None
    assert (replay.after, replay.requested) == (START + 9, format_position(START + 9))
    later = replay.advance(page(START + 20, evicted=Evicted(5, ((5, START + 12),))))
    assert later is not None
    assert (later.reason, later.requested) == ("evicted", format_position(START + 9))
    assert later.resumes_at == START + 50


@pytest.mark.parametrize("is_stored", [False, True])
def test_an_eviction_is_reported_once_by_each_of_the_two_counters(is_stored: bool) -> None:
    replay = ReplayCursor(START, b"mine")
    evicted = Evicted(5, ((5, START + 30),))
    assert replay.advance(page(START + 9, evicted=evicted, is_stored=is_stored)) is not None
    assert replay.advance(page(START + 10, evicted=evicted, is_stored=is_stored)) is None
    # The other counter has not reported anything.
    assert replay.advance(page(START + 11, evicted=evicted, is_stored=not is_stored)) is not None


def test_a_loss_is_reported_once_and_only_behind_the_place() -> None:
    replay = ReplayCursor(START, b"mine")
    assert replay.advance(page(START + 9, lost_through=START)) is None
    gap = replay.advance(page(START + 10, lost_through=START + 20))
    assert gap is not None
    assert (gap.reason, gap.resumes_at) == ("lost", START + 50)
    assert replay.advance(page(START + 11, lost_through=START + 20)) is None


def test_damage_behind_the_place_is_a_loss_and_what_the_page_passes_is_reported_with_it() -> None:
    replay = ReplayCursor(START, b"mine")
    gap = replay.advance(
        page(START + 9, damaged_through=START + 5, lost_through=START + 20, is_stored=True)
    )
    assert gap is not None
    assert gap.reason == "lost"
    assert replay.loss_reported_through == START + 9
    # Behind what the page passed, the same loss is news.
    assert replay.advance(page(START + 15, lost_through=START + 20)) is not None
    assert replay.loss_reported_through == START + 20


def test_nothing_before_the_source_began_is_missing_for_who_asks_for_kept_events_only() -> None:
    evicted = Evicted(5, ((5, START + 3),), begins=START + 3)
    assert (
        ReplayCursor(START, b"", is_kept_only=True).advance(page(START + 9, evicted=evicted))
        is None
    )
    gap = ReplayCursor(START, b"").advance(page(START + 9, evicted=evicted))
    assert gap is not None
    assert gap.reason == "evicted"


def test_a_start_names_its_place_unless_only_the_first_page_can_say() -> None:
    assert ReplayStart(ReplayCursor(START, b"")).place == START
    assert ReplayStart(ReplayCursor(0, b"")).place is None


def test_a_page_says_whether_memory_or_the_store_counts_its_evictions() -> None:
    few = Kept(*"aaa", history_events=2)
    pages, audience = memory_pages(few.history), few.audience("a")
    assert not read(pages, audience, few.history.head - 1).is_stored
    entries = stored("a", private=False)
    few.history.head = entries[-1].position
    stretch = Stretch(entries, entries[-1].position, True, Evicted())
    made = pages.made(audience, START, stretch)
    assert isinstance(made, JoinedPage)
    assert made.is_stored
