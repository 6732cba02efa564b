"""Ends of topics: which streams are over, what they get last, and how fast they end."""

import time

from fastsse import _core
from tests.core.conftest import Hub, wait_until

LAST_CHUNK = b"0\r\n\r\n"


def end_at(position: int) -> _core.Frame:
    body = b"event: fastsse.end\nid: %d\ndata:\n\n" % position
    return _core.load_frame(body, position, False, None, False)


def test_streams_get_what_is_pending_then_the_end_then_the_last_chunk(hub: Hub) -> None:
    hub.sender.add_channel(2, [1, 2], can_end=True)
    client = hub.connect(2, chunked=True)
    frame, end = hub.publish(b"x"), end_at(7)
    hub.sender.end_topic(1, end_at(9))
    hub.sender.end_topic(2, end)
    # The end of the topic that ended last, in the order of positions.
    assert client.read_to_end() == client.wire(frame, end_at(9)) + LAST_CHUNK
    assert hub.wait_closed(client)[3] == "ended"


def test_channels_that_can_not_end_or_have_another_topic_go_on(hub: Hub) -> None:
    hub.sender.add_channel(2, [1, 2], can_end=True)
    hub.sender.add_channel(3, [_core.EVERY_EVENT])
    clients = [hub.connect(1), hub.connect(2), hub.connect(3)]
    hub.sender.end_topic(1, end_at(1))
    hub.settle()
    frame = hub.publish(b"on", 1)
    for client in clients:
        client.gets(frame)


def test_who_joins_a_channel_that_is_over_gets_its_pages_and_the_end(hub: Hub) -> None:
    end = end_at(3)
    hub.sender.end_topic(5, end)
    hub.sender.add_channel(2, [5], can_end=True)
    live = hub.connect(2, chunked=True, first=(_core.wire_frame(b"head"),))
    assert live.read_to_end() == b"head" + live.wire(end) + LAST_CHUNK
    page = hub.event(b"history")
    late = hub.connect(2, chunked=True, live=False, first=(page,))
    late.read_until(page.wire)
    assert late.is_silent()
    hub.sender.page(late.handle, None, True)
    hub.sender.wake()
    assert late.read_to_end() == late.wire(page, end) + LAST_CHUNK


def test_a_topic_that_is_open_again_ends_no_stream(hub: Hub) -> None:
    hub.sender.end_topic(5, end_at(1))
    hub.sender.add_channel(2, [5], can_end=True)
    hub.sender.end_topic(5, None)
    client = hub.connect(2)
    frame = hub.publish(b"on", 5)
    client.gets(frame)
    assert client.is_silent()
    hub.sender.end_topic(5, end_at(2))
    client.read_to_end()
    hub.sender.remove_topic(5)


def test_quiet_streams_get_no_event(hub: Hub) -> None:
    hub.sender.add_channel(2, [5], (), True, True)
    client = hub.connect(2, chunked=True)
    hub.sender.end_topic(5, end_at(1))
    assert client.read_to_end() == LAST_CHUNK


def test_a_slow_reader_gets_everything_before_the_end(make_hub) -> None:
    hub = make_hub()
    hub.sender.add_channel(2, [5], can_end=True)
    client = hub.connect(2, chunked=True, send_buffer=4096)
    frames = [hub.publish(b"x" * 20_000, 5) for _ in range(20)]
    hub.wait_count("blocked", 1)
    hub.sender.end_topic(5, end_at(9))
    hub.settle()
    time.sleep(0.05)  # Some ticks, in which it must not end.
    assert hub.count("connections") == 1
    assert client.read_to_end() == client.wire(*frames, end_at(9)) + LAST_CHUNK


def test_many_ends_are_spread_over_time(make_hub) -> None:
    hub = make_hub(max_connections=600, tick_ms=50)
    hub.sender.add_channel(2, [5], can_end=True)
    clients = [hub.connect(2) for _ in range(500)]
    hub.wait_count("connections", 500)
    hub.sender.end_topic(5, end_at(1))
    wait_until(lambda: hub.count("connections") < 500)
    # At most 101 a tick, so that a moment after the first most are still there.
    assert hub.count("connections") > 0
    hub.wait_count("connections", 0)
    for client in clients:
        assert client.read_to_end() == end_at(1).body
