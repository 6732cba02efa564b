"""What the streams of a node receive through the real sender, and what is left of them."""

import time
import tracemalloc
from dataclasses import replace
from unittest.mock import Mock

import pytest

from fastsse._core import QUEUE_MAX, REASON_ENDED, native_bytes_held, raw_frame
from fastsse.backbone.memory import MemoryBackbone
from fastsse.config import HistoryOptions
from fastsse.errors import StreamRefused
from fastsse.hub.channels import KEPT_TOPICS_MIN, UNUSED_MAX, Channels
from fastsse.hub.history import History
from fastsse.hub.resume.options import ReplayOptions
from fastsse.hub.streams import Streams
from fastsse.hub.topics import Rules, Topics
from fastsse.subscriptions import EVENTS, Cursor, Subscription, View
from tests.hub.onenode import RESPONSE_HEAD, START_MS, MakeNode, Node
from tests.hub.recorded import Recorded, RecordingSender


def test_opening_block_names_the_head_and_events_follow(node: Node) -> None:
    place = node.publish("a", "before")
    client = node.subscribe("a")
    node.publish("b", "not for a")
    node.publish("a", "after")
    assert node.run_until_received(client, 1) == ["after"]
    assert client.received.startswith(RESPONSE_HEAD)
    assert client.body.startswith(f": fastsse\nretry: 3000\nid: {place}\n\n".encode())


def test_opening_block_without_an_id_has_no_blank_line(node: Node) -> None:
    client = node.subscribe("a", dialect=replace(EVENTS, initial_id="false"))
    published = node.publish("a", "x")
    node.run_until_received(client, 1)
    assert client.body == f": fastsse\nretry: 3000\nid: {published}\ndata: x\n\n".encode()


def test_streams_opened_between_two_publishes_share_their_first_frame(node: Node) -> None:
    openings = node.hub.streams._openings
    for initial_id in ("true", "true", "false"):
        node.subscribe("a", dialect=replace(EVENTS, initial_id=initial_id))
    assert len(openings) == 2
    node.publish("a")
    node.subscribe("a")
    assert len(openings) == 1


def test_chunked_streams_carry_the_opening_block_as_the_first_chunk(node: Node) -> None:
    node.publish("a", "kept")
    client = node.subscribe("a", chunked=True, cursor=Cursor("earliest"))
    node.run_until(lambda: client.body.endswith(b"kept\n\n\r\n"))
    opening = f": fastsse\nretry: 3000\nid: {START_MS}-0\n\n".encode()
    assert client.body.startswith(b"%x\r\n%b\r\n" % (len(opening), opening))


def test_a_deletion_sends_nothing_to_streams_that_do_not_ask_for_it(node: Node) -> None:
    gone = node.publish("a", "0")
    clients = [node.subscribe(*topics) for topics in (("a",), ("a", "b"), ("*",))]
    deleted = Mock()
    node.hub.delete_event("a", gone, deleted)
    deleted.assert_called_once()
    published = node.publish("a", "1")
    for client in clients:
        assert node.run_until_received(client, 1) == ["1"]
        assert client.body.endswith(f"\n\nid: {published}\ndata: 1\n\n".encode())
        assert client.body.count(b"\n\n") == 2


def test_an_event_of_two_topics_reaches_a_stream_of_both_once(node: Node) -> None:
    client = node.subscribe("a", "b")
    everything = node.subscribe("*")
    for topics, data in ((("a", "b"), "1"), (("b", "c"), "2"), (("c",), "3"), (("a",), "4")):
        node.publish(topics, data)
    assert node.run_until_received(client, 3) == ["1", "2", "4"]
    assert node.run_until_received(everything, 4) == ["1", "2", "3", "4"]


def test_a_closed_stream_is_reported_once_with_what_it_got(node: Node) -> None:
    begun_s = time.monotonic()
    client = node.subscribe("b", "a")
    node.publish("a", "x")
    node.run_until_received(client, 1)
    node.sender.advance_clock(5_000)
    node.hang_up(client)
    (closed,) = node.closed
    assert (closed.handle, closed.selectors) == (client.handle, ("a", "b"))
    assert (closed.reason, closed.events) == ("client_closed", 1)
    assert closed.bytes == len(client.received)
    assert 4.9 < closed.duration_s < 5.1 + time.monotonic() - begun_s


def test_closing_a_stream_sends_the_farewell_and_ends_it(node: Node) -> None:
    client = node.subscribe("a")
    node.run_until(lambda: client.body.endswith(b"\n\n"))
    assert node.hub.streams.close(client.handle, REASON_ENDED, raw_frame(b"retry: 9000\n"))
    node.run_until(lambda: client.is_ended and len(node.closed) == 1)
    assert client.stream.retry_ms == 9000
    assert node.closed[0].reason == "ended"
    assert not node.hub.streams.close(client.handle, REASON_ENDED)


def test_a_full_table_turns_newcomers_away_and_takes_them_again(make_node: MakeNode) -> None:
    node = make_node(max_connections=1)
    assert node.hub.streams.has_room()
    client = node.subscribe("a")
    assert not node.hub.streams.has_room()
    with pytest.raises(StreamRefused) as caught:
        node.subscribe("a")
    assert caught.value.reason == "full"
    node.hang_up(client)
    assert node.hub.streams.has_room()
    node.subscribe("a")


def test_a_sender_that_is_behind_turns_newcomers_away() -> None:
    recorded = Recorded()
    recorded.sender.pending_commands = QUEUE_MAX
    assert not recorded.streams.has_room()
    with pytest.raises(StreamRefused) as caught:
        recorded.open("a")
    assert caught.value.reason == "queue"
    assert recorded.take_commands() == []


def test_a_draining_node_turns_newcomers_away_and_ends_its_streams(node: Node) -> None:
    client = node.subscribe("a")
    node.hub.drain(0.0)
    assert not node.hub.streams.has_room()
    with pytest.raises(StreamRefused) as caught:
        node.subscribe("a")
    assert caught.value.reason == "draining"
    node.run_until(lambda: client.is_ended)


def test_nothing_is_left_of_streams_that_are_gone(node: Node) -> None:
    for topic in ("a", "b", "a"):
        client = node.subscribe(topic, "shared", cursor=Cursor("earliest"))
        node.run_until(lambda client=client: client.body != b"")  # type: ignore[misc]
        node.hang_up(client)
    node.hub.sweep(node.now_ms)
    hub = node.hub
    assert (len(hub.channels), len(hub.topics), hub.streams.replays) == (0, 0, 0)


def test_a_channel_of_many_topics_is_kept_from_one_stream_to_the_next(node: Node) -> None:
    topics = [f"t/{n}" for n in range(KEPT_TOPICS_MIN)]
    channels = node.hub.channels
    for view in (None, View(envelope=True)):
        client = node.subscribe(*topics, view=view)
        node.hang_up(client)
        node.publish("t/0", "between")
        client = node.subscribe(*topics, view=view)
        node.publish("t/1", "live")
        node.run_until_received(client, 1)
        assert len(channels) == 1
        node.hub.sweep(node.now_ms)
        node.hub.sweep(node.now_ms)
        node.publish("t/2", "after")  # Sweeps drop no channel that is used.
        node.run_until_received(client, 2)
        node.hang_up(client)
        assert len(channels) == 1
        node.hub.sweep(node.now_ms)
        assert len(channels) == 1
        node.hub.sweep(node.now_ms)
        assert len(channels) == 0
    partial = View(filter="data.n > 1"), View(interval_ms=200), View(types=(b"x",))
    for view in partial:
        node.hang_up(node.subscribe(*topics, view=view))
        assert len(channels) == 0


def test_channels_that_are_kept_without_a_stream_are_bounded(node: Node) -> None:
    topics = [f"t/{n}" for n in range(KEPT_TOPICS_MIN)]
    for n in range(2 * UNUSED_MAX):
        node.hang_up(node.subscribe(*topics, f"own/{n}"))
    assert len(node.hub.channels) == UNUSED_MAX
    for _ in range(2):
        node.hub.sweep(node.now_ms)
    assert (len(node.hub.channels), len(node.hub.topics)) == (0, 0)


def test_a_stream_on_a_topic_of_its_own_costs_at_most_a_kilobyte() -> None:
    """10,000 streams, each on its own topic and a shared one: Python's part by tracemalloc, the
    core's by its own count and by the size of a row of its table."""
    count, row_bytes = 10_000, 80
    sender = RecordingSender()
    sender.__dict__["commands"] = _Forgetful()
    topics = Topics(Rules(HistoryOptions(), "disconnect"), 0)
    history = History(topics, 1 << 20, 0)
    channels = Channels(sender, topics)  # type: ignore[arg-type]
    streams = Streams(
        sender,  # type: ignore[arg-type]
        channels,
        history,
        MemoryBackbone(lambda: 0),
        options=ReplayOptions(3000, clean_end=False, memory_bytes=1 << 20),
        now_ms=lambda: 0,
    )
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for index in range(count):
        subscription = Subscription([f"user/{index}", "news"])
        streams.open(subscription, RESPONSE_HEAD, True, 99)
    python_bytes = (tracemalloc.get_traced_memory()[0] - before) / count
    tracemalloc.stop()
    assert len(channels) == count
    native_bytes = row_bytes + _native_bytes_per_channel(count)
    assert python_bytes <= 640, python_bytes
    assert python_bytes + native_bytes <= 1024, (python_bytes, native_bytes)


class _Forgetful(list[tuple[object, ...]]):
    def append(self, item: tuple[object, ...]) -> None:
        pass


def _native_bytes_per_channel(count: int) -> float:
    """What the core holds for a channel of two topics, one of them shared by all."""
    node = Node()
    try:
        before = native_bytes_held()
        for index in range(count):
            node.sender.add_channel(index, (index + 2, 1))
        node.run_until(lambda: node.sender.pending_commands == 0)
        return (native_bytes_held() - before) / count
    finally:
        node.close()
