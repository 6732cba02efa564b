"""What a stream receives before it is live: where it is, what is missing, what is kept."""

import json
from dataclasses import replace
from typing import Any

import pytest

from fastsse._core import encode_frame
from fastsse.auth.rights import Rights
from fastsse.config import HistoryOptions, TopicRule
from fastsse.entries import Entry, encode_entries
from fastsse.errors import InvalidSubscription
from fastsse.events import Event
from fastsse.evicted import Evicted
from fastsse.hub.history import History
from fastsse.hub.resume.cursor import (
    GapEvent,
    ReplayCursor,
    ReplayStart,
    after_gap,
    begin,
    begin_at,
    is_hidden,
)
from fastsse.hub.resume.pages import PAGES_MAX, JoinedPage
from fastsse.hub.resume.preamble import first_block
from fastsse.hub.topics import Rules, Topics
from fastsse.positions import format_position, position_at
from fastsse.subscriptions import EVENTS, Cursor, Subscription
from tests.eventstream import parse
from tests.hub.readers import Audience, memory_pages, read

START = position_at(1000)


def text(position: int) -> str:
    return format_position(position).decode()


class Kept:
    """A history of numbered events: event n of a topic lies at START + n."""

    def __init__(self, *topics: str, **options: object) -> None:
        rules = (TopicRule(match="none", history_events=0),)
        history_options = HistoryOptions(topics=rules, **options)  # type: ignore[arg-type]
        self.topics = Topics(Rules(history_options, "disconnect"), START)
        self.history = History(self.topics, history_options.history_total, START)
        for topic in topics:
            self.add(topic)

    def add(self, topic: str, own_id: bytes | None = None) -> None:
        position = self.history.head + 1
        frame = encode_frame(b"x", None, own_id or format_position(position), 0, position)
        self.history.append(frame, (self.topics.intern(topic),), own_id)

    def add_private(self, topic: str, own_id: bytes) -> int:
        position = self.history.head + 1
        frame = encode_frame(b"x", None, own_id, 0, position, True)
        self.history.append(frame, (self.topics.intern(topic),), own_id)
        return position

    def audience(self, *topics: str) -> Audience:
        return Audience(topics, [self.topics.intern(topic) for topic in topics])

    def begin(self, topics: str, cursor: Cursor) -> tuple[ReplayCursor, GapEvent | None]:
        """Where a stream of these topics (`"a b"`) begins when there is nothing but memory."""
        audience = self.audience(*topics.split())
        begun = begin(self.history, audience, cursor)
        return begun or begin_at(self.history, audience, cursor, None)

    def first_gap(self, topics: str, cursor: Cursor) -> GapEvent | None:
        """What the stream receives when it opens."""
        replay, gap = self.begin(topics, cursor)
        pages = memory_pages(self.history)
        return replay.advance(read(pages, self.audience(*topics.split()), replay.after)) or gap

    def first_place(self, topics: str, cursor: Cursor) -> int:
        """The place that its opening names when it receives no gap."""
        replay, gap = self.begin(topics, cursor)
        assert gap is None
        if not replay.is_earliest:
            return replay.after
        audience = self.audience(*topics.split())
        return read(memory_pages(self.history), audience, replay.after).before


def test_opening_block_is_a_comment_the_retry_time_and_the_place() -> None:
    assert first_block(EVENTS, 3000, START + 5) == b": fastsse\nretry: 3000\nid: 1000-5\n\n"


def test_opening_block_without_a_place_is_no_event_for_anybody() -> None:
    block = first_block(EVENTS, 3000, None)
    assert block == b": fastsse\nretry: 3000\n"
    first = parse(block + encode_frame(b"x", None, b"1-1", 0, 1).body).events
    assert [message.data for message in first] == ["x"]


def test_a_gap_stands_in_the_opening_block_and_names_where_the_stream_goes_on() -> None:
    stream = parse(first_block(EVENTS, 3000, START, GapEvent("evicted", b"7-7", START + 9)))
    (message,) = stream.events
    assert message.type == "fastsse.gap"
    assert message.last_event_id == stream.last_event_id == "1000-9"
    assert stream.retry_ms == 3000
    assert json.loads(message.data) == {"reason": "evicted", "requested": "7-7", "from": "1000-9"}


@pytest.mark.parametrize(
    "requested",
    [b'a"b', b"a\nb", b"a\r\ndata: x\n\n", b"\0", b"\xff\xfe", "\u2028".encode(), b"x" * 9000],
)
def test_whatever_was_asked_for_the_gap_is_one_event(requested: bytes) -> None:
    gap = GapEvent("unknown", requested, START)
    (message,) = parse(gap.encode()).events
    told = json.loads(message.data)["requested"]
    assert told == requested[:256].decode("utf-8", "replace")


def test_new_streams_begin_at_the_head() -> None:
    kept = Kept("a", "a")
    replay, gap = kept.begin("a", Cursor("head"))
    assert (replay.after, gap) == (START + 2, None)


def test_a_stream_goes_on_after_a_position_an_own_id_or_from_the_earliest() -> None:
    kept = Kept("a", "a", "b", "a")
    kept.add("a", own_id=b"mine")
    kept.add("a")
    for cursor, after in (
        (Cursor("after", text(START + 2)), START + 2),
        (Cursor("after", text(START + 2).encode()), START + 2),
        (Cursor("after", "mine"), START + 5),
        (Cursor("after", b" mine "), START + 5),
        (Cursor("after", "earliest"), START),
        (Cursor("earliest"), START),
        (Cursor("after", ""), START + 6),
    ):
        assert kept.first_place("a", cursor) == after, cursor


def test_last_n_begins_before_the_first_of_them() -> None:
    kept = Kept("a", "b", "a", "b", "a", history_events=2)
    assert kept.begin("a", Cursor("last", 1))[0].after == START + 4
    assert kept.begin("a", Cursor("last", 2))[0].after == START + 2
    assert kept.begin("a", Cursor("last", 0))[0].after == START + 5


def test_last_n_has_a_gap_only_where_some_of_them_were_evicted() -> None:
    kept = Kept("a", "b", "a", "b", "a", history_events=2)
    for count in (0, 1, 2):
        assert kept.first_gap("a", Cursor("last", count)) is None, count
    # There were three, of which two are kept; of the other topic there never were more.
    for count in (3, 10_000):
        gap = kept.first_gap("a", Cursor("last", count))
        assert gap is not None, count
        assert (gap.reason, gap.requested) == ("evicted", b"last=%d" % count)
        assert kept.first_gap("b", Cursor("last", count)) is None, count


def test_the_newest_of_two_topics_have_a_gap_where_one_of_them_is_not_kept() -> None:
    kept = Kept("calm", "calm", "busy", "busy", history_events=2)
    assert kept.first_gap("busy calm", Cursor("last", 3)) is None
    kept.add("busy")
    assert kept.first_gap("busy calm", Cursor("last", 2)) is None
    assert kept.first_gap("busy calm", Cursor("last", 3)) is not None


def test_earliest_has_a_gap_only_where_something_was_evicted() -> None:
    kept = Kept("a", "b", "a", "b", "a", history_events=2)
    gap = kept.first_gap("a", Cursor("earliest"))
    assert gap is not None
    assert (gap.reason, gap.requested, gap.resumes_at) == ("evicted", b"earliest", START + 2)
    assert kept.first_gap("b", Cursor("earliest")) is None
    assert kept.first_gap("never", Cursor("earliest")) is None


@pytest.mark.parametrize("cursor", [Cursor("earliest"), Cursor("last", 100)])
def test_what_is_kept_is_sent_whatever_one_topic_lost(cursor: Cursor) -> None:
    kept = Kept("calm", "busy", "busy", "busy", history_events=1)
    assert kept.first_gap("busy calm", cursor) is not None
    assert kept.first_gap("calm", cursor) is None
    replay, _ = kept.begin("busy calm", cursor)
    page = read(memory_pages(kept.history), kept.audience("busy", "calm"), replay.after)
    assert page.before == START
    replay.advance(page)
    assert replay.after == START + 4


def test_since_begins_before_the_first_event_of_that_millisecond() -> None:
    kept = Kept("a", "a")
    assert kept.begin("a", Cursor("since", 1000))[0].after == START
    assert kept.begin("a", Cursor("since", 1001))[0].after == START + 2
    assert kept.begin("a", Cursor("since", 2**63 - 1))[0].after == START + 2
    assert kept.first_gap("a", Cursor("since", 1000)) is None


def test_since_before_what_was_evicted_tells_a_gap() -> None:
    kept = Kept("a", "a", history_events=1)
    gap = kept.first_gap("a", Cursor("since", 1000))
    assert gap is not None
    assert (gap.reason, gap.requested, gap.resumes_at) == ("evicted", b"1000-0", START + 1)


@pytest.mark.parametrize("event_id", ["unknown", "007-1", f"{2**70}-1", "\ud800", "\0", "é" * 300])
def test_an_unpublished_id_is_unknown(event_id: str) -> None:
    kept = Kept("a", "a")
    gap = kept.first_gap("a", Cursor("after", event_id))
    assert gap is not None
    assert (gap.reason, gap.resumes_at) == ("unknown", START + 2)


def test_a_position_above_the_head_lies_in_the_future() -> None:
    kept = Kept("a", "a")
    gap = kept.first_gap("a", Cursor("after", text(START + 3)))
    assert gap is not None
    assert (gap.reason, gap.requested, gap.resumes_at) == ("future", b"1000-3", START + 2)
    assert kept.first_gap("a", Cursor("after", text(START + 2))) is None


def test_an_id_from_before_a_restart_was_evicted() -> None:
    kept = Kept()
    gap = kept.first_gap("a", Cursor("after", text(START - 1)))
    assert gap is not None
    assert (gap.reason, gap.resumes_at) == ("evicted", START)
    assert kept.first_gap("a", Cursor("after", text(START))) is None


@pytest.mark.parametrize(("after", "is_notified"), [(0, True), (1, True), (2, False), (3, False)])
def test_eviction_is_reported_before_the_edge_and_not_at_or_after_it(
    after: int, is_notified: bool
) -> None:
    kept = Kept("a", "a", "a", "a", history_events=2)
    gap = kept.first_gap("a", Cursor("after", text(START + after)))
    assert (gap is not None) is is_notified
    if gap is not None:
        assert (gap.reason, gap.resumes_at) == ("evicted", START + 2)


def test_a_gap_goes_on_from_the_head_when_nothing_is_kept() -> None:
    kept = Kept("none", "a")
    gap = kept.first_gap("none", Cursor("after", text(START)))
    assert gap is not None
    assert gap.resumes_at == START + 2


def test_what_other_topics_lost_is_no_gap() -> None:
    kept = Kept("quiet", *["busy"] * 50, history_events=2)
    assert kept.first_gap("quiet", Cursor("after", text(START))) is None
    assert kept.first_gap("busy", Cursor("after", text(START))) is not None


def test_a_client_that_resumes_with_the_gaps_id_receives_no_second_gap() -> None:
    kept = Kept("a", "a", "a", "a", history_events=2)
    for cursor in (Cursor("after", text(START)), Cursor("after", "x"), Cursor("after", "9999-1")):
        gap = kept.first_gap("a", cursor)
        assert gap is not None
        assert kept.first_gap("a", Cursor("after", text(gap.resumes_at))) is None


def test_pages_are_joined_once_for_all_who_resume_from_the_same_place() -> None:
    kept = Kept("a", "a", "a")
    pages, audience = memory_pages(kept.history), kept.audience("a")
    first = read(pages, audience, START)
    assert read(pages, audience, START) is first
    assert read(pages, audience, START + 1) is not first
    kept.add("a")
    later = read(pages, audience, START)
    assert later.through == kept.history.head
    assert later.frame is not None
    assert later.frame.events == 4


def test_cached_pages_are_bounded_in_bytes_and_the_latest_used_stay() -> None:
    kept = Kept("a", "a", "a")
    audience = kept.audience("a")
    alone = memory_pages(kept.history)
    read(alone, audience, START)
    pages = memory_pages(kept.history, cache_bytes=alone.cache.bytes + 10)
    first = read(pages, audience, START)
    assert pages.cache.bytes == alone.cache.bytes
    read(pages, audience, START + 1)
    assert pages.cache.bytes < alone.cache.bytes
    assert read(pages, audience, START) is not first


def test_cached_pages_are_bounded_in_number() -> None:
    kept = Kept(*["a"] * (PAGES_MAX + 5))
    pages = memory_pages(kept.history, page_bytes=1)
    for after in range(PAGES_MAX + 5):
        read(pages, kept.audience("a"), START + after)
    assert len(pages.cache) == PAGES_MAX


def test_a_page_is_not_kept_when_its_topics_names_outweigh_it() -> None:
    kept = Kept("a", "a")
    pages = memory_pages(kept.history)
    read(pages, kept.audience("a", "b" * 1024), START)
    assert pages.cache.bytes == 0


def test_a_page_that_was_cached_before_an_eviction_still_tells_no_gap() -> None:
    kept = Kept(*["a"] * 100, history_events=100)
    pages, audience = memory_pages(kept.history, page_bytes=1000), kept.audience("a")
    page = read(pages, audience, START)
    assert not page.is_last
    for _ in range(5):
        kept.add("a")
    early, late = ReplayCursor(START, b""), ReplayCursor(START, b"")
    assert early.advance(read(pages, audience, START)) is None
    assert late.advance(read(memory_pages(kept.history), audience, START)) is not None


@pytest.mark.parametrize(
    ("kind", "value"), [("last", -1), ("last", 10_001), ("since", -1), ("since", 2**63)]
)
def test_numbers_out_of_bounds_are_refused(kind: str, value: int) -> None:
    with pytest.raises(InvalidSubscription) as caught:
        Cursor(kind, value)  # type: ignore[arg-type]
    assert caught.value.field == kind


def test_selectors_are_sorted_and_unique_and_everything_makes_others_superfluous() -> None:
    assert Subscription(["b", "a", "b"]).selectors == ("a", "b")
    assert Subscription(["b", "*"]).selectors == ("*",)


@pytest.mark.parametrize(
    "selectors", [[], [""], ["a\n"], ["x" * 1025], ["$sys"], [f"t{n}" for n in range(101)]]
)
def test_selectors_that_can_not_be_subscribed_to_are_refused(selectors: list[str]) -> None:
    with pytest.raises(InvalidSubscription) as caught:
        Subscription(selectors)
    assert caught.value.field == "topic"
    Subscription([f"t{n}" for n in range(100)])
    Subscription([f"t{n}" for n in range(101)], topics_max=101)


def test_last_is_bounded_over_all_topics_together() -> None:
    assert Subscription(("a", "b"), Cursor("last", 5_000)).cursor.value == 5_000
    assert Subscription(("a", "*"), Cursor("last", 10_000)).cursor.value == 10_000
    with pytest.raises(InvalidSubscription, match="at most 5000 for 2 topics") as caught:
        Subscription(("a", "b"), Cursor("last", 5_001))
    assert caught.value.field == "last"


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
