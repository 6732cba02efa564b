"""Promises of a door that lets OpenSSL go: a real client reads on in the records of the sender,
after a full handshake and a resumed one; what does not fit stays with OpenSSL and goes on."""

import contextlib
import select
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("tests.core.door", exc_type=ImportError)

from tests.core.conftest import DEADLINE_S, HEAD, wait_until
from tests.core.door import Make, certificates, make, pair, read
from tests.core.door_site import Site, ends, make_site, reads, site

__all__ = ["make", "make_site", "pair", "site"]  # fixtures


@pytest.mark.parametrize("resumed", [False, True])
def test_client_reads_on_when_openssl_is_gone(site: Site, resumed: bool) -> None:
    context = site.harness.context()
    strict: dict[str, Any] = {"context": context, "suppress_ragged_eofs": False}
    if resumed:
        first, server = site.harness.connected(**strict)
        server.sendall(b"!")
        assert first.recv(1) == b"!"  # The ticket has come with it.
        strict["session"] = first.session
        first.close()
        server.close()
    client, handle = site.connected(**strict)
    assert client.session_reused == resumed
    assert site.answer() == ["released"]
    site.harness.counts(open=0, unclaimed=0, records_released=1)
    reads(site, client)
    ends(site, client, handle)


def test_answers_before_the_stream_are_counted(site: Site) -> None:
    """A connection that had requests before: OpenSSL wrote so many records more."""
    client, server = site.harness.connected()
    for size in (1, 300, 16_384, 50_000, 7):
        server.sendall(bytes(size))
        assert read(client, size) == bytes(size)
        client.sendall(b"?")
        assert server.recv(1) == b"?"
    handle = site.stream(server)
    assert site.answer() == ["released"]
    reads(site, client)
    ends(site, client, handle)


def test_answer_that_is_still_in_the_pair_comes_first(site: Site) -> None:
    client, server = site.harness.connected()
    server.sendall(b"answer")
    site.stream(server)
    assert site.answer() == ["released"]
    reads(site, client, b"answer" + HEAD)


def test_answer_that_the_client_does_not_take_keeps_openssl(site: Site) -> None:
    site.harness.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client, server = site.harness.connected()
    server.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += server.send(bytes(4096))
            select.select([], [server], [], 0.05)
    server.setblocking(True)
    site.stream(server)
    assert site.answer() == ["busy"]
    assert read(client, sent) == bytes(sent)
    reads(site, client)


def test_tls_1_2_stays_with_openssl(site: Site) -> None:
    context = site.harness.context(maximum_version=ssl.TLSVersion.TLSv1_2)
    client, _ = site.connected(context=context)
    assert site.answer() == ["old_version"]
    reads(site, client)


def test_connection_that_is_gone_is_answered(site: Site) -> None:
    client, server = site.harness.connected()
    handle = site.stream(server, site.harness.number + (1 << 32))
    assert site.answer() == ["gone"]
    reads(site, client)
    site.harness.door.release(0xFFFF_FFFF_FFFF, handle)
    assert site.answer() == ["gone"]


def test_client_that_left_before_the_answer_leaves_nothing(site: Site) -> None:
    client, server = site.harness.connected()
    client.close()
    site.harness.counts(open=0)
    site.stream(server)
    assert site.answer() == ["gone"]
    wait_until(lambda: site.hub.count("connections") == 0)


def test_bytes_behind_the_request_end_the_stream(site: Site) -> None:
    client, server = site.harness.connected()
    client.sendall(b"more")
    assert server.recv(4, socket.MSG_PEEK) == b"more"
    site.stream(server)
    site.answer()
    with contextlib.suppress(ConnectionResetError, ssl.SSLError):
        while client.recv(1000):
            pass
    wait_until(lambda: site.hub.count("connections") == 0)
    assert site.hub.count("closed_client_data") == 1


def test_doors_that_release_nothing_give_no_number(make: Make) -> None:
    harness = make()
    harness.connected()
    assert harness.number == 0


def test_close_notify_of_the_client_is_answered(site: Site) -> None:
    client, _ = site.connected()
    site.answer()
    reads(site, client)
    client.settimeout(DEADLINE_S)
    client.unwrap()  # Sends close_notify, and waits for ours.
    wait_until(lambda: site.hub.count("closed_client_closed") == 1)


def test_new_certificates_and_a_stopped_door_leave_streams_alone(
    site: Site, pair: tuple[str, str]
) -> None:
    client, _ = site.connected()
    assert site.answer() == ["released"]
    reads(site, client)
    door = site.harness.door
    door.certify(certificates(pair), site.harness.keys)
    later, handle = site.connected()
    assert site.answer() == ["released"]  # The new certificates give their secrets too.
    reads(site, later)
    door.stop()
    event = site.hub.publish(b"still here")
    assert read(later, len(event.body)) == event.body
    ends(site, later, handle)


def test_door_that_stops_with_releases_under_way_leaves_nothing(site: Site) -> None:
    clients = [site.connected()[0] for _ in range(5)]
    site.harness.door.stop()
    site.hub.sender.stop()
    assert len(clients) == 5


@pytest.mark.parametrize(
    "limits",
    [
        {"net_limit": 1},
        {"net_limit": 7, "pair_limit": 1},
        {"send_buffer_bytes": 1},
        {"net_limit": 100, "net_refuse_every": 3},
    ],
    ids=str,
)
def test_release_is_right_however_reads_and_writes_are_cut(
    make_site: Callable[..., Site], limits: dict[str, int]
) -> None:
    site = make_site(**limits, sender={"write_limit_bytes": 11})
    for _ in range(5):
        client, _ = site.connected()
        assert site.answer()[0] in ("released", "busy")
        reads(site, client)
    assert site.harness.door.counters()["records_unproven"] == 0
