"""A stream that was cut goes on exactly where it was: no gap, none twice, none in between; and
where that can't be, it says so."""

import json
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsse._core import raw_frame
from fastsse.config import HistoryOptions, StreamOptions, TopicRule
from fastsse.subscriptions import Cursor
from tests.hub.onenode import Client, MakeNode, Node

# So that a few events fill a page.
PAGE_BYTES = 2000


def reason(client: Client) -> list[str]:
    return [json.loads(gap.data)["reason"] for gap in client.gaps]


def read_all(node: Node, client: Client, *topics: str) -> list[str]:
    """Publishes a last event and reads until it comes: everything before it, that is."""
    node.publish(topics, "last")
    node.run_until(lambda: "last" in client.data)
    assert client.data.pop() == "last"
    return client.data[:-1]


@pytest.mark.parametrize("cut", range(11))
def test_resuming_after_any_event_brings_all_the_others_once(node: Node, cut: int) -> None:
    first = node.subscribe("a", "b")
    for index in range(10):
        node.publish("ab"[index % 2], str(index))
        node.publish("c", "not this")
    node.run_until_received(first, 10)
    ids = [first.body.split(b"id: ")[1].split(b"\n")[0].decode()]
    ids += [message.last_event_id for message in first.events]
    resumed = node.resume("a", "b", after=ids[cut])
    assert read_all(node, resumed, "a") == [str(index) for index in range(cut, 10)]
    assert resumed.gaps == []
    assert resumed.body.startswith(f": fastsse\nretry: 3000\nid: {ids[cut]}\n\n".encode())


@pytest.mark.parametrize(
    ("cut", "is_notified"), [(0, True), (5, True), (6, False), (7, False), (9, False)]
)
def test_resuming_before_the_edge_tells_a_gap_and_at_or_after_it_none(
    make_node: MakeNode, cut: int, is_notified: bool
) -> None:
    node = make_node(HistoryOptions(history_events=3))
    ids = [node.publish("a", str(index)) for index in range(10)]
    resumed = node.resume("a", after=ids[cut])
    kept = [str(index) for index in range(max(cut + 1, 7), 10)]
    node.run_until(lambda: len(resumed.stream.events) >= len(kept) + is_notified)
    assert resumed.data == kept
    assert reason(resumed) == (["evicted"] if is_notified else [])
    if is_notified:
        assert resumed.stream.events[0] == resumed.gaps[0]
        told = json.loads(resumed.gaps[0].data)
        assert told == {"reason": "evicted", "requested": ids[cut], "from": told["from"]}
        again = node.resume("a", after=told["from"])
        assert read_all(node, again, "a") == kept
        assert again.gaps == []


def test_resuming_with_an_unknown_id_continues_live(node: Node) -> None:
    node.publish("a", "old")
    for event_id, why in (("who", "unknown"), ("9999999999999-1", "future")):
        client = node.resume("a", after=event_id)
        assert read_all(node, client, "a") == []
        assert reason(client) == [why]


def test_resuming_with_an_id_from_before_a_restart_tells_a_gap(make_node: MakeNode) -> None:
    before = make_node()
    old = before.publish("a", "lost")
    after = make_node(now_ms=before.now_ms + 5000)
    client = after.resume("a", after=old)
    assert read_all(after, client, "a") == []
    assert reason(client) == ["evicted"]


def test_resuming_with_the_opening_id_of_a_quiet_topic_tells_no_gap(make_node: MakeNode) -> None:
    node = make_node(HistoryOptions(history_events=2))
    quiet = node.subscribe("quiet")
    node.run_until(lambda: quiet.stream.last_event_id != "")
    node.hang_up(quiet)
    for index in range(50):
        node.publish("busy", str(index))
    node.publish("quiet", "at last")
    resumed = node.resume("quiet", after=quiet.stream.last_event_id)
    assert read_all(node, resumed, "quiet") == ["at last"]
    assert resumed.gaps == []


def test_a_publishers_own_id_is_resumed_from(node: Node) -> None:
    node.publish("a", "1", id='urn:x "1"')
    node.publish("a", "2")
    client = node.resume("a", after='urn:x "1"')
    assert read_all(node, client, "a") == ["2"]
    assert client.gaps == []


def test_earliest_and_last_n_bring_what_is_kept(node: Node) -> None:
    for index in range(5):
        node.publish("a", str(index))
    for cursor, expected in (
        (Cursor("earliest"), ["0", "1", "2", "3", "4"]),
        (Cursor("last", 2), ["3", "4"]),
        (Cursor("last", 0), []),
        (Cursor("since", node.now_ms), ["0", "1", "2", "3", "4"]),
        (Cursor("since", node.now_ms + 1), []),
    ):
        client = node.subscribe("a", cursor=cursor)
        node.run_until(lambda client=client: client.stream.last_event_id != "")  # type: ignore[misc]
        node.run_until_received(client, len(expected))
        assert client.data == expected
        assert client.gaps == []


def pages_of(node: Node, topic: str, pages: int) -> list[str]:
    """Publishes about so many pages' worth; returns the data's first words."""
    big = "x" * (PAGE_BYTES // 4 - 50)
    for index in range(pages * 4):
        node.publish(topic, f"{index} {big}")
    return [str(index) for index in range(pages * 4)]


def words(client: Client) -> list[str]:
    return [data.partition(" ")[0] for data in client.data]


def test_a_long_replay_comes_in_pages_and_then_live_in_order(make_node: MakeNode) -> None:
    node = make_node(page_bytes=PAGE_BYTES)
    expected = pages_of(node, "a", 10)
    client = node.subscribe("a", cursor=Cursor("earliest"), receive_bytes=4096)
    assert node.hub.streams.replays == 1
    node.publish("a", "live 1")
    node.run_until(lambda: node.hub.streams.replays == 0)
    node.publish("a", "live 2")
    node.run_until_received(client, len(expected) + 2)
    assert words(client) == [*expected, "live", "live"]


def test_publishing_during_a_replay_leaves_nothing_out_and_repeats_nothing(
    make_node: MakeNode,
) -> None:
    node = make_node(HistoryOptions(history_events=10_000), page_bytes=PAGE_BYTES)
    expected = pages_of(node, "a", 6)
    client = node.subscribe("a", "b", cursor=Cursor("earliest"), receive_bytes=4096)
    published = count()

    def publish_some() -> bool:
        for _ in range(3):
            node.publish(("a", "b"), f"d{next(published)}")
        return node.hub.streams.replays == 0

    node.run_until(publish_some)
    node.publish("b", "end")
    node.run_until(lambda: words(client)[-1:] == ["end"])
    assert words(client) == [*expected, *(f"d{n}" for n in range(next(published))), "end"]
    assert client.gaps == []


def test_eviction_during_a_replay_is_reported_in_the_middle_of_it(make_node: MakeNode) -> None:
    node = make_node(HistoryOptions(history_events=24), page_bytes=PAGE_BYTES)
    pages_of(node, "a", 6)
    client = node.subscribe("a", cursor=Cursor("earliest"), receive_bytes=4096)
    for index in range(24):
        node.publish("a", f"new{index}")
    node.run_until(lambda: words(client)[-1:] == ["new23"])
    assert reason(client) == ["evicted"]
    told = json.loads(client.gaps[0].data)
    before = client.stream.events[: client.stream.events.index(client.gaps[0])]
    assert told["requested"] == before[-1].last_event_id
    assert words(client)[len(before) :] == [f"new{index}" for index in range(24)]
    assert words(client)[: len(before)] == [str(index) for index in range(len(before))]
    assert node.hub.streams.gaps["evicted"] == 1


def test_one_eviction_is_reported_once_however_many_pages_follow(make_node: MakeNode) -> None:
    rules = (TopicRule(match="busy", history_events=1),)
    node = make_node(HistoryOptions(topics=rules), page_bytes=PAGE_BYTES)
    start = node.publish("busy", "0")
    expected = pages_of(node, "calm", 4)
    node.publish("busy", "1")
    node.publish("busy", "2")
    client = node.resume("busy", "calm", after=start)
    node.run_until_received(client, len(expected) + 1)
    assert words(client) == [*expected, "2"]
    assert reason(client) == ["evicted"]


def test_clients_that_resume_from_the_same_place_share_pages(make_node: MakeNode) -> None:
    node = make_node(page_bytes=PAGE_BYTES)
    expected = pages_of(node, "a", 4)
    before = node.sender.memory_bytes
    clients = [
        node.subscribe("a", cursor=Cursor("earliest"), receive_bytes=4096) for _ in range(20)
    ]
    assert node.sender.memory_bytes - before < len(clients) * PAGE_BYTES / 4
    node.run_until(lambda: all(len(client.events) == len(expected) for client in clients))


def test_a_client_that_leaves_in_the_middle_of_a_replay_leaves_nothing(
    make_node: MakeNode,
) -> None:
    node = make_node(page_bytes=PAGE_BYTES)
    pages_of(node, "a", 4)
    client = node.subscribe("a", cursor=Cursor("earliest"), receive_bytes=4096)
    assert node.hub.streams.replays == 1
    node.hang_up(client)
    assert node.hub.streams.replays == 0


def test_a_replay_waits_while_memory_is_short_and_then_goes_on(make_node: MakeNode) -> None:
    options = HistoryOptions(history_total=1 << 20), StreamOptions(memory_limit=2 << 20)
    node = make_node(*options)
    node.publish("a", "0")
    held_by_others = raw_frame(b"x" * (1 << 20))
    client = node.subscribe("a", cursor=Cursor("earliest"))
    node.run_until(lambda: client.body != b"" and bool(node.hub.streams._replayer._waiting))
    # Where it begins is not known before its first page: cut now, it would ask the same again.
    assert client.body == b": fastsse\nretry: 3000\n"
    node.publish("a", "1")
    assert node.hub.streams.replays == 1
    del held_by_others
    node.hub.sweep(node.now_ms)
    node.publish("a", "2")
    assert node.run_until_received(client, 3) == ["0", "1", "2"]
    assert client.gaps == []


# -- at random ----------------------------------------------------------------------------------

publishes = st.tuples(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=2, unique=True),
    st.sampled_from([1, 100, 1000]),
)


@settings(deadline=None, max_examples=100)
@given(st.lists(publishes, min_size=1, max_size=12), st.data())
def test_any_cut_of_any_stream_resumes_exactly(
    steps: list[tuple[list[str], int]], data: st.DataObject
) -> None:
    """One stream reads on while another is cut after any event and resumed at any later time."""
    node = Node(page_bytes=500)
    try:
        wanted = data.draw(st.sampled_from([("a",), ("a", "b"), ("*",), ("a", "b", "c")]))
        cut = data.draw(st.integers(0, len(steps)))
        back = data.draw(st.integers(cut, len(steps)))
        whole = node.subscribe(*wanted)
        node.run_until(lambda: whole.stream.last_event_id != "")
        opening_id = whole.stream.last_event_id
        resumed = None
        matching = [wanted == ("*",) or not set(wanted).isdisjoint(topics) for topics, _ in steps]
        for index, (topics, size) in enumerate(steps):
            if index == back:
                resumed = resume_after(node, whole, opening_id, sum(matching[:cut]), wanted)
            node.publish(topics, f"{index} " + "x" * size)
        if resumed is None:
            resumed = resume_after(node, whole, opening_id, sum(matching[:cut]), wanted)
        node.run_until_received(whole, sum(matching))
        node.run_until_received(resumed, sum(matching[cut:]))
        assert resumed.events == whole.events[sum(matching[:cut]) :]
        assert resumed.gaps == []
    finally:
        node.close()


def resume_after(
    node: Node, whole: Client, opening_id: str, seen: int, wanted: tuple[str, ...]
) -> Client:
    """Resumes as a client would that saw `seen` events of what `whole` reads."""
    node.run_until_received(whole, seen)
    ids = [opening_id, *(message.last_event_id for message in whole.events)]
    return node.resume(*wanted, after=ids[seen])
