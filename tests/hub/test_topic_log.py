"""Logs give back what they let go of, at a cost that does not depend on how much they hold."""

import random
from itertools import pairwise

import pytest

from fastsse._core import encode_frame, native_frames_alive
from fastsse.config import HistoryOptions
from fastsse.hub.topic_log import CUT_MIN, TopicLog, WholeLog
from fastsse.hub.topics import Rules, Topic, Topics


@pytest.fixture
def topics() -> Topics:
    return Topics(Rules(HistoryOptions(), "disconnect"), 0)


def test_a_frame_is_freed_as_soon_as_it_is_dropped() -> None:
    log = TopicLog()
    before = native_frames_alive()
    for position in range(1, 11):
        log.frames.append(encode_frame(b"x", None, None, 0, position))
    log.drop_first()
    assert native_frames_alive() == before + 9
    assert [frame.position for frame in log.after(5)] == [6, 7, 8, 9, 10]
    assert [frame.position for frame in log.newest_first()][-1] == 2


def test_the_emptied_front_of_a_log_stays_smaller_than_what_it_holds() -> None:
    log = TopicLog()
    for position in range(1, 100_000):
        log.frames.append(encode_frame(b"x", None, None, 0, position))
        if position > 1000:
            log.drop_first()
        assert len(log.frames) <= 2 * 1000 + 2


def holes(whole: WholeLog) -> int:
    """How many of the whole log's places are empty behind its front."""
    return sum(owners is None for owners in whole._owners[whole._start :])


def fill(whole: WholeLog, count: int, topic: Topic) -> None:
    for position in range(1, count + 1):
        whole.append(position, encode_frame(b"x", None, None, 0, position), topic)


def test_holes_stay_fewer_than_events_whatever_leaves(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WholeLog, "BLOCK", 256)
    whole, topic = WholeLog(), topics.intern("a")
    fill(whole, 5000, topic)
    leaving = list(range(1, 5001))
    random.Random(7).shuffle(leaving)
    while leaving:
        assert whole.let_go(topic, leaving.pop())
        if len(leaving) % 25 == 0:
            assert [frame.position for frame in whole.after(0)] == sorted(leaving)
            assert holes(whole) == whole._holes <= max(2 * CUT_MIN, len(leaving))
    assert list(whole.after(0)) == []


def test_an_event_that_another_topic_keeps_is_not_let_go(topics: Topics) -> None:
    whole, a, b = WholeLog(), topics.intern("a"), topics.intern("b")
    whole.append(1, encode_frame(b"x", None, None, 0, 1), (a, b))
    a.evicted_through = 1
    assert not whole.let_go(a, 1)
    assert whole.first() == (1, (a, b))
    b.evicted_through = 1
    assert whole.let_go(b, 1)
    assert whole.first() is None


def test_no_single_event_closes_more_than_a_block_of_holes(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WholeLog, "BLOCK", 256)
    whole, topic = WholeLog(), topics.intern("a")
    fill(whole, 2560, topic)
    lengths = [2560]
    for position in range(1000, 2200):
        whole.let_go(topic, position)
        lengths.append(len(whole._positions))
    assert 0 < max(before - after for before, after in pairwise(lengths)) <= 256
    assert lengths[-1] < 2560 - 600
    assert [frame.position for frame in whole.after(990)][:10] == [*range(991, 1000), 2200]


def test_aged_events_are_listed_up_to_a_limit_with_their_topics(topics: Topics) -> None:
    whole, topic = WholeLog(), topics.intern("a")
    fill(whole, 100, topic)
    whole.let_go(topic, 50)
    assert whole.owned_between(47, 60, 4) == [(48, topic), (49, topic), (50, None), (51, topic)]
    assert [position for position, _ in whole.owned_between(98, 10**9, 50)] == [99, 100]
