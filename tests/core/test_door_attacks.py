"""Promises of the door about clients that break the protocol, lie, or leave at any moment: each
costs a bounded amount, nothing is left of it, and the next client is served."""

import contextlib
import os
import random
import shutil
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.core.conftest import DEADLINE_S, wait_until

pytest.importorskip("tests.core.door", exc_type=ImportError)

from tests.core.door import NAME, Harness, Make, make, pair, read

__all__ = ["make", "pair"]  # fixtures

#: Sessions of the fuzzer; more by hand: FASTSSE_FUZZ=100000.
SESSIONS: Final = int(os.environ.get("FASTSSE_FUZZ", "60"))
OPENSSL: Final = shutil.which("openssl")
RESET: Final = struct.pack("ii", 1, 0)


class Wire:
    """A TLS client whose bytes the test sends itself."""

    def __init__(self, harness: Harness, name: str | None = NAME) -> None:
        self.sock = harness.tcp()
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = harness.context(check_hostname=False)
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)

    def hello(self) -> bytes:
        """The first flight."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def finished(self) -> bytes:
        """The second flight, once that of the server is there."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                data = self.sock.recv(1 << 16)
                assert data
                self.incoming.write(data)
            else:
                return self.outgoing.read()

    def sealed(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outgoing.read()


def in_pieces(sock: socket.socket, data: bytes, size: int) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(0, len(data), size):
        sock.sendall(data[at : at + size])


def serves(harness: Harness) -> None:
    """A well-behaved client is served."""
    client, server = harness.connected()
    server.sendall(b"!")
    assert client.recv(1) == b"!"
    client.close()
    server.close()


def nothing_is_left(harness: Harness) -> None:
    harness.counts(under_way=0, open=0, closing=0, unclaimed=0)


@pytest.mark.parametrize("size", [1, 5, 64])
def test_handshake_in_pieces_of_any_size_succeeds(make: Make, size: int) -> None:
    harness = make()
    wire = Wire(harness)
    in_pieces(wire.sock, wire.hello(), size)
    in_pieces(wire.sock, wire.finished() + wire.sealed(b"request"), size)
    assert read(harness.server(), 7) == b"request"


def test_hello_in_records_of_one_byte_is_read_or_refused(make: Make) -> None:
    harness = make()
    wire = Wire(harness)
    hello = wire.hello()[5:]
    records = b"".join(b"\x16\x03\x01\x00\x01" + bytes([byte]) for byte in hello)
    with contextlib.suppress(OSError):
        wire.sock.sendall(records)
        wire.sock.recv(1)
    wire.sock.close()
    nothing_is_left(harness)
    serves(harness)


# RFC 6066 §3: a name has no NUL, no dot at its end, and is no address. OpenSSL judges it.
@pytest.mark.parametrize(
    "name",
    [
        b"",
        b".",
        b"a\x00localhost",
        b"localhost.",
        b"127.0.0.1",
        b"\xff\xfe\xfd",
        b"*.example.com",
        b"%s%n%s",
        b"../../etc/passwd",
        b"x" * 255,
        b"x" * 256,
        b"x" * 65_000,
    ],
    ids=lambda name: repr(name[:16]),
)
def test_nonsense_as_the_name_costs_nothing(make: Make, name: bytes) -> None:
    harness = make()
    wire = Wire(harness, "placeholder")
    hello = wire.hello()
    entry = b"\x00\x00" + struct.pack("!HHBH", 16, 14, 0, 11) + b"placeholder"
    assert entry in hello
    grown = struct.pack("!HHBH", (len(name) + 5) & 0xFFFF, (len(name) + 3) & 0xFFFF, 0, len(name))
    body = hello[9:].replace(entry, b"\x00\x00" + grown + name)
    # The extensions' length lies behind version, random, session, ciphers and compression.
    at = 34 + 1 + body[34]
    at += 2 + int.from_bytes(body[at : at + 2], "big")
    at += 1 + body[at]
    body = body[:at] + struct.pack("!H", len(body[at + 2 :]) & 0xFFFF) + body[at + 2 :]
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    with contextlib.suppress(OSError):
        for start in range(0, len(message), 16_384):
            part = message[start : start + 16_384]
            wire.sock.sendall(b"\x16\x03\x01" + struct.pack("!H", len(part)) + part)
        first = wire.sock.recv(1)
        assert first == (b"\x15" if b"\x00" in name or len(name) > 255 else b"\x16")
    wire.sock.close()
    nothing_is_left(harness)
    serves(harness)


def ended(sock: socket.socket) -> None:
    """Waits until the door has closed a connection."""
    with contextlib.suppress(ConnectionResetError):
        while sock.recv(1 << 16):
            pass


@pytest.mark.parametrize(
    "record",
    [
        b"\x17\x03\x03\x45\x00" + bytes(0x4500),  # longer than RFC 8446 §5.2 allows
        b"\x17\x03\x03\x00\x00",
        b"\x18\x03\x03\x00\x03\x01\x40\x00",  # heartbeat (RFC 6520)
        b"\x16\x03\x03\x00\x04\x00\x00\x00\x00",  # HelloRequest
        b"\x14\x03\x03\x00\x01\x02",
        b"\x99" * 64,
    ],
    ids=["too long", "empty", "heartbeat", "hello request", "wrong change", "unknown"],
)
@pytest.mark.parametrize("state", ["hello", "handshake", "first", "open"])
def test_record_that_is_out_of_place_ends_the_connection(
    make: Make, state: str, record: bytes
) -> None:
    harness = make()
    wire = Wire(harness)
    if state != "hello":
        hello = wire.hello()
        wire.sock.sendall(hello[:50] if state == "handshake" else hello)
    if state in ("first", "open"):
        wire.sock.sendall(wire.finished())
    if state == "open":
        wire.sock.sendall(wire.sealed(b"?"))
        assert harness.server().recv(1) == b"?"
    with contextlib.suppress(OSError):
        wire.sock.sendall(record)
        wire.sock.shutdown(socket.SHUT_WR)
    ended(wire.sock)
    wire.sock.close()
    for sock in harness.open:
        sock.close()
    nothing_is_left(harness)
    serves(harness)


def test_compressed_and_empty_records_without_end_do_not_hold_a_connection(make: Make) -> None:
    """Empty records are valid and cost the client nothing; OpenSSL bounds how many follow."""
    harness = make()
    client, server = harness.connected()
    raw = socket.socket(fileno=os.dup(client.fileno()))
    raw.settimeout(DEADLINE_S)
    with contextlib.suppress(OSError):
        for _ in range(5_000):
            raw.sendall(b"\x17\x03\x03\x00\x11" + os.urandom(17))
    raw.close()
    with contextlib.suppress(ConnectionResetError):
        assert server.recv(1) == b""
    server.close()
    client.close()
    nothing_is_left(harness)


Leave = Callable[[socket.socket], None]


def leave_by_fin(sock: socket.socket) -> None:
    sock.close()


def leave_by_reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def leave_by_half(sock: socket.socket) -> None:
    """Sends no more, reads to the end."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(0.02)
        ended(sock)
    sock.close()


LEAVES: Final[list[Leave]] = [leave_by_fin, leave_by_reset, leave_by_half]


def walk(wire: Wire) -> Iterator[bytes]:
    """What a client sends, a state of the door at a time."""
    yield b""
    hello = wire.hello()
    yield hello[:1]
    yield hello[1:40]
    yield hello[40:]
    second = wire.finished()
    yield second[:10]
    yield second[10:]
    request = wire.sealed(b"GET / HTTP/1.1\r\n")
    yield request[:9]
    yield request[9:]
    yield wire.sealed(b"\r\n" * 10_000)
    with contextlib.suppress(ssl.SSLError):
        wire.tls.unwrap()
    yield wire.outgoing.read()


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize("server_leaves", ["first", "last"])
def test_client_that_leaves_in_any_state_leaves_nothing(
    make: Make, leave: Leave, server_leaves: str
) -> None:
    harness = make()
    before = len(os.listdir("/proc/self/fd"))
    for stop_at in range(1, 11):
        wire = Wire(harness)
        for _, data in zip(range(stop_at), walk(wire), strict=False):
            with contextlib.suppress(OSError):
                wire.sock.sendall(data)
        server = harness.server() if stop_at >= 8 else None
        if server is not None:
            with contextlib.suppress(OSError):
                server.sendall(bytes(5_000))
            if server_leaves == "first":
                server.close()
        leave(wire.sock)
        if server is not None:
            server.close()
        nothing_is_left(harness)
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    serves(harness)


def change(data: bytes, chance: random.Random) -> bytes:
    """The same bytes with some of them changed, left out, doubled or replaced."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        end = min(len(changed), at + chance.randint(1, 30))
        kind = chance.randrange(4)
        if kind == 0:
            changed[at:end] = chance.randbytes(end - at)
        elif kind == 1:
            del changed[at:end]
        elif kind == 2:
            changed[at:at] = changed[at:end]
        else:
            changed[at:end] = chance.choice([b"\xff", b"\x00"]) * (end - at)
    return bytes(changed)


def fuzz_once(harness: Harness, chance: random.Random) -> None:
    """One client: right up to a place, then changed bytes or random ones; then it leaves."""
    wire = Wire(harness)
    wrong_at = chance.randrange(10)
    with contextlib.suppress(OSError, AssertionError, ssl.SSLError):
        for step, data in enumerate(walk(wire)):
            wrong = chance.randbytes(chance.randint(1, 600)) if chance.random() < 0.2 else data
            sent = data if step < wrong_at else change(wrong, chance)
            in_pieces(wire.sock, sent, chance.choice([9, 100, 1 << 20]))
            if step == wrong_at:
                wire.sock.settimeout(0.01)
            if step > wrong_at + 1:
                break
    chance.choice(LEAVES)(wire.sock)


def test_random_bytes_and_changed_handshakes_leave_nothing(make: Make) -> None:
    harness = make()
    before = len(os.listdir("/proc/self/fd"))
    seed = int(os.environ.get("FASTSSE_FUZZ_SEED", "1"))
    for session in range(SESSIONS):
        fuzz_once(harness, random.Random(f"{seed} {session}"))
        for _, fd, *_ in harness.door.take():
            if fd >= 0:
                os.close(fd)
        harness.open.clear()
    deadline_s = time.monotonic() + DEADLINE_S
    while harness.door.counters()["unclaimed"] or harness.door.counters()["under_way"]:
        assert time.monotonic() < deadline_s
        for _, fd, *_ in harness.door.take():
            if fd >= 0:
                os.close(fd)
    nothing_is_left(harness)
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    serves(harness)


def s_client(harness: Harness, *arguments: str, typed: bytes = b"") -> str:
    port = harness.listener.getsockname()[1]
    done = subprocess.run(
        [str(OPENSSL), "s_client", "-connect", f"127.0.0.1:{port}", *arguments],
        input=typed,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=DEADLINE_S,
        check=False,
    )
    return done.stdout.decode(errors="replace")


needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="the program openssl is not installed")


@needs_openssl
def test_renegotiation_is_refused(make: Make) -> None:
    harness = make()
    said = s_client(harness, "-tls1_2", typed=b"R\n")
    assert "RENEGOTIATING" in said
    assert "no renegotiation" in said
    nothing_is_left(harness)


@needs_openssl
def test_tickets_allow_no_early_data(make: Make, tmp_path: Path) -> None:
    harness = make()
    early, session = tmp_path / "early", tmp_path / "session"
    early.write_bytes(b"GET / HTTP/1.1\r\n\r\n")
    client = subprocess.Popen(
        [
            *(str(OPENSSL), "s_client", "-tls1_3", "-sess_out", str(session)),
            *("-connect", f"127.0.0.1:{harness.listener.getsockname()[1]}"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert client.stdin is not None
    client.stdin.write(b"?")
    client.stdin.flush()
    server = harness.server()
    wait_until(session.exists)
    server.close()
    said = client.communicate(timeout=DEADLINE_S)[0].decode()
    assert "Max Early Data: 0" in said
    said = s_client(harness, "-sess_in", str(session), "-early_data", str(early))
    assert "Early data was not sent" in said
