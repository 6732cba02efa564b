"""Promises of streams whose TLS records the sender seals: what a client opens is what a plain
client gets, however the kernel cuts it; nothing is sent before the door has answered."""

import os
import socket

import pytest

pytest.importorskip("tests.core.sealed", exc_type=ImportError)

from fastsse import _core, _seal
from tests.core.conftest import CUTS, HEAD, Hub, MakeHub, expected, wait_until
from tests.core.sealed import Ends, connect, hub, make_sealed, secret
from tests.tls_records import CLOSE_NOTIFY

__all__ = ["hub", "make_sealed", "secret"]  # fixtures


# ---- what arrives --------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("faults", CUTS, ids=str)
def test_short_and_refused_writes_lose_and_repeat_nothing(
    make_sealed: MakeHub, faults: dict[str, int], chunked: bool, secret: bytes
) -> None:
    hub = make_sealed(**faults)
    client = connect(hub, 1, secret, chunked=chunked, first=(_core.wire_frame(HEAD),))
    frames = [hub.publish(b"x" * size) for size in (0, 1, 2, 3, 40)]
    assert client.read_until(client.wire(frames[-1])) == HEAD + expected(frames, chunked)
    hub.wait_count("deliveries", len(frames))
    assert client.is_silent()
    assert client.opener.is_between


@pytest.mark.parametrize("limit", range(1, 70))
def test_record_that_is_cut_at_any_byte_goes_on_there(make_sealed: MakeHub, limit: int) -> None:
    secret = bytes(32)
    hub = make_sealed(write_limit_bytes=limit, refuse_every=3)
    client = connect(hub, 1, secret, chunked=True)
    frames = [hub.publish(b"event %d" % n) for n in range(3)]
    assert client.read_until(client.wire(frames[-1])) == expected(frames, True)
    hub.sender.close(client.handle, _core.REASON_ENDED, _core.raw_frame(b"retry: 1\n\n"))
    assert client.ends_with_close_notify().endswith(b"0\r\n\r\n")


def test_a_full_socket_blocks_its_stream_and_goes_on_where_it_stopped(
    hub: Hub, secret: bytes
) -> None:
    client = connect(hub, 1, secret, send_buffer=4096)
    frames = [hub.publish(bytes([65 + n % 26]) * 3000) for n in range(40)]
    hub.wait_count("blocked", 1)
    assert client.read_until(frames[-1].body) == expected(frames, False)
    hub.wait_count("blocked", 0)
    assert hub.count("missed_edges") == 0
    hub.wait_count("ring_entries", 0)


def test_events_that_pile_up_leave_in_few_records(hub: Hub, secret: bytes) -> None:
    client = connect(hub, 1, secret, send_buffer=4096)
    first = hub.publish(b"x" * 30_000)
    hub.wait_count("blocked", 1)
    small = [hub.publish(b"%d" % n) for n in range(1000)]
    hub.settle()
    assert client.read_until(small[-1].body) == expected([first, *small], False)
    assert len(client.records) < 15


def test_largest_event_goes_through_in_records_of_at_most_16_kib(hub: Hub, secret: bytes) -> None:
    client = connect(hub, 1, secret, chunked=True)
    frame = hub.publish(b"y" * (3 << 20))
    assert client.read_until(frame.wire) == frame.wire
    assert max(len(plain) for _, plain in client.records) == 16_384


def test_every_stream_gets_the_same_bytes_in_records_of_its_own(hub: Hub, secret: bytes) -> None:
    plain = hub.connect(1)
    clients = [connect(hub, 1, os.urandom(len(secret)), n) for n in range(20)]
    frames = [hub.publish(b"event %d" % n) for n in range(50)]
    want = plain.read_until(frames[-1].body)
    for client in clients:
        assert client.read_until(frames[-1].body) == want


def test_pages_and_direct_frames_are_sealed_in_their_order(hub: Hub, secret: bytes) -> None:
    page = _core.join_frames([hub.event(b"old %d" % n) for n in range(3)])
    client = connect(hub, 1, secret, live=False, first=(_core.wire_frame(HEAD), page))
    client.read_until(page.body)
    wait_until(lambda: ("page", client.handle) in hub.take())
    last = hub.event(b"last page")
    hub.sender.page(client.handle, last, True)
    live = hub.publish(b"live")
    client.read_until(live.body)
    direct = _core.raw_frame(b"data: for you\n\n")
    hub.sender.send_direct(client.handle, direct)
    want = HEAD + page.body + last.body + live.body + direct.body
    assert client.read_until(direct.body) == want


def test_private_events_and_heartbeats_are_sealed(make_sealed: MakeHub, secret: bytes) -> None:
    hub = make_sealed(heartbeat_ms=1000)
    hub.sender.add_channel(2, [1], [1])
    granted, other = connect(hub, 2, secret), connect(hub, 1, secret)
    private = hub.publish(b"private", private=True)
    assert granted.read_until(private.body) == private.body
    assert other.read_until(b":\n") == b":\n"


# ---- before the answer of the door ---------------------------------------------------------------


def test_nothing_is_sent_before_the_door_has_answered(hub: Hub, secret: bytes) -> None:
    ends = Ends(hub, 1, secret, 1, first=(_core.wire_frame(HEAD),))
    event = hub.publish(b"soon")
    hub.settle()
    ends.door.setblocking(False)
    with pytest.raises(BlockingIOError):
        ends.door.recv(1)
    assert ends.release().read_until(event.body) == HEAD + event.body


def test_stream_whose_connection_is_kept_goes_on_through_its_pair(hub: Hub, secret: bytes) -> None:
    ends = Ends(hub, 1, secret, 1, first=(_core.wire_frame(HEAD),))
    event = hub.publish(b"soon")
    assert hub.sender.go_on_plain(ends.client.handle)
    assert ends.door.recv(len(HEAD), socket.MSG_WAITALL) == HEAD
    assert ends.door.recv(1000) == event.body
    assert ends.net.fileno() >= 0
    ends.net.close()
    ends.door.close()


def test_stream_that_ended_before_the_answer_takes_nothing(hub: Hub, secret: bytes) -> None:
    ends = Ends(hub, 1, secret, 1)
    ends.door.shutdown(socket.SHUT_WR)
    hub.wait_closed(ends.client)
    sealed = ends.sealed()
    assert not hub.sender.seal(ends.client.handle, sealed)
    assert not hub.sender.go_on_plain(ends.client.handle)
    del sealed
    assert ends.client.read_to_end() == b""


def test_answer_that_crosses_the_end_closes_the_socket(hub: Hub, secret: bytes) -> None:
    ends = Ends(hub, 1, secret, 1)
    ends.door.shutdown(socket.SHUT_WR)
    hub.wait_count("closed_client_closed", 1)  # The loop has not taken the notice.
    assert hub.sender.seal(ends.client.handle, ends.sealed())
    assert ends.client.read_to_end() == b""


def test_bytes_behind_the_request_that_are_in_the_pair_end_the_stream(
    hub: Hub, secret: bytes
) -> None:
    ends = Ends(hub, 1, secret, 1, first=(_core.wire_frame(HEAD),))
    ends.door.sendall(b"more")
    client = ends.release()
    got = client.read_to_end()
    assert got == b"" or got.startswith(HEAD + b"retry: ")  # By which was first.
    assert hub.wait_closed(client)[3] == "client_data"


def test_stream_that_waits_too_long_ends(make_sealed: MakeHub, secret: bytes) -> None:
    hub = make_sealed(max_lag_ms=1000)
    ends = Ends(hub, 1, secret, 1, first=(_core.wire_frame(HEAD),))
    hub.sender.advance_clock(3000)
    assert hub.wait_closed(ends.client)[3] == "lagged"
    ends.net.close()
    ends.door.close()


def test_drain_of_a_stream_that_waits_ends_it_behind_close_notify(hub: Hub, secret: bytes) -> None:
    ends = Ends(hub, 1, secret, 1, first=(_core.wire_frame(HEAD),))
    hub.sender.close(ends.client.handle, _core.REASON_ENDED, _core.raw_frame(b"retry: 1\n\n"))
    hub.settle()
    client = ends.release()
    assert client.ends_with_close_notify() == HEAD + b"retry: 1\n\n"
    assert hub.wait_closed(client)[3] == "ended"


def test_bad_calls_are_refused(make_hub: MakeHub, hub: Hub, secret: bytes) -> None:
    plain = make_hub()
    ours, peer = socket.socketpair()
    with pytest.raises(ValueError, match="seals no records"):
        plain.sender.attach(
            plain.sender.allocate(), ours.fileno(), 1, False, True, (), door_number=1
        )
    sealed = _seal.SealedSocket(ours.detach(), secret)
    with pytest.raises(ValueError, match="seals no records"):
        plain.sender.seal(1, sealed)
    client = hub.connect(1)  # It does not wait.
    assert hub.sender.seal(client.handle, sealed)
    with pytest.raises(ValueError, match="once"):
        hub.sender.seal(client.handle, sealed)
    assert peer.recv(1) == b""
    event = hub.publish(b"plain")
    client.gets(event)
    peer.close()


# ---- slow clients --------------------------------------------------------------------------------


def test_unsent_rest_is_one_record_and_counted(hub: Hub, secret: bytes) -> None:
    before = _core.native_bytes_held()
    clients = [connect(hub, 1, secret, send_buffer=4096) for _ in range(10)]
    for _ in range(20):
        hub.publish(b"z" * 10_000)
    hub.wait_count("blocked", 10)
    hub.settle()
    rings = hub.count("ring_bytes")
    assert _core.native_bytes_held() - before - rings < 10 * (16_406 + 200) + 20_000
    assert clients[0].records == []


def test_skip_policy_sends_a_gap_event(make_sealed: MakeHub, secret: bytes) -> None:
    hub = make_sealed(max_lag_bytes=60_000)
    client = connect(hub, 1, secret, send_buffer=4096)
    frames = [hub.publish(b"z" * 9000, policy=_core.POLICY_SKIP) for _ in range(200)]
    wait_until(lambda: hub.count("skipped") > 0)
    got = client.read_until(frames[-1].body)
    assert b"event: fastsse.gap\n" in got
    assert got.startswith(frames[0].body)


def test_latest_policy_sends_the_newest_values(make_sealed: MakeHub, secret: bytes) -> None:
    hub = make_sealed(max_lag_bytes=60_000)
    client = connect(hub, 1, secret, send_buffer=4096)
    frames = [hub.publish(b"%d" % n * 3000, policy=_core.POLICY_LATEST) for n in range(200)]
    wait_until(lambda: hub.count("lapped") > 0)
    got = client.read_until(frames[-1].body)
    assert len(got) < len(expected(frames, False))


def test_client_that_is_cut_for_its_lag_gets_no_close_notify(
    make_sealed: MakeHub, secret: bytes
) -> None:
    hub = make_sealed(max_lag_bytes=30_000)
    client = connect(hub, 1, secret, send_buffer=4096)
    for _ in range(100):
        hub.publish(b"z" * 9000)
    assert hub.wait_closed(client)[3] == "lagged"
    client.read_to_end()
    assert CLOSE_NOTIFY not in client.records


def test_idle_stream_with_a_stuck_rest_is_left_to_the_kernel(
    make_sealed: MakeHub, secret: bytes
) -> None:
    """As a plain one whose last frame is stuck: nothing is left that a policy could leave out."""
    hub = make_sealed(max_lag_ms=1000, write_limit_bytes=1, refuse_every=2)
    client = connect(hub, 1, secret)
    event = hub.publish(b"x" * 300, policy=_core.POLICY_LATEST)
    assert client.read_until(event.body) == event.body
    assert hub.count("lapped") == 0
