"""Streams that end for good while they replay: behind an event of their view, or because their
topics have ended. They are sent everything up to there, each gap once."""

import pytest

from fastsse.config import HistoryOptions
from fastsse.errors import StreamRefused
from fastsse.events import Event
from fastsse.hub.history import PAGE_BYTES as WHOLE
from fastsse.subscriptions import Cursor, View
from tests.hub.afterrestart import BIG, PAGE_BYTES, reasons, words
from tests.hub.onenode import Client, MakeNode, Node

UNTIL_DONE = View(until=(b"done",))
DONE = Event("a", "end", event="done")


def run_to_the_end(node: Node, client: Client) -> list[str]:
    """Waits until the stream has ended and nothing is left of it; its data."""
    node.run_until(lambda: client.is_ended and len(node.closed) == 1)
    assert [stream.handle for stream in node.closed] == [client.handle]
    assert node.closed[0].reason == "ended"
    assert node.hub.streams.replays == 0
    assert len(node.hub.channels) == 0
    return words(client)


@pytest.mark.parametrize("page_bytes", [PAGE_BYTES, WHOLE])
def test_a_stream_is_sent_all_pages_up_to_its_end(make_node: MakeNode, page_bytes: int) -> None:
    node = make_node(page_bytes=page_bytes)
    first = node.publish("a", "before")
    for n in range(12):
        node.publish("a", f"{n} {BIG}")
    node.publish_all([DONE, Event("a", "later")])
    sizes: list[int] = []
    node.hub.streams.watch_replays(lambda handle, size: sizes.append(size))
    client = node.resume("a", after=first, view=UNTIL_DONE, receive_bytes=4096)
    assert run_to_the_end(node, client) == [*map(str, range(12)), "end"]
    _, *sent, _ = node.hub.history.page(None, 0).frames
    assert sum(sizes) == sum(frame.size for frame in sent)
    opening = f": fastsse\nretry: 3000\nid: {first}\n\n".encode()
    assert client.body == opening + b"".join(frame.body for frame in sent)


def test_a_gap_before_the_only_page_is_sent_and_counted_once(make_node: MakeNode) -> None:
    node = make_node(HistoryOptions(history_events=2))
    first = node.publish("a", "0")
    node.publish_all([Event("a", "1"), Event("a", "2"), DONE])
    client = node.resume("a", after=first, view=UNTIL_DONE)
    assert run_to_the_end(node, client) == ["2", "end"]
    assert reasons(client) == ["evicted"]
    assert node.hub.streams.gaps["evicted"] == 1


def test_a_gap_before_the_last_page_is_sent_and_counted_once(make_node: MakeNode) -> None:
    node = make_node(HistoryOptions(history_events=24), page_bytes=PAGE_BYTES)
    for n in range(24):
        node.publish("a", f"{n} {BIG}")
    client = node.subscribe("a", cursor=Cursor("earliest"), view=UNTIL_DONE, receive_bytes=4096)
    node.publish_all([*(Event("a", f"new{n}") for n in range(23)), DONE])
    data = run_to_the_end(node, client)
    assert reasons(client) == ["evicted"]
    before = client.stream.events.index(client.gaps[0])
    assert data == [*map(str, range(before)), *(f"new{n}" for n in range(23)), "end"]
    assert node.hub.streams.gaps["evicted"] == 1


@pytest.mark.parametrize("missed", [0, 1, 2])
def test_a_client_of_an_ended_topic_is_sent_what_it_missed_or_is_answered_that_it_is_over(
    node: Node, missed: int
) -> None:
    ids = [node.publish("a", str(n)) for n in range(3)]
    node.publish_all([Event.end(("a",))])
    if not missed:
        with pytest.raises(StreamRefused, match="over"):
            node.resume("a", after=ids[-1])
        assert node.hub.streams.replays == 0
        return
    client = node.resume("a", after=ids[-1 - missed])
    node.run_until_received(client, missed + 1)
    assert client.data[:-1] == ["1", "2"][-missed:]
    assert client.events[-1].type == "fastsse.end"
