"""Streams that wait for the store: it fails, they end, the node ends; nothing is left behind."""

from unittest.mock import Mock

import pytest

from fastsse._core import raw_frame
from fastsse.config import HistoryOptions, StreamOptions
from fastsse.errors import StreamRefused
from fastsse.hub.resume import replayer
from fastsse.subscriptions import Cursor
from tests.hub.afterrestart import BIG, PAGE_BYTES, restarted, words
from tests.hub.onenode import RESPONSE_HEAD, MakeNode
from tests.hub.storednode import Disk


def test_a_store_that_fails_at_once_turns_newcomers_away(make_node: MakeNode) -> None:
    before = make_node(disk=Disk())
    first = before.publish("a", "0")
    node = restarted(make_node, before)
    node.store.fails = True
    for cursor in (Cursor("after", first), Cursor("last", 5), Cursor("after", "own")):
        with pytest.raises(StreamRefused) as caught:
            node.subscribe("a", cursor=cursor)
        assert caught.value.reason == "store"
    assert (len(node.hub.channels), node.hub.streams.replays) == (0, 0)
    assert node.hub.counters()["replays_failed"] == 3


def test_a_store_that_fails_later_ends_the_stream_and_says_when_to_come_back(
    make_node: MakeNode,
) -> None:
    before = make_node(disk=Disk())
    first = before.publish("a", "0")
    before.publish("a", "1")
    node = restarted(make_node, before)
    node.store.holds = node.store.fails = True
    client = node.resume("a", after=first)
    node.publish("a", "2")
    node.run_until(lambda: client.is_ended and len(node.closed) == 1)
    assert client.received.startswith(RESPONSE_HEAD)
    assert client.stream.events == []
    assert client.stream.last_event_id == ""
    assert 3000 <= (client.stream.retry_ms or 0) <= 6000
    assert node.closed[0].reason == "ended"
    assert (len(node.hub.channels), node.hub.streams.replays) == (0, 0)


def test_a_store_that_fails_in_the_middle_ends_the_stream_after_whole_events(
    make_node: MakeNode,
) -> None:
    before = make_node(disk=Disk())
    ids = [before.publish("a", f"{index} {BIG}") for index in range(40)]
    node = restarted(make_node, before, page_bytes=PAGE_BYTES)
    node.store.holds = True
    client = node.resume("a", after=ids[0], receive_bytes=4096)
    node.run_until(lambda: len(client.data) >= 3)
    node.store.fails = True
    node.run_until(lambda: client.is_ended and len(node.closed) == 1)
    got = len(client.data)
    assert words(client) == [str(index) for index in range(1, got + 1)]
    node.store.fails = False
    again = node.resume("a", after=client.stream.last_event_id)
    node.run_until(lambda: len(again.data) == 39 - got)
    assert words(client) + words(again) == [str(index) for index in range(1, 40)]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_drain_ends_streams_whose_first_page_is_awaited(
    make_node: MakeNode, chunked: bool
) -> None:
    before = make_node(disk=Disk())
    first = before.publish("a", "0")
    node = restarted(make_node, before)
    node.store.holds = True
    held, node.store.answer = node.store.answer, lambda count=0: False  # type: ignore[method-assign]
    client = node.resume("a", after=first, chunked=chunked)
    node.hub.drain(0.0)
    node.run_until(lambda: client.is_ended and len(node.closed) == 1)
    assert client.received.startswith(RESPONSE_HEAD)
    assert client.stream.events == []
    assert node.closed[0].reason == "drained"
    held()
    assert node.hub.streams.replays == 0


def test_closing_a_stream_whose_first_page_is_awaited_ends_it(make_node: MakeNode) -> None:
    before = make_node(disk=Disk())
    first = before.publish("a", "0")
    node = restarted(make_node, before)
    node.store.holds = True
    client = node.resume("a", after=first)
    assert node.hub.streams.close(client.handle, 6, raw_frame(b"retry: 9000\n"))
    node.run_until(lambda: client.is_ended and len(node.closed) == 1)
    assert client.stream.retry_ms == 9000


def test_a_stream_that_can_not_be_attached_later_leaves_nothing_behind(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make_node(disk=Disk())
    first = before.publish("a", "0")
    node = restarted(make_node, before)
    node.store.holds = True
    client = node.resume("a", after=first)

    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as patched:
        patched.setattr(node.hub.streams._replayer, "_attach", fail)
        patched.setattr(replayer, "log", logged := Mock())
        node.store.answer()
    logged.exception.assert_called_once()
    client.sock.setblocking(True)
    assert client.sock.recv(1) == b""
    assert [stream.handle for stream in node.closed] == [client.handle]
    assert (len(node.hub.channels), node.hub.streams.replays) == (0, 0)
    assert node.hub.streams.has_room()


def test_a_node_that_ends_closes_sockets_that_were_still_waiting(make_node: MakeNode) -> None:
    before = make_node(disk=Disk())
    first = before.publish("a", "0")
    node = restarted(make_node, before)
    node.store.holds = True
    client = node.resume("a", after=first)
    node.hub.streams.abandon()
    client.sock.setblocking(True)
    assert client.sock.recv(1) == b""
    node.store.answer()


def test_a_full_table_counts_those_that_wait(make_node: MakeNode) -> None:
    before = make_node(disk=Disk())
    first = before.publish("a", "0")
    node = restarted(make_node, before, max_connections=1)
    node.store.holds = True
    client = node.resume("a", after=first)
    with pytest.raises(StreamRefused):
        node.subscribe("a")
    node.publish("a", "1")
    node.run_until(lambda: client.data == ["1"])


def test_a_replay_from_the_store_waits_while_memory_is_short(make_node: MakeNode) -> None:
    before = make_node(disk=Disk())
    first = before.publish("a", "0")
    before.publish("a", "1")
    limits = HistoryOptions(history_total=1 << 20), StreamOptions(memory_limit=2 << 20)
    node = make_node(*limits, disk=before.store.disk, now_ms=before.now_ms + 1)
    held_by_others = raw_frame(b"x" * (1 << 20))
    client = node.resume("a", after=first)
    node.run_until(lambda: client.stream.last_event_id == first)
    assert node.store.questions == []
    del held_by_others
    node.hub.sweep(node.now_ms)
    node.run_until(lambda: client.data == ["1"])
    assert client.gaps == []
