"""Logs give back what they evict, at a cost that does not depend on how much they hold."""

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest

from fastsse._core import (
    POLICY_DISCONNECT,
    POLICY_LATEST,
    POLICY_SKIP,
    encode_frame,
    native_frames_alive,
)
from fastsse._hub import Bounds, Channel, Topic, TopicLog, WholeLog, set_cuts, strictest
from fastsse.auth.rights import Rights
from fastsse.config import HistoryOptions
from fastsse.hub.topics import Rules, Topics
from fastsse.hub.views import ChannelView
from fastsse.subscriptions import View


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


def test_very_many_older_events_are_found_before_very_many_newer_ones(topics: Topics) -> None:
    whole, topic, count = WholeLog(), topics.intern("a"), 30_000
    frames = [encode_frame(b"x", None, None, 0, place) for place in range(1, 2 * count + 1)]
    for frame in frames[count:]:
        whole.append(frame, topic)
    for frame in frames[count : count + 10]:
        topic.evicted_through = frame.position
        assert whole.let_go(topic, frame.position)
    whole.prepend(frames[:count], [topic] * count)
    assert len(whole) == 2 * count - 10
    for place in (1, 2, count, count + 11, 2 * count):
        assert whole.owners_of(place) is topic
        assert next(whole.after(place - 1)) is frames[place - 1]
    assert whole.owners_of(count + 10) == ()
    assert [frame.position for frame in whole.after(count - 1)][:2] == [count, count + 11]


def test_the_strictest_policy_of_an_event_s_topics_holds() -> None:
    def topic(policy: int) -> Topic:
        return Topic(str(policy), policy + 1, Bounds(1, 1, -1, policy), 0)

    policies = sorted((POLICY_LATEST, POLICY_SKIP, POLICY_DISCONNECT))
    assert policies == [POLICY_LATEST, POLICY_SKIP, POLICY_DISCONNECT]
    for first in policies:
        for second in policies:
            assert strictest((topic(first), topic(second))) == max(first, second)


def test_a_topic_knows_its_channel_and_its_quiet_one_apart(topics: Topics) -> None:
    topic = topics.intern("a")
    assert (topic.channel_of(False), topic.channel_of(True)) == (-1, -1)
    topic.set_channel(False, 5)
    assert (topic.channel_of(False), topic.channel_of(True)) == (5, -1)
    topic.set_channel(True, 7)
    assert (topic.channel_of(False), topic.channel_of(True)) == (5, 7)


def test_a_channel_is_as_it_was_made(topics: Topics) -> None:
    a, b = topics.intern("a"), topics.intern("b")
    rights, view = Rights(subscribe=["a"]), ChannelView(View(envelope=True), "")
    one = Channel(3, ("a",), (a,), rights, is_quiet=True, view=view)
    assert (one.number, one.rights, one.view, one.is_quiet) == (3, rights, view, True)
    assert (one.selectors, one.topics) == (("a",), (a,))
    plain = Channel(4, ("a",), (a,), None)
    assert (plain.rights, plain.view, plain.is_quiet) == (None, None, False)
    both = Channel(5, ("b", "a"), (b, a), None)
    assert (both.selectors, both.topics) == (("b", "a"), (b, a))
    everything = Channel(6, ("*",), None, None)
    assert (everything.selectors, everything.topics) == (("*",), None)
    everything.topics = (a,)
    assert (everything.selectors, everything.topics) == (("*",), (a,))
    # The text of a channel of one topic is the topic's: it is not kept again.
    name = "".join(("a", "long name"))
    long = topics.intern(name)
    again = Channel(7, ("".join(("a", "long name")),), (long,), None)
    assert again.selectors[0] is long.name


@pytest.mark.parametrize("is_whole", [False, True])
def test_what_follows_the_front_is_found_when_that_is_cut_off(
    topics: Topics, is_whole: bool
) -> None:
    whole, log, topic = WholeLog(), TopicLog(), topics.intern("a")
    last = 0
    for leaving in range(1, 400):
        while last < leaving + 80:
            last += 1
            frame = encode_frame(b"x", None, None, 0, last)
            whole.append(frame, topic)
            log.frames.append(frame)
        if is_whole:
            assert whole.let_go(topic, leaving)
            assert whole.first() == (leaving + 1, topic)
            assert len(whole) <= 2 * 81 + 2
            assert (whole.owners_of(leaving), whole.owners_of(last)) == ((), topic)
        else:
            assert log.drop_first().position == leaving
            assert log.kept == last - leaving
        kept = whole if is_whole else log
        places = list(range(leaving + 1, last + 1))
        assert [frame.position for frame in kept.after(0)] == places
        assert [frame.position for frame in kept.after(leaving + 40)] == places[40:]
        assert [frame.position for frame in kept.newest_first()] == places[::-1]
        if is_whole:
            owned = [(frame.position, owner) for frame, owner in whole.owned_after(leaving + 1)]
            assert owned == [(place, topic) for place in places[1:]]
            owned = [(frame.position, owner) for frame, owner in whole.owned_newest_first()]
            assert owned == [(place, topic) for place in places[::-1]]
