"""However the kernel cuts what it takes, every byte arrives once and in order."""

import socket

import pytest

from fastsse import _core
from tests.core.conftest import CUTS, HEAD, Hub, MakeHub, expected


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("faults", CUTS)
def test_short_and_refused_writes_lose_and_repeat_nothing(
    make_hub: MakeHub, faults: dict[str, int], chunked: bool
) -> None:
    hub = make_hub(**faults)
    hub.sender.add_channel(1, [1])
    client = hub.connect(1, chunked=chunked, first=(_core.wire_frame(HEAD),))
    frames = [hub.publish(b"x" * size) for size in (0, 1, 2, 3, 40)]
    assert client.read_until(client.wire(frames[-1])) == HEAD + expected(frames, chunked)
    hub.wait_count("deliveries", len(frames))  # counted right after it was sent
    assert client.is_silent()


@pytest.mark.parametrize("refuse_every", range(2, 12))
def test_a_refusal_at_every_position_is_made_good(make_hub: MakeHub, refuse_every: int) -> None:
    hub = make_hub(refuse_every=refuse_every, write_limit_bytes=5)
    hub.sender.add_channel(1, [1])
    client = hub.connect(1, chunked=True)
    frames = [hub.publish(b"event %d" % n) for n in range(6)]
    assert client.read_until(client.wire(frames[-1])) == expected(frames, True)
    assert client.is_silent()


def test_a_full_socket_blocks_its_connection_and_goes_on_where_it_stopped(hub: Hub) -> None:
    client = hub.connect(1, send_buffer=4096)
    frames = [hub.publish(bytes([65 + n % 26]) * 3000) for n in range(40)]
    hub.wait_count("blocked", 1)
    assert client.read_until(frames[-1].body) == expected(frames, False)
    hub.wait_count("blocked", 0)
    assert hub.count("missed_edges") == 0
    hub.wait_count("ring_entries", 0)


def test_a_visit_sends_all_that_is_lacking_in_few_calls(make_hub: MakeHub) -> None:
    hub = make_hub(refuse_every=1)  # nothing goes out
    hub.sender.add_channel(1, [1])
    client = hub.connect(1)
    frames = [hub.publish(b"%d" % n) for n in range(1000)]
    hub.settle()
    assert hub.count("sends") == 0
    assert client.is_silent()
    del frames


def test_events_that_pile_up_behind_a_full_socket_leave_in_one_call(hub: Hub) -> None:
    client = hub.connect(1, send_buffer=4096)
    first = hub.publish(b"x" * 30_000)
    hub.wait_count("blocked", 1)
    small = [hub.publish(b"%d" % n) for n in range(200)]
    hub.settle()
    before = hub.count("sends")
    assert client.read_until(small[-1].body) == expected([first, *small], False)
    assert hub.count("sends") - before < 40


def test_a_peer_that_is_gone_ends_the_stream(hub: Hub) -> None:
    client = hub.connect(1)
    client.peer.close()
    assert hub.wait_closed(client)[3] in ("client_closed", "reset")
    hub.publish(b"unread")
    hub.settle()
    assert hub.count("connections") == 0


def test_a_write_to_a_reset_socket_ends_the_stream(hub: Hub) -> None:
    client = hub.connect(1, kind="tcp")
    client.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    client.peer.close()
    assert hub.wait_closed(client)[3] == "reset"


def test_two_codings_share_one_ring(hub: Hub) -> None:
    chunked = hub.connect(1, chunked=True)
    raw = hub.connect(1, chunked=False)
    frames = [hub.publish(b"both %d" % n) for n in range(50)]
    assert chunked.read_until(frames[-1].wire) == expected(frames, True)
    assert raw.read_until(frames[-1].body) == expected(frames, False)


def test_what_is_private_goes_before_the_ring(hub: Hub) -> None:
    first = (_core.wire_frame(HEAD), _core.raw_frame(b": hello\n"))
    client = hub.connect(1, chunked=True, first=first)
    frame = hub.publish(b"later")
    assert client.read_until(frame.wire) == HEAD + first[1].wire + frame.wire


def test_more_private_frames_than_one_call_takes_arrive_in_order(hub: Hub) -> None:
    first = tuple(_core.raw_frame(b"data: %d\n\n" % n) for n in range(700))
    client = hub.connect(1, first=first)
    last = hub.publish(b"end")
    assert client.read_until(last.body) == b"".join(f.body for f in first) + last.body


def test_an_event_of_the_largest_size_goes_through(hub: Hub) -> None:
    client = hub.connect(1, chunked=True)
    frame = hub.publish(b"y" * (1 << 20))
    assert client.read_until(frame.wire) == frame.wire
