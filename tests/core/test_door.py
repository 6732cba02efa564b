"""Promises of the door: what goes through arrives whole, however it is cut and each side ends,
and what a client does wrong costs a bounded amount."""

import contextlib
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("tests.core.door", exc_type=ImportError)

from fastsse import _door
from tests.certificates import issue
from tests.core.conftest import DEADLINE_S, wait_until
from tests.core.door import NAME, Make, certificates, make, other, pair, read

__all__ = ["make", "other", "pair"]  # fixtures


# Every byte of a record is a place at which the kernel may stop, on both sides.
@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"net_limit": 1, "net_refuse_every": 2},
        {"net_limit": 7, "net_refuse_every": 3, "pair_limit": 1},
        {"net_limit": 1000, "net_refuse_every": 2, "pair_limit": 333},
        {"send_buffer_bytes": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_all_bytes_arrive_in_order_however_reads_and_writes_are_cut(
    make: Make, limits: dict[str, int], version: ssl.TLSVersion
) -> None:
    harness = make(**limits)
    client, server = harness.connected(context=harness.context(maximum_version=version))
    for size in (1, 600, 16_384, 16_385, 40_000):
        data = os.urandom(min(size, 2_000) if limits.get("net_limit") == 1 else size)
        client.sendall(data)
        assert read(server, len(data)) == data
        server.setblocking(False)
        got, sent = b"", 0
        client.settimeout(0.001)
        while len(got) < len(data):
            with contextlib.suppress(BlockingIOError):
                sent += server.send(data[sent:])
            with contextlib.suppress(TimeoutError, ssl.SSLWantReadError):
                got += client.recv(1 << 16)
        assert got == data
        server.settimeout(DEADLINE_S)
        client.settimeout(DEADLINE_S)


def test_what_the_server_sent_before_it_closed_arrives_and_then_close_notify(make: Make) -> None:
    harness = make()
    client, server = harness.connected()
    data = os.urandom(20_000)
    server.sendall(data)
    server.close()
    assert read(client, len(data)) == data
    assert client.recv(1) == b""  # a clean end; else it is an SSLEOFError
    assert client.unwrap() is not None
    client.close()
    harness.counts(open=0, closing=0)


@pytest.mark.parametrize("how", [socket.socket.close, lambda sock: sock.shutdown(socket.SHUT_WR)])
def test_end_that_comes_with_the_last_bytes_is_passed_on_at_once(
    make: Make, how: Callable[[socket.socket], None]
) -> None:
    """One edge may announce both, and does when the door has others to serve."""
    harness = make()
    more = {"context": harness.context(), "suppress_ragged_eofs": False}
    pairs = [harness.connected(**more) for _ in range(40)]
    for _, server in pairs:
        server.sendall(b"answer")
        how(server)
    for client, server in pairs:
        assert read(client, 6) == b"answer"
        assert client.recv(1) == b""  # close_notify; else it is an SSLEOFError
        client.close()
        server.close()
    harness.counts(open=0, closing=0)


def test_client_that_sends_no_more_is_still_answered(make: Make) -> None:
    harness = make()
    client, server = harness.connected()
    client.sendall(b"last")
    client.shutdown(socket.SHUT_WR)  # of TCP: no close_notify
    assert read(server, 5) == b"last"
    server.sendall(b"answer")
    server.close()
    # Python forgets TLS at a shutdown, so what comes is a record.
    assert client.recv(5)[:3] == b"\x17\x03\x03"


def test_server_that_sends_no_more_still_reads(make: Make) -> None:
    harness = make()
    client, server = harness.connected()
    server.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    client.sendall(b"more")
    assert read(server, 4) == b"more"


@pytest.mark.parametrize("how", ["close", "reset"])
def test_server_sees_that_its_client_is_gone(make: Make, how: str) -> None:
    harness = make()
    client, server = harness.connected()
    if how == "reset":
        linger = (1).to_bytes(4, "little") + bytes(4)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.close()
    with contextlib.suppress(ConnectionResetError):
        assert server.recv(1) == b""
    server.close()
    harness.counts(open=0, closing=0)


def test_client_that_does_not_read_blocks_the_server_after_a_bounded_number_of_bytes(
    make: Make,
) -> None:
    harness = make()
    harness.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    client, server = harness.connected()
    server.setblocking(False)
    taken, last = 0, time.monotonic()
    while time.monotonic() - last < 0.3:
        try:
            taken += server.send(bytes(4096))
            last = time.monotonic()
        except BlockingIOError:
            select.select([], [server], [], 0.05)
    assert taken < 8_000_000  # what the client's own kernel takes, and little more
    assert harness.door.counters()["open"] == 1
    assert _door.native_bytes_held() < 64 * 1024
    server.settimeout(DEADLINE_S)
    assert read(client, taken) == bytes(taken)


def test_certificate_is_chosen_by_name(
    make: Make, pair: tuple[str, str], other: tuple[str, str]
) -> None:
    harness = make(pair, other)
    for name, common in [
        (NAME, NAME),
        ("a.example.com", "*.example.com"),
        ("example.net", "*.example.com"),
    ]:
        shown = harness.tls(name).getpeercert()
        assert shown is not None
        assert (("commonName", common),) in shown["subject"]


@pytest.mark.parametrize("name", ["unknown.test", "a.b.example.com", None, "x" * 63 + ".test"])
def test_other_names_get_the_first_certificate(
    make: Make, pair: tuple[str, str], other: tuple[str, str], name: str | None
) -> None:
    harness = make(pair, other)
    context = harness.context(check_hostname=False)
    shown = harness.tls(name, context).getpeercert()
    assert shown is not None
    assert (("commonName", NAME),) in shown["subject"]


def test_protocol_is_http_1_1_or_the_handshake_fails(make: Make) -> None:
    harness = make()
    context = harness.context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    assert harness.tls(context=context).selected_alpn_protocol() == "http/1.1"
    assert harness.tls().selected_alpn_protocol() is None
    context.set_alpn_protocols(["h2"])
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        harness.tls(context=context)
    kind, fd, _, _, reason, _ = harness.notice()
    assert (kind, fd) == (_door.KIND_FAILED, -1)
    assert reason


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("only_1_3", [False, True])
def test_old_versions_are_refused(make: Make, only_1_3: bool) -> None:
    harness = make(only_1_3=only_1_3)
    newest = ssl.TLSVersion.TLSv1_2 if only_1_3 else ssl.TLSVersion.TLSv1_1
    context = harness.context(minimum_version=ssl.TLSVersion.TLSv1, maximum_version=newest)
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        harness.tls(context=context)
    assert harness.tls().version() == "TLSv1.3"


def test_session_is_resumed_by_any_door_with_the_same_ticket_keys(make: Make) -> None:
    first = make()
    second = make(keys=first.keys)
    context = first.context(maximum_version=ssl.TLSVersion.TLSv1_2)
    session = first.tls(context=context).session
    assert second.tls(context=context, session=session).session_reused
    second.counts(resumed=1)
    second.door.seal_tickets(os.urandom(_door.TICKET_BYTES))
    assert not second.tls(context=context, session=session).session_reused
    second.counts(full=1)


def test_new_certificates_are_for_new_handshakes_and_open_connections_go_on(
    make: Make, other: tuple[str, str]
) -> None:
    harness = make()
    client, server = harness.connected()
    harness.door.certify(certificates(other), harness.keys)
    harness.pairs = (other,)
    assert harness.tls("example.net").getpeercert()
    server.sendall(b"still here")
    assert read(client, 10) == b"still here"


def test_http_without_tls_is_given_to_the_server_as_it_is(make: Make) -> None:
    harness = make()
    client = harness.tcp()
    client.sendall(b"GET / HTTP/1.1\r\n")
    kind, fd, source, address, *_ = harness.notice()
    assert (kind, source) == (_door.KIND_PLAIN, 3)
    assert address == client.getsockname()
    with socket.socket(fileno=fd) as server:
        assert server.recv(100) == b"GET / HTTP/1.1\r\n"
    harness.counts(plain=1, under_way=0)


def test_connection_without_a_request_ends_after_its_time(make: Make) -> None:
    harness = make(handshake_timeout_ms=200)
    silent, begun, idle = harness.tcp(), harness.tcp(), harness.tls()
    begun.sendall(b"\x16\x03\x01")
    for sock in (silent, begun, idle):
        with contextlib.suppress(ConnectionResetError, ssl.SSLError):
            assert sock.recv(1) == b""
    harness.counts(timed_out=3, under_way=0, full=1)


def test_flood_of_half_handshakes_leaves_room_for_others(make: Make) -> None:
    harness = make(handshakes_max=4)
    half = [harness.tcp() for _ in range(8)]
    for sock in half:
        sock.sendall(b"\x16\x03\x01")
    wait_until(lambda: harness.door.counters()["under_way"] == 4)
    # The oldest ends when it is a second old, so this one waits for a few seconds at most.
    client, server = harness.connected()
    server.sendall(b"!")
    assert client.recv(1) == b"!"
    counters = harness.door.counters()
    assert counters["under_way"] <= 4
    assert counters["evicted"] >= 4


def test_garbage_costs_nothing(make: Make) -> None:
    harness = make()
    hello = bytes.fromhex("160301020001" + "0001fc0303")
    alert = bytes.fromhex("15030300020228")
    pieces = [b"\x16" + os.urandom(200), b"\x00", b"\xff" * 500, hello + os.urandom(700), alert]
    for piece in pieces * 8:
        with harness.tcp() as sock, contextlib.suppress(OSError):
            sock.sendall(piece)
    harness.counts(under_way=0)
    client, server = harness.connected()
    server.sendall(b"!")
    assert client.recv(1) == b"!"
    harness.counts(full=1)


def test_bytes_that_no_longer_authenticate_end_the_connection(make: Make) -> None:
    harness = make()
    client, server = harness.connected()
    raw = socket.socket(fileno=os.dup(client.fileno()))
    raw.sendall(b"\x17\x03\x03\x00\x20" + os.urandom(32))
    raw.close()
    with contextlib.suppress(ConnectionResetError):
        assert server.recv(1) == b""
    harness.counts(open=0)


def test_stop_closes_everything(make: Make) -> None:
    harness = make()
    _, server = harness.connected()
    harness.tls().sendall(b"not taken")
    wait_until(lambda: harness.door.counters()["unclaimed"] == 1)
    harness.tcp()
    harness.door.stop()
    assert server.recv(1) == b""
    with pytest.raises(RuntimeError, match="closed"):
        harness.door.take()


@pytest.mark.parametrize("part", ["certificate", "key", "mismatch", "passphrase"])
def test_wrong_files_are_refused_with_the_part_that_is_wrong(
    pair: tuple[str, str], other: tuple[str, str], tmp_path: Path, part: str
) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("not PEM")
    sealed = issue(tmp_path, "sealed.test", passphrase=b"secret")
    pairs = {
        "certificate": (str(wrong), pair[1]),
        "key": (pair[0], str(wrong)),
        "mismatch": (pair[0], other[1]),
        "passphrase": sealed,
    }
    with pytest.raises(_door.TlsError) as raised:
        certificates(other, pairs[part])
    assert raised.value.part == ("certificate" if part == "certificate" else "key")
    assert raised.value.index == 1
    if part == "mismatch":
        assert "mismatch" in raised.value.detail


def test_arguments_are_checked(pair: tuple[str, str]) -> None:
    keys = os.urandom(_door.TICKET_BYTES)
    with pytest.raises(ValueError, match="at least one"):
        certificates()
    for bad in ({"handshakes_max": 0}, {"handshake_timeout_ms": 0}):
        with pytest.raises(ValueError, match="must be"):
            _door.Door(certificates(pair), keys, **bad)
    with pytest.raises(ValueError, match="ticket_keys"):
        _door.Door(certificates(pair), b"short")
    given = certificates(pair)
    _door.Door(given, keys).stop()
    with pytest.raises(RuntimeError, match="already"):
        _door.Door(given, keys)
