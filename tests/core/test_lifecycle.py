"""From hand-over to the closed notice: registration, replay, heartbeats, farewell, drain."""

import select
import socket
import struct
import threading
from collections.abc import Callable

import pytest

from fastsse import _core
from tests.core.conftest import HEAD, Hub, MakeHub, page, tcp_pair, wait_until
from tests.eventstream import parse

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
