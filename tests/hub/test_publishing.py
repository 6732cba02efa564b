"""Publishing is all or nothing, in order, kept before it is acknowledged, and refused in time."""

from collections.abc import Callable, Sequence

import pytest

from fastsse._core import POLICY_DISCONNECT, POLICY_LATEST, POLICY_SKIP
from fastsse._hub import strictest
from fastsse.backbone import Done
from fastsse.backbone.memory import MemoryBackbone
from fastsse.config import HistoryOptions, StreamOptions, TopicRule
from fastsse.entries import EventBatch, KeyedBatch, encode_entries
from fastsse.errors import FastsseError, InvalidEvent, Unavailable
from fastsse.events import Event
from fastsse.hub import Hub, Published
from fastsse.positions import position_at
from tests.hub.onenode import START_MS, MakeNode, Node


def test_a_publish_is_answered_with_its_position(node: Node) -> None:
    published = node.publish_all([Event("a", "x")])
    assert (published.first, published.last) == (b"%d-1" % START_MS,) * 2
    assert (published.count, published.ids) == (1, [b"%d-1" % START_MS])


def test_a_publish_with_an_id_of_its_own_is_answered_with_that(node: Node) -> None:
    published = node.publish_all([Event("a", id="x"), Event("a"), Event("a", id="z")])
    assert (published.first, published.last, published.count) == (b"x", b"z", 3)
    assert published.ids == [b"x", b"%d-2" % START_MS, b"z"]


def test_the_id_on_the_wire_is_the_one_that_was_answered(node: Node) -> None:
    client = node.subscribe("a")
    ids = node.publish_all([Event("a", "1"), Event("a", "2", id="mine"), Event("a", "3")]).ids
    node.run_until_received(client, 3)
    assert [message.last_event_id.encode() for message in client.events] == ids


def test_ids_count_within_a_millisecond_and_restart_in_the_next(node: Node) -> None:
    first = node.publish_all([Event("a"), Event("b")])
    node.now_ms += 1
    second = node.publish_all([Event("a")])
    node.now_ms -= 1000
    third = node.publish_all([Event("a")])
    assert first.ids == [b"%d-1" % START_MS, b"%d-2" % START_MS]
    assert second.ids == [b"%d-1" % (START_MS + 1)]
    assert third.ids == [b"%d-2" % (START_MS + 1)]


def test_one_batch_may_hold_positions_of_several_milliseconds(node: Node) -> None:
    """As a log that others write to gives them."""
    client = node.subscribe("a")
    positions = [position_at(START_MS + later_ms) + n for later_ms, n in ((1, 7), (1, 9), (5, 1))]
    node.hub._deliver(encode_entries(positions, [Event("a"), Event("a"), Event("a")]))
    node.run_until_received(client, 3)
    ids = [message.last_event_id for message in client.events]
    assert ids == [f"{START_MS + 1}-7", f"{START_MS + 1}-9", f"{START_MS + 5}-1"]


def test_an_event_is_in_history_when_it_is_acknowledged(node: Node) -> None:
    kept_when_done: list[int] = []
    node.hub.publish(
        [Event("a")] * 3, lambda outcome: kept_when_done.append(node.hub.history.events)
    )
    assert kept_when_done == [3]
    assert node.hub.events_published == 3


def test_a_batch_with_one_forbidden_event_type_changes_nothing(make_node: MakeNode) -> None:
    rules = (TopicRule(match="t*", event_types="tick|tock"),)
    node = make_node(HistoryOptions(topics=rules))
    with pytest.raises(InvalidEvent) as caught:
        node.publish_all([Event("t1", event="tick"), Event(("a", "t2"), event="bang")])
    assert caught.value.field == "event"
    assert "t2" in caught.value.detail
    assert (node.hub.history.events, len(node.hub.topics), node.hub.events_published) == (0, 0, 0)
    node.publish_all([Event("t1", event="tick"), Event("a", event="bang")])


def test_an_empty_batch_is_an_error(node: Node) -> None:
    with pytest.raises(InvalidEvent):
        node.publish_all([])


def refused(node: Node, event: Event) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        node.publish_all([event])
    assert caught.value.retry_after_s > 0
    return caught.value


def test_publishes_are_refused_when_memory_is_full_counting_what_they_bring(
    make_node: MakeNode,
) -> None:
    node = make_node(streams=StreamOptions(memory_limit=1 << 20))
    node.publish("a", "x" * (600 * 1024))
    assert refused(node, Event("a", "x" * (600 * 1024))).reason == "memory"
    node.publish("a", "small")
    assert node.hub.counters()["refused_memory"] == 1


def test_publishes_are_refused_while_the_sender_is_behind(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastsse._commit.QUEUE_MAX", 0)
    assert refused(node, Event("a")).reason == "queue"
    assert node.hub.publishes_refused == {"queue": 1}


def test_publishes_are_refused_when_draining(node: Node) -> None:
    node.hub.drain(0.0)
    assert refused(node, Event("a")).reason == "draining"


class SlowBackbone(MemoryBackbone):
    """Answers when the test says so, as one with a thread or a network behind it would."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        super().__init__(now_ms)
        self.waiting: list[tuple[Sequence[Event], Done]] = []

    def append_now(self, batch: EventBatch | KeyedBatch) -> None:
        return None

    def append(self, events: Sequence[Event], done: Done) -> None:
        self.waiting.append((events, done))

    def commit(self) -> None:
        for events, done in self.waiting:
            super().append(events, done)
        self.waiting.clear()


def test_nothing_is_handed_on_or_acknowledged_before_it_is_committed(node: Node) -> None:
    backbone = SlowBackbone(lambda: node.now_ms)
    hub = Hub(node.sender, backbone, HistoryOptions(), StreamOptions())
    outcomes: list[Published | FastsseError] = []
    hub.publish([Event("a", "1")], outcomes.append)
    hub.publish([Event("a", "2"), Event("a", "3")], outcomes.append)
    assert (outcomes, hub.history.events) == ([], 0)
    backbone.commit()
    assert [outcome.count for outcome in outcomes if isinstance(outcome, Published)] == [1, 2]
    assert hub.history.events == 3


def test_what_the_backbone_refuses_reaches_the_publisher_and_is_counted(node: Node) -> None:
    backbone = SlowBackbone(lambda: node.now_ms)
    hub = Hub(node.sender, backbone, HistoryOptions(), StreamOptions())
    outcomes: list[Published | FastsseError] = []
    hub.publish([Event("a", "1")], outcomes.append)
    backbone.waiting[0][1](Unavailable("backbone", 2))
    assert isinstance(outcomes[0], Unavailable)
    assert hub.counters()["refused_backbone"] == 1
    assert hub.history.events == 0


@pytest.mark.parametrize(
    ("topics", "policy"),
    [
        (("latest",), POLICY_LATEST),
        (("latest", "skip"), POLICY_SKIP),
        (("skip", "other", "latest"), POLICY_DISCONNECT),
    ],
)
def test_the_strictest_lag_policy_of_an_events_topics_goes_with_it(
    make_node: MakeNode, topics: tuple[str, ...], policy: int
) -> None:
    rules = (
        TopicRule(match="latest", lag_policy="latest"),
        TopicRule(match="skip", lag_policy="skip"),
    )
    node = make_node(HistoryOptions(topics=rules))
    assert strictest(tuple(map(node.hub.topics.intern, topics))) == policy


def test_counters_have_the_metrics_names_from_the_start(node: Node) -> None:
    node.publish("a")
    node.resume("a", after="unknown")
    counters = node.hub.counters()
    assert set(counters) == {
        *("events_published", "history_events", "history_bytes", "memory_bytes", "topics"),
        *("replays", "refused_memory", "refused_queue", "refused_draining", "refused_backbone"),
        *(
            "refused_type",
            "refused_schema",
            "refused_interceptor",
            "refused_keys",
            "refused_producers",
            "refused_rate",
            "refused_nodes",
        ),
        *("gaps_evicted", "gaps_unknown", "gaps_future", "gaps_lost"),
        *("losses", "replays_failed", "repeated_resumes", "positions_ahead_ms"),
        *("filters", "filters_refused", "deleted_events", "purged_topics"),
        *("polls", "polls_waiting"),
    }
    assert counters["events_published"] == counters["history_events"] == counters["topics"] == 1
    assert (counters["gaps_unknown"], counters["gaps_evicted"]) == (1, 0)
    assert counters["memory_bytes"] > 0


def test_one_sweep_ages_history_and_forgets_topics(node: Node) -> None:
    node.publish("a")
    assert not node.hub.sweep(node.now_ms)
    assert len(node.hub.topics) == 1
    node.hub.sweep(node.now_ms + 3_600_001)
    assert (node.hub.history.events, len(node.hub.topics)) == (0, 0)
