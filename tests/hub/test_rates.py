"""Rates: of each topic and type a stream is sent the newest event of each span of time, live and
replayed alike."""

import random
import time
from collections.abc import Sequence

import pytest

from fastsse._core import Sender, View, encode_frame
from fastsse.config import HistoryOptions
from fastsse.events import Event
from fastsse.positions import position_ms
from fastsse.subscriptions import Cursor
from fastsse.subscriptions import View as Asked
from tests.hub.onenode import Client, MakeNode, Node

SPAN_MS = 100
RATED = Asked(interval_ms=SPAN_MS)


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    """A node whose hub has the clock of the sender."""
    return make_node(now_ms=time.time_ns() // 1_000_000)


def pass_time(node: Node, ms: int) -> None:
    node.now_ms += ms
    node.sender.advance_clock(ms)


def settle(node: Node, *clients: Client, to: str) -> None:
    """Lets time pass until every client's newest event is this one."""

    def is_there() -> bool:
        pass_time(node, 10)
        return all(client.data[-1:] == [to] for client in clients)

    node.run_until(is_there)


def test_of_each_topic_and_type_the_newest_of_a_span_is_sent_in_order(node: Node) -> None:
    client = node.subscribe("*", view=RATED)
    plain = node.subscribe("*")
    node.now_ms -= node.now_ms % SPAN_MS  # All in one span.
    for n in range(5):
        node.publish("a", f"a{n}")
        node.publish_all([Event("a", f"tick{n}", event="tick"), Event("b", f"b{n}")])
    node.publish(["a", "b"], "both 1")
    node.publish(["a", "b"], "both 2")
    node.publish("b", "last")
    assert len(node.run_until_received(plain, 18)) == 18
    settle(node, client, to="last")
    assert client.data == ["a4", "tick4", "both 1", "both 2", "last"]
    assert node.sender.counters()["conflated"] == 13


def test_no_more_than_the_rate_is_sent_and_the_newest_always(node: Node) -> None:
    client = node.subscribe("a", view=RATED)
    for n in range(200):
        node.publish("a", str(n))
        pass_time(node, 10)
    settle(node, client, to="199")
    assert 18 <= len(client.data) <= 24, "2 s at 10 a second"


def test_stream_that_is_cut_and_resumes_misses_nothing_that_another_got(
    make_node: MakeNode,
) -> None:
    """Whatever is published, and wherever it is cut: what an uncut stream was sent behind the cut
    is among what the resumed one is sent, or a newer event of its topic, type and span is; and the
    order is right. On a busy machine the sender is late: it may have sent what came first in a
    span before the rest is there."""
    rand = random.Random(7)
    node = make_node(now_ms=time.time_ns() // 1_000_000)
    view = Asked(interval_ms=SPAN_MS, envelope=True, types=(b"x", b"message"))
    uncut = node.subscribe("{t}", view=view)
    ids: list[str] = []
    made_by_id: dict[str, tuple[int, list[str], str | None, int]] = {}
    for n in range(400):
        topics = rand.choice([["a"], ["b"], ["c"], ["a", "b"]])
        event = rand.choice([None, "x", "y"])
        made = [Event(topics, str(n), event=event) for _ in range(rand.choice([1, 1, 3]))]
        published = node.publish_all(made)
        ids.append(published.last.decode())
        for made_id, place in zip(published.ids, published.positions, strict=True):
            made_by_id[made_id.decode()] = place, topics, event, position_ms(place) // SPAN_MS
        if rand.random() < 0.3:
            pass_time(node, rand.choice([1, 20, 90, 250]))
    node.publish("a", "end")
    node.run_until(lambda: (pass_time(node, 10), '"data":"end"' in "".join(uncut.data[-1:]))[1])
    got = [message.last_event_id for message in uncut.events]
    assert len(got) < 400
    order = {place: n for n, place in enumerate([*ids, got[-1]])}
    for cut in rand.sample(range(len(got) - 1), 25):
        resumed = node.resume("{t}", after=got[cut], view=view)
        node.run_until(lambda: '"data":"end"' in "".join(resumed.data[-1:]))  # noqa: B023
        again = [message.last_event_id for message in resumed.events]
        for left_out in set(got[cut + 1 :]) - set(again):
            place, *group = made_by_id[left_out]
            newer = [made_by_id[other] for other in again if other in made_by_id]
            assert any(at > place and other == group for at, *other in newer)
            assert len(group[0]) == 1
        known = [order[place] for place in again if place in order]
        assert known == sorted(known)
        assert resumed.gaps == []
        node.hang_up(resumed)


def test_replay_of_a_long_past_is_as_short_as_the_rate_made_it(node: Node) -> None:
    for n in range(300):
        node.publish("a", str(n))
        node.now_ms += 10
    client = node.subscribe("a", cursor=Cursor("earliest"), view=RATED)
    node.run_until(lambda: client.data[-1:] == ["299"])
    assert 30 <= len(client.data) <= 31


def test_end_and_loss_wait_for_no_tick_and_pass_nothing(node: Node) -> None:
    view = Asked(interval_ms=60_000, until=(b"done",))
    client = node.subscribe("a", view=view)
    other = node.subscribe("a", view=Asked(interval_ms=60_000))
    node.publish("a", "1")
    node.publish("a", "2")
    node.publish_all([Event("a", "end", event="done")])
    node.run_until(lambda: client.is_ended)
    assert client.data == ["2", "end"]
    node.hub._on_broken("lost", node.hub.history.head)
    node.run_until(lambda: len(other.gaps) == 1)
    assert other.data == ["2", "end"]


def test_what_waits_is_bounded_in_bytes(make_node: MakeNode) -> None:
    sender = Sender(max_connections=10, max_lag_bytes=64 * 1024)
    node = make_node(now_ms=time.time_ns() // 1_000_000, sender=sender)
    client = node.subscribe("*", view=Asked(interval_ms=60_000))
    for n in range(100):
        node.publish(f"t/{n}", "x" * 1000)
    node.run_until(lambda: len(client.data) > 60)
    assert node.sender.memory_bytes < 2 * 1024 * 1024


def test_channel_may_go_while_something_waits(node: Node) -> None:
    views = [Asked(interval_ms=60_000 + n) for n in range(5)]
    clients = [node.subscribe("a", view=view) for view in views]
    node.publish("a", "1")
    for client in clients[1:4]:
        node.hang_up(client)
    node.publish("a", "2")
    node.hang_up(clients[0])
    node.publish_all([Event("a", "3")])


def test_quiet_id_does_not_pass_what_waits(make_node: MakeNode) -> None:
    node = make_node(
        HistoryOptions(history_events=50),
        now_ms=time.time_ns() // 1_000_000,
        sender=Sender(max_connections=10, heartbeat_ms=100),
    )
    pass_time(node, 10_000 - node.now_ms % 10_000)  # To the begin of a span, which lasts.
    client = node.subscribe("a", view=Asked(interval_ms=10_000))
    newest = [node.publish("a", str(n)) for n in range(5)][-1]
    node.run_until(lambda: node.sender.counters()["heartbeats"] > 3)
    assert client.stream.last_event_id < newest
    settle(node, client, to="4")
    assert client.stream.last_event_id == newest


def spans(times: Sequence[int], types: Sequence[bytes | None]) -> list[int]:
    frames = [
        encode_frame(b"x", kind, b"%d-1" % n, 0, n << 64 | 1, time_ms=ms)
        for n, (ms, kind) in enumerate(zip(times, types, strict=True), 1)
    ]
    sent, _ = View(interval_ms=100).select(frames, [("a",)] * len(frames), None)
    return [frame.position >> 64 for frame in sent]


def test_spans_follow_the_times_of_events() -> None:
    assert spans([100, 150, 199, 200, 299, 300], [None] * 6) == [3, 5, 6]
    assert spans([100, 150, 160], [b"x", None, b"x"]) == [2, 3]
    # One that is late belongs to the span of the newest before it.
    assert spans([100, 250, 199, 260], [None] * 4) == [1, 4]
