"""Channels: streams open, share, replay and close; what is not needed is removed."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest

from fastsse._core import QUEUE_MAX, REASON_ENDED, Frame, native_bytes_held, raw_frame
from fastsse.backbone.memory import MemoryBackbone
from fastsse.config import HistoryOptions
from fastsse.errors import StreamRefused
from fastsse.hub.channels import KEPT_TOPICS_MIN, UNUSED_MAX, Channels
from fastsse.hub.history import History
from fastsse.hub.resume.options import ReplayOptions
from fastsse.hub.streams import Streams
from fastsse.hub.topics import Rules, Topics
from fastsse.subscriptions import EVENTS, Cursor, Subscription, View
from tests.hub.onenode import RESPONSE_HEAD, START_MS, Node

MakeNode = Callable[..., Node]


class RecordingSender:
    """Notes what it is commanded; notices are put in by hand."""

    memory_bytes = 0
    free_slot_count = 1
    pending_commands = 0

    def __init__(self) -> None:
        self.commands: list[tuple[object, ...]] = []
        self.notices: list[tuple[object, ...]] = []
        self.handles = 0
        self.attach_error: Exception | None = None

    def allocate(self) -> int:
        self.handles += 1
        return self.handles

    def attach(
        self, handle: int, fd: int, channel: int, chunked: bool, live: bool, first: list[Frame]
    ) -> None:
        if self.attach_error is not None:
            raise self.attach_error
        self.commands.append(("attach", handle, channel, live))

    def take_notices(self) -> list[tuple[object, ...]]:
        taken, self.notices = self.notices, []
        return taken

    def wake(self) -> None:
        pass

    def page(self, handle: int, frame: Frame | None, live: bool) -> bool:
        self.commands.append(("page", handle, live))
        return True

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self.commands.append((name, *arguments))


class Recorded:
    """Channels whose commands are recorded."""

    def __init__(self) -> None:
        self.sender = RecordingSender()
        self.topics = Topics(Rules(HistoryOptions(), "disconnect"), 0)
        self.channels = Channels(self.sender, self.topics)  # type: ignore[arg-type]
        self.streams = Streams(
            self.sender,  # type: ignore[arg-type]
            self.channels,
            History(self.topics, 1 << 20, 0),
            MemoryBackbone(lambda: 0),
            options=ReplayOptions(3000, clean_end=False, memory_bytes=1 << 20),
            now_ms=lambda: 0,
        )

    def open(self, *topics: str, cursor: str = "head") -> int:
        subscription = Subscription(topics, Cursor(cursor))  # type: ignore[arg-type]
        return self.streams.open(subscription, RESPONSE_HEAD, True, 99)

    def end(self, handle: int, channel: int) -> None:
        self.sender.notices.append(("closed", handle, channel, "reset", 1.5, 3, 400))
        self.streams.read_notices()

    def take_commands(self) -> list[tuple[object, ...]]:
        taken, self.sender.commands = self.sender.commands, []
        return taken


def test_a_channel_is_made_before_its_first_stream_and_removed_after_its_last() -> None:
    recorded = Recorded()
    first, second = recorded.open("b", "a"), recorded.open("a", "b", "a")
    assert recorded.take_commands() == [
        ("add_channel", 0, (1, 2), (), False, True, None),
        ("attach", first, 0, True),
        ("attach", second, 0, True),
    ]
    recorded.end(first, 0)
    assert recorded.take_commands() == []
    recorded.end(second, 0)
    assert recorded.take_commands() == [("remove_channel", 0)]
    assert len(recorded.channels) == 0


def test_topics_without_listeners_are_removed_by_the_sweep() -> None:
    recorded = Recorded()
    handle = recorded.open("a")
    recorded.end(handle, 0)
    recorded.take_commands()
    assert not recorded.channels.sweep()
    assert recorded.take_commands() == [("remove_topic", 1)]
    assert len(recorded.topics) == 0


def test_topics_that_are_wanted_again_before_the_sweep_stay() -> None:
    recorded = Recorded()
    recorded.end(recorded.open("a"), 0)
    recorded.open("a")
    recorded.take_commands()
    recorded.channels.sweep()
    assert recorded.take_commands() == []


def test_numbers_of_removed_channels_are_given_again() -> None:
    recorded = Recorded()
    first = recorded.open("a")
    recorded.open("b")
    recorded.end(first, 0)
    recorded.take_commands()
    recorded.open("c")
    assert recorded.take_commands()[0] == ("add_channel", 0, (3,), (), False, True, None)


def test_everything_is_one_channel_under_the_number_of_every_event() -> None:
    recorded = Recorded()
    recorded.open("*", "a")
    recorded.open("*")
    assert recorded.take_commands() == [
        ("add_channel", 0, (0,), (), False, False, None),
        ("attach", 1, 0, True),
        ("attach", 2, 0, True),
    ]
    assert len(recorded.topics) == 0


def test_an_attach_that_fails_leaves_nothing_behind() -> None:
    recorded = Recorded()
    recorded.sender.attach_error = ValueError("no")
    with pytest.raises(ValueError, match="no"):
        recorded.open("a", cursor="earliest")
    assert recorded.take_commands() == [
        ("add_channel", 0, (1,), (), False, True, None),
        ("release", 1),
        ("remove_channel", 0),
    ]
    assert (len(recorded.channels), recorded.streams.replays) == (0, 0)


def test_a_channel_that_can_not_be_made_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded = Recorded()

    def refuse(*arguments: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(recorded.sender, "add_channel", refuse, raising=False)
        for topic in ("a", "*"):
            with pytest.raises(MemoryError):
                recorded.open(topic)
    assert recorded.take_commands() == [("release", 1), ("release", 2)]
    assert (len(recorded.channels), recorded.channels.of_everything) == (0, 0)
    recorded.channels.sweep()
    assert len(recorded.topics) == 0
    recorded.open("b")
    assert ("add_channel", 0, (1,), (), False, True, None) in recorded.take_commands()


def test_a_listener_that_fails_leaves_no_stream_behind() -> None:
    recorded = Recorded()
    first, second = recorded.open("a"), recorded.open("b")
    recorded.streams.on_closed = lambda stream: 1 / 0  # type: ignore[assignment]
    recorded.sender.notices = [
        ("closed", first, 0, "reset", 1.5, 3, 400),
        ("closed", second, 1, "reset", 1.5, 3, 400),
    ]
    with pytest.raises(ZeroDivisionError):
        recorded.streams.read_notices()
    assert len(recorded.channels) == 0


def test_a_page_notice_of_a_stream_that_is_live_or_gone_is_nothing() -> None:
    recorded = Recorded()
    handle = recorded.open("a", cursor="earliest")
    recorded.take_commands()
    recorded.sender.notices = [("page", handle), ("page", 12345)]
    recorded.streams.read_notices()
    assert recorded.take_commands() == []


def test_replays_wait_while_memory_is_short_and_go_on_in_turn() -> None:
    recorded = Recorded()
    recorded.sender.memory_bytes = 2 << 20
    first, second = (recorded.open("a", cursor="earliest") for _ in range(2))
    assert recorded.take_commands()[1:] == [
        ("attach", first, 0, False),
        ("attach", second, 0, False),
    ]
    recorded.sender.notices = [("page", first), ("page", second)]
    recorded.streams.read_notices()
    assert recorded.take_commands() == []
    recorded.sender.memory_bytes = 0
    recorded.streams.sweep()
    assert recorded.take_commands() == [("page", first, True), ("page", second, True)]
    assert recorded.streams.replays == 0


def test_a_waiting_replay_that_ends_is_forgotten_while_memory_is_still_short() -> None:
    recorded = Recorded()
    recorded.sender.memory_bytes = 2 << 20
    first, second = (recorded.open("a", cursor="earliest") for _ in range(2))
    recorded.sender.notices = [("page", first), ("page", second)]
    recorded.streams.read_notices()
    recorded.take_commands()
    recorded.end(first, 0)
    assert list(recorded.streams._replayer._waiting) == [second]
    recorded.sender.memory_bytes = 0
    recorded.streams.sweep()
    assert recorded.take_commands() == [("page", second, True)]


# -- with the real sender -----------------------------------------------------------------------


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


def test_an_event_of_two_topics_reaches_a_stream_of_both_once(node: Node) -> None:
    client = node.subscribe("a", "b")
    everything = node.subscribe("*")
    for topics, data in ((("a", "b"), "1"), (("b", "c"), "2"), (("c",), "3"), (("a",), "4")):
        node.publish(topics, data)
    assert node.run_until_received(client, 3) == ["1", "2", "4"]
    assert node.run_until_received(everything, 4) == ["1", "2", "3", "4"]


def test_a_closed_stream_is_reported_once_with_what_it_got(node: Node) -> None:
    client = node.subscribe("b", "a")
    node.publish("a", "x")
    node.run_until_received(client, 1)
    node.hang_up(client)
    (closed,) = node.closed
    assert (closed.handle, closed.selectors) == (client.handle, ("a", "b"))
    assert (closed.reason, closed.events) == ("client_closed", 1)
    assert closed.bytes == len(client.received)
    assert closed.duration_s >= 0


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
