"""Snapshots of memory and of the store: the newest events of each topic that a stream may see,
whatever the store answered others before; and whether these are all."""

import json
from typing import Any
from unittest.mock import Mock

import pytest

from fastsse.auth.rights import Rights
from fastsse.config import HistoryOptions
from fastsse.directives import directives_of
from fastsse.events import Event
from fastsse.hub import history as history_module
from fastsse.hub.resume import snapshots
from fastsse.hub.resume.snapshots import STORED_S
from fastsse.positions import format_position
from fastsse.subscriptions import Cursor, Dialect
from tests.hub.afterrestart import BIG, PAGE_BYTES, read_until, reasons, restarted
from tests.hub.onenode import Client, MakeNode, Node
from tests.hub.storednode import Disk

GRANTED = Rights(subscribe=["a"])
TTL_MS = 10_000


def brief(topic: str, data: str) -> Event:
    """An event that expires."""
    return Event(topic, data, directives=directives_of(ttl=TTL_MS / 1000))


def is_whole(client: Client) -> bool:
    return any(one.type == "fastsse.snapshot" for one in client.stream.events)


def began(
    node: Node, *topics: str, last_each: int = 1, **options: Any
) -> tuple[list[str], dict[str, Any]]:
    """The data of a new stream's snapshot, and what the event at its end says."""
    client = node.subscribe(*topics, last_each=last_each, **options)
    node.run_until(lambda: is_whole(client))
    node.hang_up(client)
    *events, end = client.stream.events
    return [one.data for one in events], json.loads(end.data)


def end_of(topics: int, events: int, *, complete: bool = True) -> dict[str, Any]:
    return {"topics": topics, "events": events, "complete": complete}


def depths(node: Node) -> list[int]:
    """How many events of each topic the store was asked for, in order."""
    return [count for kind, _, count in node.store.questions if kind == "newest"]


def stored(make_node: MakeNode, *events: Event, **options: Any) -> Node:
    """A node that was started after these were published."""
    before = make_node(disk=Disk())
    for event in events:
        before.publish_all([event])
    return restarted(make_node, before, **options)


def frozen(node: Node) -> list[float]:
    """The clock of a node's snapshots, which stands still."""
    made, now_s = node.hub.streams._replayer._snapshots, [1.0]
    made._now_s = made.shared._now_s = lambda: now_s[0]
    return now_s


# -- what one reader may see, another may not -----------------------------------------------------


def test_what_a_stream_may_see_of_the_store_takes_nothing_from_another(
    make_node: MakeNode,
) -> None:
    node = stored(make_node, Event("a", "public"), Event("a", "secret", private=True))
    frozen(node)
    assert began(node, "a", rights=GRANTED) == (["secret"], end_of(1, 1))
    assert began(node, "a") == (["public"], end_of(1, 1))
    assert began(node, "a", rights=GRANTED)[0] == ["secret"]
    assert depths(node) == [1, 8], "both answers are used again"


def test_an_older_event_takes_the_place_of_one_that_expired_since_the_store_answered(
    make_node: MakeNode,
) -> None:
    node = stored(make_node, Event("a", "lasts"), brief("a", "brief"))
    frozen(node)
    assert began(node, "a")[0] == ["brief"]
    node.now_ms += TTL_MS
    assert began(node, "a")[0] == ["lasts"]


@pytest.mark.parametrize(
    ("hidden", "last_each", "asked", "found"),
    [
        (7, 1, [1, 8], ["first"]),
        (8, 1, [1, 8, 64], ["first"]),
        (511, 1, [1, 8, 64, 512], ["first"]),
        (512, 1, [1, 8, 64, 512], []),
        (600, 600, [600], []),
        (600, 601, [601], ["first"]),
    ],
)
def test_the_store_is_asked_for_older_events_behind_expired_ones_up_to_512(
    make_node: MakeNode, hidden: int, last_each: int, asked: list[int], found: list[str]
) -> None:
    gone = [brief("a", "gone") for _ in range(hidden)]
    node = stored(make_node, Event("b", "b"), Event("a", "first"), *gone)
    node.now_ms += TTL_MS
    assert began(node, "a", "b", last_each=last_each)[0] == ["b", *found]
    assert depths(node) == asked


def test_no_more_are_taken_from_the_store_than_were_asked_for(make_node: MakeNode) -> None:
    older = [Event("a", str(n)) for n in range(4)]
    node = stored(make_node, *older, brief("a", "gone"), brief("a", "gone"))
    node.now_ms += TTL_MS
    assert began(node, "a", last_each=1)[0] == ["3"]
    assert began(node, "a", last_each=2)[0] == ["2", "3"]
    node.publish("a", "4")
    assert began(node, "a", last_each=3)[0] == ["2", "3", "4"]


def test_the_event_at_the_place_of_a_start_is_in_the_snapshot(make_node: MakeNode) -> None:
    before = make_node(disk=Disk())
    before.publish("a", "last")
    node = make_node(now_ms=before.now_ms, disk=before.store.disk)
    assert node.hub.history.head == before.hub.history.head
    assert began(node, "a")[0] == ["last"]


def test_events_that_are_not_delivered_yet_come_after_the_snapshot(make_node: MakeNode) -> None:
    node = stored(make_node, Event("a", "before"))
    entries = node.store.commit([Event("a", "late")])
    client = node.subscribe("a", last_each=1)
    node.run_until(lambda: is_whole(client))
    node.store.deliver(entries)
    node.run_until(lambda: client.data[-1:] == ["late"])
    types = [one.type for one in client.stream.events]
    assert client.data[0] == "before"
    assert types == ["message", "fastsse.snapshot", "message"]


@pytest.mark.parametrize("selector", ["a", "{x}", "*"])
@pytest.mark.parametrize("is_forgotten", [False, True])
def test_an_event_that_memory_evicts_while_the_store_answers_is_sent(
    make_node: MakeNode, selector: str, is_forgotten: bool
) -> None:
    rules = HistoryOptions(history_events=1)
    node = stored(make_node, Event("a", "1"), Event("a", "2"), history=rules)
    node.store.holds = node.store.reads_at_once = True
    client = node.subscribe(selector, last_each=2)
    while not node.store.held:
        node.hub.sweep(node.now_ms)
    for data in ("3", "4"):  # Memory has 4 alone then, and the answer has 1 and 2.
        node.publish("a", data)
    if is_forgotten:
        node.hub.history.evict_through(node.hub.topics.intern("a"), node.hub.history.head)
        node.hub.topics.forget_idle(100)
    node.store.reads_at_once = False
    node.run_until(lambda: "4" in client.data)
    node.publish("a", "5")
    node.run_until(lambda: "5" in client.data)
    shown = [one for one in client.data if one.isdigit()]
    assert shown == ["1", "2", "3", "4", "5"]
    (end,) = (one for one in client.stream.events if one.type == "fastsse.snapshot")
    assert json.loads(end.data) == end_of(1, 2)
    assert not client.gaps


def test_memory_and_store_together_give_the_newest_of_each(make_node: MakeNode) -> None:
    node = stored(
        make_node, Event("a", "a1"), Event("a", "a2"), Event(("b", "c"), "both"), Event("d", "no")
    )
    node.publish("a", "a3")
    assert began(node, "a", "b", "c", last_each=2) == (["a2", "both", "a3"], end_of(3, 3))
    assert began(node, "{x}", last_each=2)[0] == ["a2", "both", "no", "a3"]
    assert began(node, "*", last_each=1) == (["both", "no", "a3"], end_of(4, 3))
    # Of an event only the topics that were asked for count.
    assert began(node, "b", last_each=2) == (["both"], end_of(1, 1))


# -- the store's answers --------------------------------------------------------------------------


def test_an_answer_is_used_again_until_memory_evicts_what_follows_it(
    make_node: MakeNode,
) -> None:
    node = stored(make_node, Event("a", "a1"), history=HistoryOptions(history_events=1))
    now_s = frozen(node)
    assert began(node, "a", last_each=2)[0] == ["a1"]
    node.publish("a", "a2")
    now_s[0] += STORED_S
    assert began(node, "a", last_each=2)[0] == ["a1", "a2"]
    assert depths(node) == [2]
    node.publish("a", "a3")
    assert began(node, "a", last_each=2)[0] == ["a2", "a3"]
    assert depths(node) == [2, 2]
    now_s[0] += STORED_S + 0.01
    assert began(node, "a", last_each=2)[0] == ["a2", "a3"]
    assert depths(node) == [2, 2, 2]


def test_the_newest_answers_are_kept(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_STORED_MAX", 2)
    node = stored(make_node, *(Event(name, name) for name in "abc"))
    frozen(node)
    made = node.hub.streams._replayer._snapshots
    for name in "abac":
        made.shared.clear()
        assert began(node, name)[0] == [name]
    assert list(made._stored) == [(("b",), 1), (("c",), 1)]
    assert depths(node) == [1, 1, 1], "a was asked for once"


def test_an_answer_that_takes_the_place_of_an_older_one_is_new(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_STORED_MAX", 2)
    node = stored(make_node, *(Event(name, name) for name in "abc"))
    now_s = frozen(node)
    began(node, "a")
    now_s[0] += STORED_S / 2
    began(node, "b")
    now_s[0] += STORED_S / 2 + 0.01
    for name in "ac":
        began(node, name)
    assert list(node.hub.streams._replayer._snapshots._stored) == [(("a",), 1), (("c",), 1)]


def test_what_was_deleted_in_the_store_is_in_no_later_snapshot(make_node: MakeNode) -> None:
    node = stored(make_node, Event("a", "a1"), Event("a", "a2"))
    frozen(node)
    assert began(node, "a")[0] == ["a2"]
    deleted = node.store.disk.entries[1]
    node.hub.delete_event("a", format_position(deleted.position).decode(), Mock())
    del node.store.disk.entries[1]
    assert began(node, "a")[0] == ["a1"]


def test_streams_that_wait_for_the_same_answer_share_the_snapshot(make_node: MakeNode) -> None:
    node = stored(make_node, Event("a", "a1"))
    node.store.holds = True
    clients = [node.subscribe("a", last_each=1) for _ in range(3)]
    assert depths(node) == [1]
    node.run_until(lambda: all(map(is_whole, clients)))
    assert [client.data[0] for client in clients] == ["a1"] * 3
    made = node.hub.streams._replayer._snapshots
    assert (made.made_total, made.shared.hits) == (1, 2)


@pytest.mark.parametrize("holds", [False, True])
def test_a_store_that_fails_is_asked_again_by_the_next_stream(
    make_node: MakeNode, holds: bool
) -> None:
    node = stored(make_node, Event("a", "a1"))
    node.publish("b", "b1")
    node.store.fails, node.store.holds = True, True
    client = node.subscribe("a", "b", last_each=1)
    node.run_until(lambda: client.is_ended)
    assert client.data == []
    node.store.fails, node.store.holds = False, holds
    assert began(node, "a", "b")[0] == ["a1", "b1"]
    assert node.hub.counters()["replays_failed"] == 1


# -- whether it is all ----------------------------------------------------------------------------


def test_a_topic_s_newest_thousands_are_all_sent(make_node: MakeNode) -> None:
    count = history_module.LEFT_OUT_MAX + 500
    node = make_node(HistoryOptions(history_events=count + 1))
    node.publish_all([Event("a", str(n)) for n in range(count + 1)])
    data, end = began(node, "a", last_each=count)
    assert data == [str(n) for n in range(1, count + 1)]
    assert end == end_of(1, count)


def test_a_snapshot_says_when_topics_or_events_are_missing(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node()
    for n in range(4):
        node.publish(f"t/{n}", str(n))
    monkeypatch.setattr(history_module, "SNAPSHOT_TOPICS_MAX", 3)
    assert began(node, "t/{n}") == (["1", "2", "3"], end_of(3, 3, complete=False))
    node.publish("t/1", "new")
    assert began(node, "*") == (["2", "3", "new"], end_of(3, 3, complete=False))
    monkeypatch.undo()
    node.publish("t/0", "0")
    assert began(node, "t/{n}") == (["2", "3", "new", "0"], end_of(4, 4))
    monkeypatch.setattr(snapshots, "SNAPSHOT_EVENTS_MAX", 4)
    assert began(node, "t/{n}", last_each=2)[1] == end_of(4, 4, complete=False)
    node.publish("t/2", "2")
    assert began(node, "t/{n}") == (["3", "new", "0", "2"], end_of(4, 4))
    node.publish("t/4", "4")
    assert began(node, "t/{n}") == (["new", "0", "2", "4"], end_of(5, 4, complete=False))


def test_a_snapshot_says_when_the_store_had_more_than_it_may_give(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = stored(make_node, *(Event(f"t/{n}", "x" * 100) for n in range(4)))
    frozen(node)
    monkeypatch.setattr(snapshots, "STORED_BYTES_MAX", 300)
    data, end = began(node, "t/{n}")
    assert (len(data), end) == (2, end_of(2, 2, complete=False))


def test_a_gap_before_a_snapshot_has_no_place_of_its_own(make_node: MakeNode) -> None:
    node = stored(make_node, Event("a", "a1"))
    unknown = Cursor("after", "never-was")
    client = node.subscribe("a", last_each=1, cursor=unknown)
    node.run_until(lambda: is_whole(client))
    assert reasons(client) == ["unknown"]
    assert [one.last_event_id for one in client.gaps] == [""]
    plain = node.subscribe(
        "a", last_each=1, cursor=unknown, dialect=Dialect(opens=True, has_control_events=False)
    )
    node.publish("a", "live")
    assert node.run_until_received(plain, 2) == ["a1", "live"]
    assert [one.type for one in plain.stream.events] == ["message", "message"]


def test_what_comes_during_a_snapshot_follows_it_once_though_the_stream_began_far_before(
    make_node: MakeNode,
) -> None:
    node = make_node(HistoryOptions(history_events=12), page_bytes=PAGE_BYTES)
    first = node.publish("a", "first")
    for n in range(20):
        node.publish("a", f"{n} {BIG}")
    client = node.resume("a", after=first, last_each=8, receive_bytes=4096)
    node.publish("a", "later")
    *newest, _, later = read_until(node, client, "later")
    assert (newest, later) == ([*map(str, range(12, 20))], "later")
    assert client.events[-2].type == "fastsse.snapshot"
