"""Snapshots that several streams share: equal to one that is made again, whatever happened between;
bounded in bytes."""

import json
import math
import sys
from typing import Any, Final
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsse._core import raw_frame
from fastsse.auth.rights import Rights
from fastsse.config import HistoryOptions
from fastsse.config.rules import TopicRule
from fastsse.directives import directives_of
from fastsse.events import Event
from fastsse.hub.channels import Channel
from fastsse.hub.history import PAGE_BYTES
from fastsse.hub.resume import shared_snapshots
from fastsse.hub.resume.shared_snapshots import SharedSnapshot, SnapshotCache
from fastsse.hub.resume.snapshots import STORED_S, Snapshot, Snapshots
from fastsse.hub.resume.store_queries import StoreQueries
from fastsse.hub.views import ChannelView
from fastsse.positions import format_position
from fastsse.subscriptions import View
from tests.hub.afterrestart import restarted
from tests.hub.onenode import MakeNode, Node
from tests.hub.storednode import Disk

TOPICS: Final = ("a", "b", "t/1", "t/2", "aside")
GRANTS: Final = (None, Rights(subscribe=("a",)), Rights(subscribe=("*",)))
SELECTIONS: Final = (("a", "b"), ("a", "t/{n}"), ("*",), ("a", "b", "t/1", "never"))
VIEWS: Final = (None, View(filter="data.n > 3"), View(until=(b"done",)), View(envelope=True))
TTL_MS: Final = 60_000


def content(snapshot: Any) -> tuple[int, list[tuple[bytes, bool, bool]]]:
    """The place that a snapshot describes, and its pages."""
    assert isinstance(snapshot, Snapshot)
    pages = []
    while not snapshot.is_sent:
        page = snapshot.next_page(snapshot.through)
        pages.append((page.frame.body if page.frame else b"", page.is_last, page.is_over))
    return snapshot.through, pages


def shared_of(node: Node) -> Snapshots:
    """Makes the snapshots of a node's streams."""
    return node.hub.streams._replayer._snapshots


class Run:
    """A node whose snapshots are held against new ones after each step."""

    def __init__(self) -> None:
        rules = (
            TopicRule(match="b", history_events=2),
            TopicRule(match="t/1", history_age=300.0, keep_last=1),
        )
        self.node = Node(HistoryOptions(topics=rules, history_age=600, history_total=20_000))
        self.channels: list[Channel] = []
        self.is_open = False
        self.number = 0
        self.queries = StoreQueries(self.node.hub._backbone, 64)
        self.snapshots = shared_of(self.node)

    def join(self) -> None:
        """Makes the channels, so that what they name is alive; or removes them."""
        self.is_open = not self.is_open
        channels = self.node.hub.channels
        if not self.is_open:
            for channel in self.channels:
                channels.leave(channel)
            self.channels.clear()
            return
        for selectors in SELECTIONS:
            for rights in GRANTS:
                for view in VIEWS:
                    asked = None if view is None else ChannelView(view, "")
                    self.channels.append(channels.join(selectors, rights, view=asked))

    def publish(self, topics: list[str], is_private: bool, has_ttl: bool, is_done: bool) -> None:
        self.number += 1
        asked = directives_of(ttl=TTL_MS / 1000) if has_ttl else None
        data, kind = json.dumps({"n": self.number}), "done" if is_done else None
        event = Event(tuple(topics), data, kind, private=is_private, data_kind=1, directives=asked)
        self.node.publish_all([event])

    def delete(self, choice: int) -> None:
        kept = [one for one in self.node.hub.history.entries(0) if one.frame.events]
        if kept:
            one = kept[choice % len(kept)]
            event_id = format_position(one.position).decode()
            self.node.hub.delete_event(one.topics[0], event_id, Mock())

    def purge(self, topic: str) -> None:
        self.node.hub.purge_topic(topic, Mock())

    def wait(self, ms: int) -> None:
        self.node.now_ms += ms
        while self.node.hub.sweep(self.node.now_ms):
            pass

    def lose(self) -> None:
        self.node.hub.streams.report_loss(self.node.hub.history.lose(self.node.hub.history.head))

    def compare(self, count: int) -> None:
        new = Snapshots(self.node.hub.history, self.queries)
        for channel in self.channels:
            shared = self.snapshots.read(channel, count, Mock(), has_marker=True)
            again = new.read(channel, count, Mock(), has_marker=True)
            assert content(shared) == content(again), (channel.selectors, channel.view)
            new.clear()


steps = st.one_of(
    st.tuples(
        st.just("publish"),
        st.lists(st.sampled_from(TOPICS), min_size=1, max_size=2, unique=True),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    st.tuples(
        st.just("publish"), st.just(["aside"]), st.booleans(), st.just(False), st.just(False)
    ),
    st.tuples(st.just("delete"), st.integers(0, 50)),
    st.tuples(st.just("purge"), st.sampled_from(TOPICS)),
    st.tuples(st.just("wait"), st.sampled_from([1, TTL_MS, 5 * TTL_MS])),
    st.tuples(st.just("lose")),
    st.tuples(st.just("join")),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(steps, st.sampled_from([1, 2])), max_size=25))
def test_a_shared_snapshot_is_the_one_that_would_be_made_now(script: list[Any]) -> None:
    run = Run()
    try:
        run.join()
        for (name, *given), count in script:
            getattr(run, name)(*given)
            run.compare(count)
    finally:
        run.node.close()


def snapshot_of(node: Node, *topics: str) -> list[str]:
    """The data of a new stream's snapshot."""
    client = node.subscribe(*topics, last_each=1)
    node.run_until(lambda: "fastsse.snapshot" in [one.type for one in client.stream.events])
    node.hang_up(client)
    return client.data[:-1]


def test_streams_that_ask_for_the_same_share_a_snapshot(make_node: MakeNode) -> None:
    node = make_node()
    made = shared_of(node)
    for topic in ("a", "b"):
        node.publish(topic, topic)
    assert [snapshot_of(node, "a", "b") for _ in range(5)] == [["a", "b"]] * 5
    assert (made.made_total, made.shared.hits) == (1, 4)
    last = node.publish("other", "x")  # Changes only the place at the end.
    client = node.subscribe("a", "b", last_each=1)
    node.run_until(lambda: len(client.stream.events) == 3)
    assert client.stream.last_event_id == last
    assert (made.made_total, made.shared.hits) == (1, 5)
    node.publish("a", "a2")
    assert snapshot_of(node, "a", "b") == ["b", "a2"]
    assert made.made_total == 2


def test_a_snapshot_is_shared_by_streams_at_different_pages(make_node: MakeNode) -> None:
    node = make_node()
    for n in range(200):
        node.publish(f"s/{n}", f"{n} " + "x" * 4_000)
    slow = node.subscribe("s/{n}", last_each=1, receive_bytes=4_096)
    node.clients.remove(slow)
    quick = node.subscribe("s/{n}", last_each=1)
    node.run_until(lambda: len(quick.stream.events) == 201)
    last = node.publish("s/1", "live")
    node.clients.append(slow)
    node.run_until(lambda: slow.stream.last_event_id == quick.stream.last_event_id == last)
    assert slow.data == quick.data
    assert shared_of(node).made_total == 1


@pytest.mark.parametrize(
    ("sizes", "pages"),
    [
        ([], [0]),
        ([500], [500]),
        ([50, 50, 50], [100, 50]),
        ([99, 20, 20], [119, 20]),
        ([500, 500], [500, 500]),
        ([40, 40, 40, 40, 40], [120, 80]),
    ],
)
def test_a_page_ends_with_the_event_that_fills_it(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], pages: list[int]
) -> None:
    monkeypatch.setattr(shared_snapshots, "PAGE_BYTES", 100)
    made = shared_snapshots.SnapshotPages([raw_frame(b"x" * size) for size in sizes])
    assert (made.events, made.bytes) == (len(sizes), sum(sizes))
    for _ in range(2):  # The second stream is sent the same frames.
        read = [made.page(number) for number in range(len(pages))]
        assert [0 if page is None else page.size for page, _ in read] == pages
        assert [is_last for _, is_last in read] == [*[False] * (len(pages) - 1), True]


def test_a_snapshot_keeps_no_event_that_is_in_its_pages() -> None:
    frames = [raw_frame(b"x" * 100) for _ in range(2)]
    made = shared_snapshots.SnapshotPages(frames.copy())
    before = sys.getrefcount(frames[0])
    made.page(0)
    after = sys.getrefcount(frames[0])
    assert after == before - 1


class Cache:
    """The snapshots of one node's channels, each of one event of 100 bytes."""

    def __init__(self, node: Node) -> None:
        self.now_s = 1.0
        self.node = node
        self.kept = SnapshotCache(node.hub.history, lambda: self.now_s)

    def keep(self, *topics: str, size: int = 100, until_s: float = math.inf, **given: Any) -> Any:
        """Keeps a snapshot; returns the channel."""
        channel = self.node.hub.channels.join(topics, given.pop("rights", None))
        facts = {"topics": 1, "is_complete": True, "is_over": False, "expires_ms": 0, **given}
        pages = shared_snapshots.SnapshotPages([raw_frame(b"x" * size)])
        self.kept.keep(channel, 1, SharedSnapshot(pages, until_s=until_s, **facts))
        return channel

    def found(self, *channels: Channel) -> list[bool]:
        return [self.kept.find(channel, 1) is not None for channel in channels]


def cost_bytes(*names: str, size: int = 100) -> int:
    return 2 * size + 1_000 + sum(sys.getsizeof(name) + 16 for name in names)


def test_each_kept_snapshot_counts_its_pages_and_names(node: Node) -> None:
    cache = Cache(node)
    assert (len(cache.kept), cache.kept.bytes, cache.kept.hits) == (0, 0, 0)
    a = cache.keep("a")
    assert cache.kept.bytes == cost_bytes("a")
    granted = cache.keep("a", rights=Rights(subscribe=["secret"]))
    assert cache.kept.bytes == cost_bytes("a") + cost_bytes("a", "secret")
    cache.keep("a", size=200)
    assert cache.kept.bytes == cost_bytes("a", size=200) + cost_bytes("a", "secret")
    assert cache.found(a, granted) == [True, True]
    assert cache.kept.hits == 2
    # The last page is there twice: with the event at its end, and without. Others are there once.
    cache.kept.clear()
    cache.keep("a", size=PAGE_BYTES + 5_000)
    assert cache.kept.bytes == cost_bytes("a", size=PAGE_BYTES) + 5_000


def test_a_snapshot_that_holds_no_more_is_dropped(node: Node) -> None:
    cache = Cache(node)
    brief = cache.keep("a", until_s=2.0)
    expiring = cache.keep("b", expires_ms=node.now_ms + 1)
    cache.now_s = 2.0
    assert cache.found(brief, expiring) == [True, True]
    cache.now_s = 2.01
    assert cache.found(brief, expiring) == [False, True]
    assert (len(cache.kept), cache.kept.bytes) == (1, cost_bytes("b"))
    node.now_ms += 1
    assert cache.found(expiring) == [False]
    assert (len(cache.kept), cache.kept.bytes) == (0, 0)


def test_a_snapshot_from_before_older_events_were_inserted_is_dropped(node: Node) -> None:
    cache, history = Cache(node), node.hub.history
    history.expected_through = history.head
    channel = cache.keep("a")
    assert cache.found(channel) == [True]
    history.expected_through = 0
    assert cache.found(channel) == [False]


def test_snapshots_that_were_used_last_are_kept(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(node)
    monkeypatch.setattr(shared_snapshots, "_SNAPSHOTS_MAX", 2)
    a, b = cache.keep("a"), cache.keep("b")
    assert cache.found(a) == [True]
    c = cache.keep("c")
    assert cache.found(a, b, c) == [True, False, True]
    assert cache.kept.bytes == cost_bytes("a") + cost_bytes("c")
    monkeypatch.setattr(shared_snapshots, "_SNAPSHOTS_MAX", 100)
    monkeypatch.setattr(shared_snapshots, "SHARED_BYTES_MAX", cache.kept.bytes)
    cache.keep("a")
    assert cache.found(a, c) == [True, True], "the bound itself is allowed"
    cache.keep("a", size=101)
    assert cache.found(a, c) == [True, False]


def test_a_snapshot_that_is_too_large_is_not_kept(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(node)
    name = "n" * 500
    name_bytes = sys.getsizeof(name) + 16
    for most, is_kept in ((name_bytes, True), (name_bytes - 1, False)):
        monkeypatch.setattr(shared_snapshots, "_SNAPSHOT_BYTES_MAX", most)
        assert cache.found(cache.keep(name)) == [is_kept]
        assert cache.found(cache.keep("a", size=most)) == [True]
        assert cache.found(cache.keep("a", size=most + 1)) == [False]
        cache.kept.clear()


def test_kept_snapshots_are_bounded_in_bytes(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_snapshots, "SHARED_BYTES_MAX", 100_000)
    monkeypatch.setattr(shared_snapshots, "_SNAPSHOT_BYTES_MAX", 25_000)
    node = make_node()
    shared = shared_of(node).shared
    for n in range(60):
        node.publish(f"s/{n}", "x" * 5_000)
        snapshot_of(node, f"s/{n}")
        assert shared.bytes <= 100_000
    assert 5 < len(shared) < 20
    node.publish("big", "x" * 30_000)
    before = len(shared)
    snapshot_of(node, "big")
    snapshot_of(node, *(f"{n}-" + "n" * 900 for n in range(30)))  # Names are counted, too.
    assert len(shared) == before
    shared.clear()
    assert (len(shared), shared.bytes) == (0, 0)


def test_a_store_s_answer_in_a_shared_snapshot_is_used_for_a_second(make_node: MakeNode) -> None:
    before = make_node(disk=Disk())
    before.publish("a", "stored")
    node = restarted(make_node, before)
    made, now_s = shared_of(node), [1.0]
    made._now_s = made.shared._now_s = lambda: now_s[0]
    assert [snapshot_of(node, "a", "b") for _ in range(3)] == [["stored"]] * 3
    asked = [one for one in node.store.questions if one[0] == "newest"]
    assert (made.made_total, len(asked)) == (1, 1)
    now_s[0] += STORED_S + 0.1
    assert snapshot_of(node, "a", "b") == ["stored"]
    assert made.made_total == 2


def test_a_topic_that_was_forgotten_and_made_again_has_no_old_snapshot(
    make_node: MakeNode,
) -> None:
    node = make_node(HistoryOptions(history_age=60))
    node.publish("a", "old")
    assert snapshot_of(node, "a") == ["old"]
    node.now_ms += 61_000
    while node.hub.sweep(node.now_ms):
        pass
    assert "a" not in node.hub.topics.by_name
    node.publish("other", "x")
    assert snapshot_of(node, "a") == []


def test_what_was_evicted_by_its_age_is_in_no_later_snapshot(make_node: MakeNode) -> None:
    node = make_node(HistoryOptions(history_age=60))
    node.publish("a", "old")
    keeps_it_alive = node.subscribe("a")
    assert snapshot_of(node, "a") == ["old"]
    node.now_ms += 61_000
    while node.hub.sweep(node.now_ms):
        pass
    assert snapshot_of(node, "a") == []
    assert not keeps_it_alive.is_ended
