"""From hand-over to the closed notice: registration, replay, heartbeats, farewell, drain."""

import select
import socket
import struct
import threading
import time
from collections.abc import Callable

import pytest

from fastsse import _core
from tests.core.conftest import HEAD, Hub, tcp_pair, wait_until
from tests.eventstream import parse

MakeHub = Callable[..., Hub]


def page(text: bytes) -> _core.Frame:
    return _core.encode_frame(text, None, None, 0, 0)


# ---- hand-over -----------------------------------------------------------------------------------


def abort(peer: socket.socket) -> None:
    """Closes with RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


@pytest.mark.parametrize(
    ("before", "reasons"),
    [
        (lambda peer: peer.send(b"junk"), {"client_data"}),
        (lambda peer: peer.shutdown(socket.SHUT_WR), {"client_closed"}),
        (lambda peer: peer.close(), {"client_closed", "reset"}),
        (abort, {"reset"}),
        (lambda peer: (peer.send(b"junk"), peer.close()), {"client_closed", "reset"}),
    ],
    ids=["junk", "half-close", "fin", "rst", "junk and fin"],
)
def test_what_came_before_registration_is_noticed(
    hub: Hub, before: Callable[[socket.socket], object], reasons: set[str]
) -> None:
    ours, peer = tcp_pair()
    before(peer)
    handle = hub.sender.allocate()
    hub.sender.attach(handle, ours.detach(), 1, True, True, [_core.wire_frame(HEAD)])
    hub.sender.wake()
    closed: list[object] = []
    wait_until(lambda: bool(closed.extend(hub.sender.take_notices()) or closed))
    assert closed[0][3] in reasons  # type: ignore[index]
    peer.close()


def test_bytes_after_the_request_end_the_stream(hub: Hub) -> None:
    client = hub.connect(1, kind="tcp")
    client.peer.send(b"more")
    assert hub.wait_closed(client)[3] == "client_data"


def test_a_gibibyte_of_junk_is_not_read(hub: Hub) -> None:
    client = hub.connect(1, kind="tcp")
    junk = memoryview(bytes(1 << 30))
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        client.peer.sendall(junk)
    assert hub.wait_closed(client)[3] == "client_data"


def test_the_closed_notice_has_events_bytes_and_channel(hub: Hub) -> None:
    client = hub.connect(1, chunked=True, first=(_core.wire_frame(HEAD),))
    frame = hub.publish(b"x")
    client.read_until(frame.wire)
    client.peer.close()
    notice = hub.wait_closed(client)
    assert notice[2] == 1
    assert notice[5:] == (1, len(HEAD) + len(frame.wire))


# ---- stale handles -------------------------------------------------------------------------------


def test_a_slot_is_given_out_again_only_after_its_notice_was_taken(make_hub: MakeHub) -> None:
    hub = make_hub(max_connections=1)
    hub.sender.add_channel(1, [1])
    client = hub.connect(1)
    client.peer.close()
    hub.wait_count("connections", 0)
    assert hub.sender.allocate() == 0
    hub.wait_closed(client)
    again = hub.sender.allocate()
    assert again != client.handle
    assert again & 0xFFFFFFFF == client.handle & 0xFFFFFFFF


def test_commands_to_a_stale_handle_reach_no_stream(make_hub: MakeHub) -> None:
    hub = make_hub(max_connections=1)
    hub.sender.add_channel(1, [1])
    old = hub.connect(1)
    old.peer.close()
    hub.wait_closed(old)
    new = hub.connect(1)
    assert hub.sender.page(old.handle, page(b"stray"), True) is False
    assert hub.sender.close(old.handle, _core.REASON_ENDED, page(b"stray")) is False
    for call in (
        lambda: hub.sender.release(old.handle),
        lambda: hub.sender.attach(old.handle, 0, 1, True, True, []),
    ):
        with pytest.raises(ValueError, match="stale"):
            call()
    new.gets(hub.publish(b"mine"))


def test_a_command_that_crosses_the_end_of_its_stream_is_dropped(hub: Hub) -> None:
    for _ in range(200):
        client = hub.connect(1, live=False, first=(page(b"one"),))
        client.peer.close()
        hub.sender.page(client.handle, page(b"two"), True)
        hub.sender.close(client.handle, _core.REASON_ENDED, page(b"three"))
        hub.wait_closed(client)


def test_a_released_slot_is_free_again(make_hub: MakeHub) -> None:
    hub = make_hub(max_connections=2)
    first = hub.sender.allocate()
    hub.sender.allocate()
    assert hub.sender.allocate() == 0
    hub.sender.release(first)
    assert hub.sender.free_slot_count == 1
    assert hub.sender.allocate() not in (0, first)


# ---- replay --------------------------------------------------------------------------------------


def page_notices(hub: Hub, handle: int) -> int:
    return sum(notice == ("page", handle) for notice in hub.take())


def test_pages_are_asked_for_one_by_one_and_the_last_goes_live_exactly_there(hub: Hub) -> None:
    client = hub.connect(1, live=False, first=(page(b"p1"),))
    hub.publish(b"not in a ring yet")
    wait_until(lambda: page_notices(hub, client.handle) == 1)
    assert hub.sender.page(client.handle, page(b"p2"), False)
    hub.publish(b"still not")
    wait_until(lambda: page_notices(hub, client.handle) == 2)
    hub.sender.page(client.handle, page(b"p3"), True)
    live = hub.publish(b"live")
    client.read_until(live.body)
    assert [event.data for event in parse(client.got).events] == ["p1", "p2", "p3", "live"]
    assert page_notices(hub, client.handle) == 2


def test_a_last_page_may_be_empty(hub: Hub) -> None:
    client = hub.connect(1, live=False, first=(page(b"p1"),))
    hub.sender.page(client.handle, None, True)
    live = hub.publish(b"live")
    client.read_until(live.body)
    assert [event.data for event in parse(client.got).events] == ["p1", "live"]


def test_a_replay_needs_a_page(hub: Hub) -> None:
    handle = hub.sender.allocate()
    for first in ([], [_core.wire_frame(HEAD)]):
        with pytest.raises(ValueError, match="begins with a page"):
            hub.sender.attach(handle, 99, 1, True, False, first)
    with pytest.raises(ValueError, match="only the last page"):
        hub.sender.page(handle, None, False)
    hub.sender.release(handle)


# ---- heartbeats ----------------------------------------------------------------------------------


def test_an_idle_stream_gets_a_comment_and_no_blank_line(make_hub: MakeHub) -> None:
    hub = make_hub(heartbeat_ms=1000)
    hub.sender.add_channel(1, [1])
    client = hub.connect(1, chunked=True)
    hub.wait_count("connections", 1)
    hub.sender.advance_clock(1500)
    assert client.read_until(b"\n\r\n") == b"2\r\n:\n\r\n"


def test_an_event_restarts_the_heartbeats_clock(make_hub: MakeHub) -> None:
    hub = make_hub(heartbeat_ms=10_000)
    hub.sender.add_channel(1, [1])
    client = hub.connect(1)
    for _ in range(8):
        hub.sender.advance_clock(5000)
        client.gets(hub.publish(b"x"))
    assert hub.count("heartbeats") == 0


def test_heartbeats_are_spread_and_not_all_at_once(make_hub: MakeHub) -> None:
    hub = make_hub(heartbeat_ms=10_000, tick_ms=1)
    hub.sender.add_channel(1, [1])
    for _ in range(60):
        hub.connect(1)
    hub.wait_count("connections", 60)
    hub.sender.advance_clock(8500)
    wait_until(lambda: hub.count("heartbeats") > 0)
    threading.Event().wait(0.2)  # the clock hand goes round; nothing more may come
    assert 5 < hub.count("heartbeats") < 55
    hub.sender.advance_clock(1500)
    wait_until(lambda: hub.count("heartbeats") >= 60)


def test_no_heartbeats_when_they_are_off(make_hub: MakeHub) -> None:
    hub = make_hub(heartbeat_ms=0)
    hub.sender.add_channel(1, [1])
    client = hub.connect(1)
    hub.wait_count("connections", 1)
    hub.sender.advance_clock(100_000_000)
    assert client.is_silent()


# ---- ending --------------------------------------------------------------------------------------


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


# ---- bounds, waking, endurance -------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"max_connections": 0}, {"max_connections": 1 << 30}, {"tick_ms": 0}]
)
def test_options_out_of_bounds_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        _core.Sender(**{"max_connections": 1, **options})


def test_topic_numbers_out_of_range_change_nothing(hub: Hub) -> None:
    for topics in [(1 << 28,), (5, 1 << 31)]:
        with pytest.raises(ValueError, match="out of range"):
            hub.sender.publish(page(b"x"), topics, _core.POLICY_SKIP)
    with pytest.raises(ValueError, match="out of range"):
        hub.sender.add_channel(5, [1, -1])


def test_no_wake_up_is_lost(hub: Hub) -> None:
    """Each publish finds the sender asleep or just about to be: a lost wake-up would hang this."""
    client = hub.connect(1)
    for n in range(5000):
        client.gets(hub.publish(b"%d" % n))


def test_a_stop_is_never_slept_through() -> None:
    for _ in range(300):
        sender = _core.Sender(max_connections=1)
        sender.start()
        sender.publish(page(b"x"), (1,), _core.POLICY_SKIP)
        sender.wake()
        sender.stop()


def test_the_notice_fd_is_readable_while_notices_wait(hub: Hub) -> None:
    clients = [hub.connect(1) for _ in range(20)]
    for client in clients:
        client.peer.close()
    hub.wait_count("connections", 0)
    taken = 0
    while taken < 20:
        assert select.select([hub.sender.notice_fd], [], [], 5)[0]
        taken += len(hub.sender.take_notices(3))
    hub.sender.take_notices()
    assert not select.select([hub.sender.notice_fd], [], [], 0)[0]


def test_a_hundred_thousand_connects_and_aborts_leave_nothing(make_hub: MakeHub) -> None:
    hub = make_hub(max_connections=128)
    hub.sender.add_channel(1, [1])
    head = (_core.wire_frame(HEAD),)
    for n in range(100_000):
        ours, peer = socket.socketpair()
        while not (handle := hub.sender.allocate()):
            hub.sender.take_notices()
        hub.sender.attach(handle, ours.detach(), 1, bool(n & 1), True, head)
        hub.sender.wake()
        if n % 64 == 0:
            hub.publish(b"x" * 100)
        peer.close()
    hub.settle()
    hub.wait_count("connections", 0)
    hub.sender.take_notices()
    assert hub.sender.free_slot_count == 128


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
