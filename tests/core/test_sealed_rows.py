"""Promises of streams whose TLS records the sender seals: what a client opens is what a plain
client gets, however the kernel cuts it; no number of a record is used twice; each orderly end is
behind close_notify, and a cut is not."""

import ctypes
import os
import socket
from collections.abc import Callable
from typing import Any, Final

import pytest

from fastsse import _core, _seal
from tests.core.conftest import HEAD, Client, Hub, tcp_pair, wait_until
from tests.tls_records import CLOSE_NOTIFY, DATA, Opener

try:
    _seal.check()
except _seal.SealError:
    pytest.skip("OpenSSL 3 is not installed", allow_module_level=True)

#: In the part of a key's records in which the stream ends.
LATE: Final = _seal.RECORDS_MAX - (1 << 20)
RESET: Final = b"\x01\x00\x00\x00\x00\x00\x00\x00"


class SealedClient(Client):
    """A stream whose records are opened here, each under the number that it must have."""

    def __init__(self, handle: int, peer: socket.socket, chunked: bool, opener: Opener) -> None:
        super().__init__(handle, peer, chunked)
        self.opener = opener
        self.records: list[tuple[int, bytes]] = []

    def read_some(self) -> bool:
        """Reads and opens what has come; False at the end."""
        try:
            data = self.peer.recv(1 << 16)
        except ConnectionResetError:
            return False
        for kind, plain in self.opener.feed(data):
            self.records.append((kind, plain))
            self.got += plain if kind == DATA else b""
        return bool(data)

    def read_until(self, ending: bytes) -> bytes:
        while not self.got.endswith(ending):
            assert self.read_some(), f"closed after {self.got[-200:]!r}"
        return self.got

    def read_to_end(self) -> bytes:
        while self.read_some():
            pass
        return self.got

    def ends_with_close_notify(self) -> bytes:
        """All plain bytes, of a stream whose last record is close_notify."""
        got = self.read_to_end()
        assert self.records[-1] == CLOSE_NOTIFY
        assert CLOSE_NOTIFY not in self.records[:-1]
        assert self.opener.is_between
        return got


class Ends:
    """A row that waits for the door: the door's end of its pair, the client's socket, its keys."""

    def __init__(self, hub: Hub, channel: int, secret: bytes, number: int, **options: Any) -> None:
        self.hub = hub
        send_buffer = options.pop("send_buffer", 0)
        kind = options.pop("kind", "unix")
        first = options.pop("first", ())
        chunked, live = options.pop("chunked", False), options.pop("live", True)
        asked: list[tuple[int, int]] = []
        hub.sender.on_waiting = lambda number, handle: asked.append((number, handle))
        row, self.door = socket.socketpair()
        self.net, peer = tcp_pair() if kind == "tcp" else socket.socketpair()
        self.net.setblocking(False)
        if send_buffer:
            self.net.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        handle = hub.sender.allocate()
        hub.sender.attach(
            handle, row.detach(), channel, chunked, live, first, **options, door_number=99
        )
        hub.sender.wake()
        assert asked == [(99, handle)]
        self.secret, self.number = secret, number
        self.client = SealedClient(handle, peer, chunked, Opener(secret, number))
        hub.clients.append(self.client)

    def sealed(self) -> _seal.SealedSocket:
        return _seal.SealedSocket(self.net.detach(), self.secret, self.number, self.door.detach())

    def release(self) -> SealedClient:
        """Lets the row seal its records."""
        assert self.hub.sender.seal(self.client.handle, self.sealed())
        return self.client


MakeHub = Callable[..., Hub]


@pytest.fixture(params=[32, 48], ids=["aes128", "aes256"])
def secret(request: pytest.FixtureRequest) -> bytes:
    return os.urandom(request.param)


def connect(hub: Hub, channel: int, secret: bytes, number: int = 1, **options: Any) -> SealedClient:
    return Ends(hub, channel, secret, number, **options).release()


@pytest.fixture
def make_sealed(make_hub: MakeHub) -> MakeHub:
    """Makes a sender that seals, with channel 1 on topic 1."""

    def make(**options: Any) -> Hub:
        hub = make_hub(seals=True, **options)
        hub.sender.add_channel(1, [1])
        return hub

    return make


@pytest.fixture
def hub(make_sealed: MakeHub) -> Hub:
    return make_sealed()


def expected(frames: list[_core.Frame], chunked: bool) -> bytes:
    return b"".join(frame.wire if chunked else frame.body for frame in frames)


# ---- what arrives --------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize(
    "faults",
    [
        {"write_limit_bytes": 1},
        {"write_limit_bytes": 7},
        {"refuse_every": 2},
        {"refuse_every": 3, "write_limit_bytes": 1},
        {},
    ],
    ids=str,
)
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


# ---- ends ----------------------------------------------------------------------------------------


def test_drain_ends_each_stream_with_retry_and_close_notify(hub: Hub, secret: bytes) -> None:
    clients = [connect(hub, 1, secret, chunked=True) for _ in range(10)]
    event = hub.publish(b"last")
    hub.settle()
    hub.sender.drain(50)
    for client in clients:
        got = client.ends_with_close_notify()
        assert got.startswith(event.wire)
        assert b"retry: " in got
        assert hub.wait_closed(client)[3] == "drained"


def test_topic_that_ends_ends_its_streams_behind_close_notify(hub: Hub, secret: bytes) -> None:
    hub.sender.add_channel(5, [5], can_end=True)
    client = connect(hub, 5, secret, chunked=True)
    over = hub.event(b"over")
    hub.sender.end_topic(5, over)
    assert client.ends_with_close_notify() == over.wire + b"0\r\n\r\n"


def test_revoked_stream_ends_behind_close_notify(hub: Hub, secret: bytes) -> None:
    client = connect(hub, 1, secret, claims=(0, 0, 77, 1))
    hub.settle()
    hub.sender.revoke(token_hash=77)
    assert client.ends_with_close_notify().startswith(b"retry: ")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"\x17\x03\x03\x00\x13" + bytes(19), "client_closed"),  # The length of close_notify.
        (b"\x17\x03\x03\x00\x16" + bytes(22), "client_data"),  # That of a KeyUpdate.
        (b"\x17\x03\x03\x40\x11" + bytes(16401), "client_data"),
        (b"GET / HTTP/1.1\r\n\r\n", "client_data"),
        (b"\x15", "client_data"),
    ],
)
@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_record_of_the_client_ends_the_stream_in_order(
    hub: Hub, secret: bytes, record: bytes, reason: str, kind: str
) -> None:
    client = connect(hub, 1, secret, chunked=True, kind=kind)
    event = hub.publish(b"before")
    client.read_until(event.wire)
    client.peer.sendall(record)
    got = client.ends_with_close_notify()
    assert (b"retry: " in got) == (reason == "client_data")
    assert hub.wait_closed(client)[3] == reason


@pytest.mark.parametrize("how", ["close", "half", "reset"])
def test_client_that_leaves_ends_the_stream(hub: Hub, secret: bytes, how: str) -> None:
    client = connect(hub, 1, secret, kind="tcp")
    client.read_until(hub.publish(b"one").body)
    if how == "half":
        client.peer.shutdown(socket.SHUT_WR)
    else:
        if how == "reset":
            client.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.peer.close()
    assert hub.wait_closed(client)[3] == ("reset" if how == "reset" else "client_closed")


def test_stream_ends_before_its_key_has_sealed_too_many_records(hub: Hub, secret: bytes) -> None:
    client = connect(hub, 1, secret, LATE, chunked=True)
    got = client.ends_with_close_notify()
    assert got.startswith(b"b\r\nretry: ") or b"retry: " in got
    assert hub.wait_closed(client)[3] == "lifetime"
    assert client.opener.number < _seal.RECORDS_MAX
    fresh = connect(hub, 1, secret, LATE - 2 * (1 << 20), chunked=True)
    event = hub.publish(b"fine")
    assert fresh.read_until(event.wire) == event.wire
    assert hub.count("closed_lifetime") == 1


def test_key_never_seals_more_than_its_records(hub: Hub, secret: bytes) -> None:
    """Also if so much is pending that the clock had no time to end the stream."""
    ends = Ends(hub, 1, secret, _seal.RECORDS_MAX - 2)
    for _ in range(5):
        hub.publish(b"z" * 20_000)
    hub.settle()
    client = ends.release()
    client.read_to_end()
    assert client.opener.number == _seal.RECORDS_MAX
    assert hub.wait_closed(client)[3] == "reset"


def test_stop_with_answers_under_way_leaves_nothing(hub: Hub, secret: bytes) -> None:
    for _ in range(5):
        connect(hub, 1, secret)
        Ends(hub, 1, secret, 1).door.close()
    waiting = Ends(hub, 1, secret, 1)
    sealed = waiting.sealed()
    hub.sender.stop()
    with pytest.raises(RuntimeError):
        hub.sender.seal(waiting.client.handle, sealed)


def copies_of(pattern: bytes) -> int:
    """How often a pattern is in the writable memory of this process."""
    found, size = 0, 1 << 20
    piece = bytearray(size)
    ours = ctypes.addressof(ctypes.c_char.from_buffer(piece))
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        spans = [line.split()[0] for line in maps if line.split()[1].startswith("rw")]
        for span in spans:
            at, end = (int(part, 16) for part in span.split("-"))
            while at < end:
                if ours <= at < ours + size:
                    at = ours + size  # What was read before is no copy of the program's.
                    continue
                length = min(size, end - at, ours - at if at < ours else size)
                try:
                    memory.seek(at)
                    got = memory.readinto(memoryview(piece)[:length])
                except OSError:
                    break
                found += piece.count(pattern, 0, got)
                at += got
    return found


@pytest.mark.skipif(
    bool(_core.build_facts()["sanitizer"]), reason="a sanitizer maps all of the address space"
)
def test_keys_are_wiped_when_a_stream_ends(hub: Hub, secret: bytes) -> None:
    key, _ = _seal.keys_of(secret)
    ends = Ends(hub, 1, secret, 1)
    client = ends.client
    del client.opener  # It has the key too.
    before = copies_of(key)
    ends.release()
    hub.publish(b"sealed")
    assert client.peer.recv(100)
    assert copies_of(key) > before
    client.peer.close()
    hub.wait_closed(client)
    assert copies_of(key) <= before
