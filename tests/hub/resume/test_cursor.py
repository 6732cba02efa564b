"""What a stream receives before it is live: where it is, what is missing, what is kept."""

import json

import pytest

from fastsse._core import encode_frame
from fastsse.errors import InvalidSubscription
from fastsse.hub.resume.cursor import (
    GapEvent,
    ReplayCursor,
)
from fastsse.hub.resume.pages import PAGES_MAX
from fastsse.hub.resume.preamble import first_block
from fastsse.subscriptions import EVENTS, Cursor, Subscription
from tests.eventstream import parse
from tests.hub.readers import memory_pages, read
from tests.hub.resume.kept import START, Kept, text


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
