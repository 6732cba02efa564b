"""How streams end: closed, drained, stopped, after their lifetime, and with their sender."""

import socket
import time

import pytest

from fastsse import _core
from tests.core.conftest import Hub, MakeHub, page, wait_until


def test_close_ends_with_a_farewell_a_last_chunk_and_fin(hub: Hub) -> None:
    client = hub.connect(1, chunked=True)
    frame = hub.publish(b"x")
    client.read_until(frame.wire)
    farewell = _core.raw_frame(b"retry: 77\n")
    hub.sender.close(client.handle, _core.REASON_ENDED, farewell)
    assert client.read_to_end() == frame.wire + farewell.wire + b"0\r\n\r\n"
    assert hub.wait_closed(client)[3] == "ended"


def test_a_stream_that_is_not_over_ends_without_a_last_chunk(hub: Hub) -> None:
    client = hub.connect(1, chunked=True)
    frame = hub.publish(b"half an answer")
    client.read_until(frame.wire)
    farewell = _core.raw_frame(b"retry: 77\n")
    hub.sender.close(client.handle, _core.REASON_ENDED, farewell, is_over=False)
    assert client.read_to_end() == frame.wire + farewell.wire
    assert hub.wait_closed(client)[3] == "ended"


def test_a_stream_without_a_farewell_ends_at_once_where_it_stands(hub: Hub) -> None:
    client = hub.connect(1, chunked=True)
    frame = hub.publish(b"half an answer")
    client.read_until(frame.wire)
    hub.sender.close(client.handle, _core.REASON_ENDED, None, is_over=False)
    assert client.read_to_end() == frame.wire
    assert hub.wait_closed(client)[3] == "ended"


@pytest.mark.parametrize("clean_end", [False, True])
@pytest.mark.parametrize("end", ["drain", "expire"])
def test_streams_that_are_cut_have_a_last_chunk_only_if_it_is_wanted(
    make_hub: MakeHub, end: str, clean_end: bool
) -> None:
    hub = make_hub(clean_end=clean_end)
    hub.sender.add_channel(1, [1])
    client = hub.connect(1, chunked=True, claims=(time.time_ns() // 10**6 + 5_000, 0, 0, 0))
    hub.wait_count("connections", 1)
    if end == "drain":
        hub.sender.drain(0)
    else:
        hub.sender.advance_clock(10_000)
    got = client.read_to_end()
    assert b"retry: " in got
    assert got.endswith(b"0\r\n\r\n") is clean_end


def test_what_a_client_sends_while_its_stream_ends_does_not_cost_it_the_last_bytes(
    hub: Hub,
) -> None:
    """A socket that is closed with unread input sends RST, which discards what was not read."""
    client = hub.connect(1, chunked=True, kind="tcp", send_buffer=4096)
    big = hub.publish(b"b" * 5_000_000)
    hub.wait_count("blocked", 1)
    farewell = _core.raw_frame(b"retry: 77\n")
    hub.sender.close(client.handle, _core.REASON_ENDED, farewell)
    hub.settle()
    client.peer.send(b"GET /pipelined HTTP/1.1\r\n\r\n" * 100)
    assert client.read_to_end() == big.wire + farewell.wire + b"0\r\n\r\n"
    assert hub.wait_closed(client)[3] == "ended"


def test_close_inside_a_frame_ends_the_frame_first(hub: Hub) -> None:
    client = hub.connect(1, chunked=True, send_buffer=4096)
    big = hub.publish(b"b" * 300_000)
    hub.wait_count("blocked", 1)
    hub.publish(b"dropped: it comes again on resuming")
    hub.sender.close(client.handle, _core.REASON_ENDED, None)
    assert client.read_to_end() == big.wire + b"0\r\n\r\n"


def test_drain_spreads_the_ends_and_gives_each_a_retry_of_its_own(make_hub: MakeHub) -> None:
    hub = make_hub(retry_ms=1000)
    hub.sender.add_channel(1, [1])
    clients = [hub.connect(1, chunked=bool(n % 2)) for n in range(40)]
    hub.wait_count("connections", 40)
    hub.sender.drain(10_000)
    hub.settle()
    hub.sender.advance_clock(5_000)
    wait_until(lambda: hub.count("closed_drained") >= 20)
    assert hub.count("connections") >= 15
    hub.sender.advance_clock(6_000)
    hub.wait_count("connections", 0)
    retries = set()
    for client in clients:
        got = client.read_to_end()
        assert not got.endswith(b"0\r\n\r\n")
        retries.add(int(got.split(b"retry: ")[1].split()[0]))
    assert len(retries) > 20
    assert all(1000 <= retry <= 2000 for retry in retries)


def test_a_drain_ends_a_stuck_connection_without_a_last_chunk(hub: Hub) -> None:
    client = hub.connect(1, chunked=True, send_buffer=4096)
    hub.publish(b"b" * 500_000)
    hub.wait_count("blocked", 1)
    hub.sender.drain(1000)
    hub.settle()
    hub.sender.advance_clock(1500)
    assert hub.wait_closed(client)[3] == "drained"
    assert not client.read_to_end().endswith(b"0\r\n\r\n")


def test_stop_closes_every_socket_and_gives_everything_back(make_hub: MakeHub) -> None:
    before = _core.native_frames_alive()
    hub = make_hub()
    hub.sender.add_channel(1, [1])
    clients = [hub.connect(1, send_buffer=4096) for _ in range(10)]
    for _ in range(50):
        hub.publish(b"x" * 2000, policy=_core.POLICY_LATEST)
    hub.sender.stop()
    hub.sender.stop()
    assert _core.native_frames_alive() == before
    for client in clients:
        client.read_to_end()
    with pytest.raises(RuntimeError, match="not running"):
        hub.sender.publish(page(b"x"), (1,), _core.POLICY_SKIP)
    assert hub.sender.take_notices() == []


def test_a_sender_that_never_started_frees_what_it_has() -> None:
    sender = _core.Sender(max_connections=10)
    with pytest.raises(RuntimeError, match="not running"):
        sender.add_channel(1, [1])
    sender.stop()


def test_a_sender_that_is_forgotten_stops_by_itself() -> None:
    ours, peer = socket.socketpair()
    sender = _core.Sender(max_connections=10)
    sender.start()
    sender.add_channel(1, [1])
    sender.attach(sender.allocate(), ours.detach(), 1, True, True, [])
    del sender
    assert peer.recv(10) == b""
    peer.close()


def a_round(hub: Hub) -> None:
    """The clock hand has looked at every row: it found two streams that were over, in turn."""
    for _ in range(2):
        hub.wait_closed(hub.connect(1, claims=(1, 0, 0, 0)))


def test_streams_end_after_their_lifetime_spread_with_a_retry_and_no_last_chunk(
    make_hub: MakeHub,
) -> None:
    hub = make_hub(lifetime_ms=1_000_000, heartbeat_ms=0, tick_ms=1)
    hub.sender.add_channel(1, [1])
    clients = [hub.connect(1, chunked=True) for _ in range(40)]
    frame = hub.publish(b"one")
    for client in clients:
        client.gets(frame)
    ended_at: list[int] = []
    for step in range(1, 11):
        hub.sender.advance_clock(100_000)
        a_round(hub)
        ended_at += [step] * (hub.count("closed_lifetime") - len(ended_at))
    assert len(ended_at) == 40
    assert 9 <= ended_at[0] <= ended_at[-1] == 10
    assert len(set(ended_at)) > 1, "all at once"
    for client in clients:
        rest = client.read_to_end()
        assert b"retry: " in rest
        assert not rest.endswith(b"0\r\n\r\n")


def test_blocked_stream_outlives_its_lifetime_until_it_reads(make_hub: MakeHub) -> None:
    hub = make_hub(lifetime_ms=10_000, heartbeat_ms=0, tick_ms=1, max_lag_ms=1_000_000)
    hub.sender.add_channel(1, [1])
    client = hub.connect(1)
    while not hub.count("blocked"):
        hub.publish(b"x" * 100_000)
        hub.settle()
    last = hub.publish(b"the last")
    hub.sender.advance_clock(20_000)
    a_round(hub)
    assert hub.count("closed_lifetime") == 0
    rest = client.read_to_end()
    assert last.body in rest, "nothing is lost by the end"
    assert b"retry: " in rest.partition(last.body)[2]
    assert hub.wait_closed(client)[3] == "lifetime"


def test_without_a_lifetime_no_stream_ends(make_hub: MakeHub) -> None:
    hub = make_hub(heartbeat_ms=0, tick_ms=1)
    hub.sender.add_channel(1, [1])
    client = hub.connect(1)
    hub.wait_count("connections", 1)
    hub.sender.advance_clock(100_000_000)
    a_round(hub)
    assert client.is_silent()
    assert hub.count("closed_lifetime") == 0
