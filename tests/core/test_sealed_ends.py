"""Promises of the ends of streams whose TLS records the sender seals: each orderly end is behind
close_notify, and a cut is not; no key seals too many records, and all keys are wiped."""

import ctypes
import socket
from typing import Final

import pytest

pytest.importorskip("tests.core.sealed", exc_type=ImportError)

from fastsse import _core, _seal
from tests.core.conftest import Hub
from tests.core.sealed import Ends, connect, hub, make_sealed, secret

__all__ = ["hub", "make_sealed", "secret"]  # fixtures

#: In the part of a key's records in which the stream ends.
LATE: Final = _seal.RECORDS_MAX - (1 << 20)
RESET: Final = b"\x01\x00\x00\x00\x00\x00\x00\x00"


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
