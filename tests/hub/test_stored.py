"""What memory does not have any more, or had before a restart, comes from the store: no gap, none
twice, none in between, whenever the store answers."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsse.config import HistoryOptions
from fastsse.directives import Directives
from fastsse.events import Event
from fastsse.subscriptions import Cursor
from tests.hub.afterrestart import BIG, PAGE_BYTES, read_until, reasons, restarted, words
from tests.hub.onenode import MakeNode, Node
from tests.hub.storednode import Disk


@pytest.mark.parametrize("holds", [False, True])
def test_resuming_after_a_restart_needs_no_new_publish_and_tells_no_gap(
    make_node: MakeNode, holds: bool
) -> None:
    before = make_node(disk=Disk())
    ids = [before.publish("a", str(index)) for index in range(10)]
    node = restarted(make_node, before)
    node.store.holds = holds
    for cut in (0, 4, 9):
        client = node.resume("a", after=ids[cut])
        node.run_until(lambda client=client: client.stream.last_event_id != "")  # type: ignore[misc]
        assert node.run_until_received(client, 9 - cut) == list(map(str, range(cut + 1, 10)))
        assert client.gaps == []
        assert client.body.startswith(b": fastsse\nretry: 3000\nid: %b\n\n" % ids[cut].encode())


@pytest.mark.parametrize("holds", [False, True])
def test_evicted_events_are_read_from_the_store_and_then_memory_continues(
    make_node: MakeNode, holds: bool
) -> None:
    node = make_node(HistoryOptions(history_events=3), disk=Disk(), page_bytes=PAGE_BYTES)
    node.store.holds = holds
    ids = [node.publish("ab"[index % 2], f"{index} {BIG}") for index in range(40)]
    client = node.resume("a", "b", after=ids[0], receive_bytes=4096)
    node.publish("a", "live")
    assert read_until(node, client, "live") == [*map(str, range(1, 40)), "live"]
    assert client.gaps == []
    assert node.hub.streams.replays == 0


@pytest.mark.parametrize("kept", [1, 100], ids=["store", "memory"])
def test_an_event_that_expires_is_in_no_page_that_was_kept_or_is_read(
    make_node: MakeNode, kept: int
) -> None:
    node = make_node(HistoryOptions(history_events=kept), disk=Disk())
    short = Directives(ttl_ms=60_000)
    first, *_ = node.publish_all([Event("a", word) for word in ("first", "before")]).ids
    node.publish_all([Event("a", "short", directives=short), Event("a", "after")])
    for wait_ms, expected in ((0, ["before", "short", "after"]), (60_000, ["before", "after"])):
        node.now_ms += wait_ms
        for _ in range(2):  # The second is sent a page that the first has left.
            client = node.resume("a", after=first.decode())
            assert read_until(node, client, "after") == expected


def test_events_published_while_the_store_is_read_come_once_and_in_order(
    make_node: MakeNode,
) -> None:
    node = make_node(HistoryOptions(history_events=2), disk=Disk(), page_bytes=PAGE_BYTES)
    node.store.holds = True
    ids = [node.publish("a", f"{index} {BIG}") for index in range(20)]
    client = node.resume("a", after=ids[4], receive_bytes=4096)
    numbers = iter(range(20, 60))

    def publish_some() -> bool:
        for _, number in zip(range(3), numbers, strict=False):
            node.publish("a", f"{number} {BIG}")
        return node.hub.streams.replays == 0 and words(client)[-1:] == ["59"]

    node.run_until(publish_some)
    assert words(client) == [str(number) for number in range(5, 60)]
    assert client.gaps == []


def test_what_is_stored_but_not_delivered_yet_comes_live_and_only_then(
    make_node: MakeNode,
) -> None:
    before = make_node(disk=Disk())
    first = before.publish("a", "1")
    before.publish("a", "2")
    node = restarted(make_node, before)
    committed = node.store.commit([Event("a", "3")])
    client = node.resume("a", after=first)
    node.run_until(lambda: client.data == ["2"])
    node.store.deliver(committed)
    node.publish("a", "4")
    assert read_until(node, client, "4") == ["2", "3", "4"]


def test_evictions_of_the_store_are_reported_before_anything_else(make_node: MakeNode) -> None:
    before = make_node(disk=Disk())
    ids = [before.publish("a", str(index)) for index in range(10)]
    before.store.disk.evict(4)
    node = restarted(make_node, before)
    client = node.resume("a", after=ids[1])
    node.run_until(lambda: len(client.data) == 6)
    assert client.stream.events[0] == client.gaps[0]
    told = json.loads(client.gaps[0].data)
    assert (told["reason"], told["requested"]) == ("evicted", ids[1])
    again = node.resume("a", after=told["from"])
    node.run_until(lambda: again.data == client.data)
    assert again.gaps == []
    at_the_edge = node.resume("a", after=ids[3])
    node.run_until(lambda: at_the_edge.data == client.data)
    assert at_the_edge.gaps == []


def test_own_ids_are_found_in_the_store(make_node: MakeNode) -> None:
    before = make_node(disk=Disk())
    before.publish("a", "0", id="mine")
    before.publish("a", "1")
    node = restarted(make_node, before)
    node.store.holds = True
    for event_id, expected, told in (("mine", ["1"], []), ("unknown", [], ["unknown"])):
        client = node.resume("a", after=event_id)
        node.run_until(lambda client=client: client.stream.last_event_id != "")  # type: ignore[misc]
        node.run_until(lambda client=client, e=expected: len(client.data) == len(e))  # type: ignore[misc]
        assert (client.data, reasons(client)) == (expected, told)


def test_a_position_above_the_head_lies_in_the_future(make_node: MakeNode) -> None:
    node = make_node(disk=Disk())
    client = node.resume("a", after="9999999999999-1")
    node.publish("a", "live")
    assert read_until(node, client, "live") == ["live"]
    assert reasons(client) == ["future"]


@pytest.mark.parametrize(
    ("cursor", "expected"),
    [
        (Cursor("earliest"), range(10)),
        (Cursor("last", 2), range(8, 10)),
        (Cursor("last", 7), range(3, 10)),
        (Cursor("last", 100), range(10)),
        (Cursor("last", 0), range(0)),
        (Cursor("since", 0), range(10)),
    ],
)
def test_what_is_kept_is_what_is_stored(
    make_node: MakeNode, cursor: Cursor, expected: range
) -> None:
    before = make_node(disk=Disk())
    ids = [before.publish("a", str(index)) for index in range(6)]
    node = restarted(make_node, before)
    ids += [node.publish("a", str(index)) for index in range(6, 10)]
    client = node.subscribe("a", cursor=cursor)
    node.publish("a", "live")
    assert read_until(node, client, "live") == [*map(str, expected), "live"]
    assert client.gaps == []


def test_a_client_cut_before_its_first_event_comes_back_to_the_same_place(
    make_node: MakeNode,
) -> None:
    before = make_node(disk=Disk())
    for index in range(6):
        before.publish("a", str(index))
    node = restarted(make_node, before)
    for cursor in (Cursor("earliest"), Cursor("last", 6)):
        client = node.subscribe("a", cursor=cursor)
        node.run_until(lambda client=client: len(client.data) == 6)  # type: ignore[misc]
        opening_id = client.body.split(b"id: ")[1].split(b"\n")[0].decode()
        again = node.resume("a", after=opening_id)
        node.run_until(lambda again=again: len(again.data) == 6)  # type: ignore[misc]
        assert again.gaps == []


def test_a_quiet_topic_of_before_tells_no_gap(make_node: MakeNode) -> None:
    before = make_node(disk=Disk())
    place = before.publish("busy", "0")
    node = restarted(make_node, before)
    client = node.resume("quiet", after=place)
    node.publish("quiet", "at last")
    assert read_until(node, client, "at") == ["at"]
    assert client.gaps == []


def test_the_same_page_is_read_once_for_all_who_wait_for_it(make_node: MakeNode) -> None:
    before = make_node(disk=Disk())
    first = before.publish("a", "0")
    before.publish("a", "1")
    node = restarted(make_node, before)
    node.store.holds = True
    clients = [node.resume("a", after=first) for _ in range(5)]
    node.run_until(lambda: all(client.data == ["1"] for client in clients))
    late = node.resume("a", after=first)
    node.run_until(lambda: late.data == ["1"])
    assert len(node.store.questions) == 1


def test_only_so_many_read_at_once_and_the_others_in_turn(make_node: MakeNode) -> None:
    before = make_node(disk=Disk())
    ids = [before.publish("a", str(index)) for index in range(8)]
    node = restarted(make_node, before, max_replays=2)
    node.store.holds = True
    clients = [node.resume("a", after=event_id) for event_id in ids[:6]]
    assert len(node.store.held) == 2
    node.store.answer(1)
    assert len(node.store.held) == 2
    assert [question[2] for question in node.store.questions] == [
        entry.position for entry in node.store.disk.entries[:3]
    ]
    node.run_until(lambda: all(len(client.data) == 7 - n for n, client in enumerate(clients)))


def test_a_query_that_no_stream_waits_for_is_not_sent(make_node: MakeNode) -> None:
    before = make_node(disk=Disk())
    ids = [before.publish("a", f"{index} {BIG}") for index in range(40)]
    node = restarted(make_node, before, max_replays=1, page_bytes=PAGE_BYTES)
    gone = node.resume("a", after=ids[0], receive_bytes=4096)
    node.store.holds = True
    first = node.resume("a", after=ids[5])
    while not node.hub.streams._replayer._queries.waiting:
        gone.read()
        node.hub.streams.read_notices()
    node.hang_up_unanswered(gone)
    node.run_until(lambda: len(first.data) == 34)
    assert len({question[2] for question in node.store.questions}) < 20
    assert (
        node.hub.streams._replayer._queries.under_way
        == node.hub.streams._replayer._queries.waiting
        == 0
    )


# -- the log lost something ---------------------------------------------------------------------


def test_live_streams_receive_a_gap_for_what_the_log_lost_and_continue(
    make_node: MakeNode,
) -> None:
    node = make_node(disk=Disk())
    client = node.subscribe("a")
    node.publish("a", "1")
    node.run_until(lambda: client.data == ["1"])
    place = node.store.head + 100
    node.store.broken("trimmed", place)
    node.run_until(lambda: bool(client.gaps))
    told = json.loads(client.gaps[0].data)
    assert told["reason"] == "lost"
    assert client.stream.last_event_id == told["from"]
    node.now_ms += 1000
    node.publish("a", "2")
    assert read_until(node, client, "2") == ["1", "2"]
    assert node.hub.counters()["losses"] == node.hub.counters()["gaps_lost"] == 1


def test_resuming_across_a_loss_tells_it_once_and_brings_what_is_left(
    make_node: MakeNode,
) -> None:
    node = make_node(disk=Disk())
    ids = [node.publish("a", str(index)) for index in range(3)]
    node.store.broken("lost", node.store.head)
    node.publish("a", "3")
    client = node.resume("a", after=ids[0])
    node.run_until(lambda: client.data == ["1", "2", "3"])
    assert reasons(client) == ["lost"]
    assert client.stream.events[0] == client.gaps[0]
    for after in (ids[2], json.loads(client.gaps[0].data)["from"]):
        later = node.resume("a", after=after)
        node.run_until(lambda later=later: later.data[-1:] == ["3"])  # type: ignore[misc]
        assert reasons(later) == ([] if after == ids[2] else ["lost"])


def test_a_loss_in_the_middle_of_a_replay_is_reported_once(make_node: MakeNode) -> None:
    node = make_node(disk=Disk(), page_bytes=PAGE_BYTES)
    ids = [node.publish("a", f"{index} {BIG}") for index in range(40)]
    client = node.resume("a", after=ids[0], receive_bytes=4096)
    node.run_until(lambda: len(client.data) >= 3)
    node.store.broken("lost", node.store.head)
    node.publish("a", "live")
    assert read_until(node, client, "live") == [*map(str, range(1, 40)), "live"]
    assert reasons(client) == ["lost"]


# -- at random ----------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=2, unique=True),
        st.sampled_from([1, 100, 1000]),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=100)
@given(steps, steps, st.data())
def test_any_cut_of_any_stream_resumes_exactly_over_a_restart(
    before: list[tuple[list[str], int]],
    after: list[tuple[list[str], int]],
    data: st.DataObject,
) -> None:
    """Events before and after a restart, a resume after any of them at any time, a store that
    answers at once or later, little memory."""
    disk, wanted = Disk(), data.draw(st.sampled_from([("a",), ("a", "b"), ("*",), ("{x}",)]))
    history = HistoryOptions(history_events=data.draw(st.sampled_from([1, 3, 1000])))
    ids: list[str] = []
    expected: list[tuple[int, str]] = []

    def publish(node: Node, topics: list[str], size: int) -> None:
        ids.append(node.publish(topics, f"{len(ids)} " + "x" * size))
        if wanted[0] in ("*", "{x}") or not set(wanted).isdisjoint(topics):
            expected.append((len(ids) - 1, f"{len(ids) - 1}"))

    first = Node(history, disk=disk, page_bytes=500)
    for topics, size in before:
        publish(first, topics, size)
    first.close()
    node = Node(history, disk=disk, page_bytes=500, now_ms=first.now_ms + 1)
    try:
        node.store.holds = data.draw(st.booleans())
        back = data.draw(st.integers(0, len(after)))
        cut = data.draw(st.integers(0, len(before) + back - 1))
        for topics, size in after[:back]:
            publish(node, topics, size)
        client = node.resume(*wanted, after=ids[cut])
        for topics, size in after[back:]:
            if data.draw(st.booleans()):
                node.store.answer()
                node.hub.streams.read_notices()
            publish(node, topics, size)
        missing = [word for index, word in expected if index > cut]
        node.run_until(lambda: node.hub.streams.replays == 0 and len(client.data) >= len(missing))
        assert words(client) == missing
        assert client.gaps == []
    finally:
        node.close()
