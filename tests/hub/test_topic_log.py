"""Logs give back what they evict, at a cost that does not depend on how much they hold."""

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest

from fastsse._core import encode_frame, native_frames_alive
from fastsse._hub import Topic, TopicLog, WholeLog, set_cuts
from fastsse.config import HistoryOptions
from fastsse.hub.topics import Rules, Topics


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
    return sum(owners is None for owners in whole.owners[whole.start :])


@pytest.fixture
def small_blocks() -> Iterator[None]:
    """Holes are closed 256 places at a time."""
    set_cuts(64, 256)
    yield
    set_cuts(64, 32 * 1024)


def fill(whole: WholeLog, count: int, topic: Topic) -> None:
    for position in range(1, count + 1):
        whole.append(encode_frame(b"x", None, None, 0, position), topic)


@pytest.mark.usefixtures("small_blocks")
def test_holes_stay_fewer_than_events_whatever_leaves(topics: Topics) -> None:
    whole, topic = WholeLog(), topics.intern("a")
    fill(whole, 5000, topic)
    leaving = list(range(1, 5001))
    random.Random(7).shuffle(leaving)
    while leaving:
        assert whole.let_go(topic, leaving.pop())
        if len(leaving) % 25 == 0:
            assert [frame.position for frame in whole.after(0)] == sorted(leaving)
            assert holes(whole) == whole.holes <= max(2 * 64, len(leaving))
    assert list(whole.after(0)) == []


def test_an_event_that_another_topic_keeps_is_not_evicted(topics: Topics) -> None:
    whole, a, b = WholeLog(), topics.intern("a"), topics.intern("b")
    whole.append(encode_frame(b"x", None, None, 0, 1), (a, b))
    a.evicted_through = 1
    assert not whole.let_go(a, 1)
    assert whole.first() == (1, (a, b))
    b.evicted_through = 1
    assert whole.let_go(b, 1)
    assert whole.first() is None


@pytest.mark.usefixtures("small_blocks")
def test_no_single_event_closes_more_than_a_block_of_holes(topics: Topics) -> None:
    whole, topic = WholeLog(), topics.intern("a")
    fill(whole, 2560, topic)
    lengths = [2560]
    for position in range(1000, 2200):
        whole.let_go(topic, position)
        lengths.append(len(whole))
    assert 0 < max(before - after for before, after in pairwise(lengths)) <= 256
    assert lengths[-1] < 2560 - 600
    assert [frame.position for frame in whole.after(990)][:10] == [*range(991, 1000), 2200]
