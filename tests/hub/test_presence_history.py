"""Promises about the events of presence: they are kept for a minute, leave nothing behind, and who
may not see them receives no gap for them."""

import tracemalloc
import uuid
from collections.abc import Callable

import pytest

from fastsse.auth.rights import Rights
from fastsse.config import HistoryOptions, TopicRule
from fastsse.control.roster import Subscribed, path_of, subscription_document
from fastsse.reserved import SUBSCRIPTIONS_PATH
from tests.hub.made_history import SECOND, START, make
from tests.hub.onenode import Node

EVENTS = 2_000
EACH = "/.well-known/mercure/subscriptions{/topic}{/subscriber}"
MINUTE_MS = 60_000
# Wide: allocators and versions of Python differ. Frames are native and not among these bytes.
KEPT_BYTES_MAX = 1_000
LEFT_BYTES_MAX = 100


def presence_topic(topic: str = "news") -> str:
    return path_of(topic, f"urn:uuid:{uuid.uuid4()}")


def test_events_of_presence_are_kept_for_a_minute_unless_a_rule_says_else() -> None:
    assert HistoryOptions().limits(presence_topic()).age_s == 60
    assert HistoryOptions().limits("news").age_s == 3600
    longer = TopicRule(match=SUBSCRIPTIONS_PATH + "*", history_age=900.0)
    assert HistoryOptions(topics=(longer,)).limits(presence_topic()).age_s == 900


def test_what_is_left_of_events_of_presence_is_one_name_for_each_topic(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = make()
    size = len(str(subscription_document(Subscribed("news", "urn:uuid:0", None), active=True)))

    def fill_and_sweep() -> int:
        """Bytes that were taken meanwhile."""
        for number in range(EVENTS):
            made.add(presence_topic("a/b" if number % 2 else "news"), size=size)
        kept = tracemalloc.get_traced_memory()[0]
        made.now_ms += 61 * SECOND
        while made.history.sweep(made.now_ms):
            pass
        made.topics.forget_idle(3 * EVENTS)
        assert made.history.events == 0
        return kept

    tracemalloc.start()
    try:
        fill_and_sweep()  # Tables have their size now.
        before = tracemalloc.get_traced_memory()[0]
        kept = (fill_and_sweep() - before) / EVENTS
        left = (tracemalloc.get_traced_memory()[0] - before) / EVENTS
    finally:
        tracemalloc.stop()
    with capsys.disabled():
        print(f"\nan event of presence: {kept:.0f} B of Python while it is kept, then {left:.0f} B")
    assert kept < KEPT_BYTES_MAX
    assert left < LEFT_BYTES_MAX
    assert len(made.topics.remembered()) == 2
    later = made.topics.intern(presence_topic("a/b"))
    assert later.evicted_through == made.history.head
    assert made.topics.intern(presence_topic("other")).evicted_through == START


@pytest.mark.parametrize("has_grants", [False, True])
def test_reader_of_everything_receives_a_gap_only_if_it_may_see_presence(
    node: Node, has_grants: bool
) -> None:
    first = node.publish("news", "1")
    for _ in range(3):
        node.publish(presence_topic(), "{}", private=True)
    node.publish("news", "2")
    node.now_ms += MINUTE_MS + 1
    node.hub.sweep(node.now_ms)
    rights = Rights(subscribe=[EACH]) if has_grants else None
    reader = node.resume("*", after=first, rights=rights)
    assert node.run_until_received(reader, 1) == ["2"]
    assert len(reader.gaps) == has_grants


def test_template_of_one_topic_receives_no_gap_for_presence_of_another(
    make_node: Callable[..., Node],
) -> None:
    node = make_node()
    first = node.publish("news", "1")
    node.publish(presence_topic("a"), "{}", private=True)
    node.now_ms += MINUTE_MS + 1
    node.hub.sweep(node.now_ms)
    rights = Rights(subscribe=[EACH])
    one, other, both = (
        node.resume(SUBSCRIPTIONS_PATH + text, after=first, rights=rights)
        for text in ("a{/subscriber}", "b{/subscriber}", "{topic}/{subscriber}")
    )
    for topic in ("a", "b"):
        node.publish(presence_topic(topic), topic, private=True)
    assert node.run_until_received(both, 2) == ["a", "b"]
    assert node.run_until_received(one, 1) == ["a"]
    assert node.run_until_received(other, 1) == ["b"]
    assert [len(reader.gaps) for reader in (one, other, both)] == [1, 0, 1]
