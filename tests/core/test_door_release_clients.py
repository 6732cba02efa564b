"""Promises of a door that lets OpenSSL go: to clients other than those of Python (suites, sizes of
records, key updates), and to clients that do anything at any moment."""

import contextlib
import os
import random
import select
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Final

import pytest

pytest.importorskip("tests.core.door", exc_type=ImportError)

from fastsse import _seal
from tests.core.conftest import wait_until
from tests.core.door import NAME, make, pair, read
from tests.core.door_site import Site, ends, make_site, reads, site

__all__ = ["make", "make_site", "pair", "site"]  # fixtures

OPENSSL: Final = shutil.which("openssl")
#: Sessions of random clients; more by hand: FASTSSE_FUZZ=5000.
SESSIONS: Final = int(os.environ.get("FASTSSE_FUZZ", "40"))


class Program:
    """`openssl s_client`, whose suites and key updates can be chosen."""

    def __init__(self, site: Site, *options: str) -> None:
        port = site.harness.listener.getsockname()[1]
        command = [str(OPENSSL), "s_client", "-connect", f"127.0.0.1:{port}", "-servername", NAME]
        self.process = subprocess.Popen(
            [*command, "-CAfile", site.harness.pairs[0][0], "-tls1_3", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        self.said = b""

    def send(self, line: bytes) -> None:
        self.input.write(line)
        self.input.flush()

    def until(self, text: bytes) -> bytes:
        """Reads what it prints up to a text."""
        while text not in self.said:
            piece = os.read(self.output.fileno(), 1 << 16)
            assert piece, self.said
            self.said += piece
        return self.said

    def end(self) -> bytes:
        """What it printed, once it has ended by itself."""
        while piece := os.read(self.output.fileno(), 1 << 16):
            self.said += piece
        return self.said

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.input.close()
        self.output.close()


@pytest.fixture
def run(site: Site) -> Iterator[Callable[..., Program]]:
    if OPENSSL is None:
        pytest.skip("no openssl here")
    started: list[Program] = []

    def start(*options: str) -> Program:
        started.append(Program(site, *options))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.mark.parametrize(
    ("suite", "fit"),
    [
        ("TLS_AES_128_GCM_SHA256", "released"),
        ("TLS_AES_256_GCM_SHA384", "released"),
        ("TLS_CHACHA20_POLY1305_SHA256", "other_cipher"),
    ],
)
def test_suites_with_aes_gcm_are_released(
    site: Site, run: Callable[..., Program], suite: str, fit: str
) -> None:
    program = run("-ciphersuites", suite)
    program.send(b"request\n")
    server = site.harness.server()
    assert read(server, 8) == b"request\n"
    site.stream(server)
    assert site.answer() == [fit]
    for n in range(5):
        event = site.hub.publish(b"event %d" % n)
        program.until(event.body)


def test_client_with_smaller_records_stays_with_openssl(
    site: Site, run: Callable[..., Program]
) -> None:
    program = run("-maxfraglen", "512")
    program.send(b"request\n")
    server = site.harness.server()
    assert read(server, 8) == b"request\n"
    site.stream(server)
    assert site.answer() == ["small_records"]
    program.until(site.hub.publish(b"whole " * 500).body)


@pytest.mark.parametrize("command", [b"k\n", b"K\n"])
def test_key_update_after_the_release_ends_the_stream_in_order(
    site: Site, run: Callable[..., Program], command: bytes
) -> None:
    program = run()
    program.send(b"request\n")
    server = site.harness.server()
    assert read(server, 8) == b"request\n"
    site.stream(server)
    assert site.answer() == ["released"]
    program.until(site.hub.publish(b"one").body)
    program.send(command)
    said = program.end()
    assert b"retry: " in said
    assert b"closed" in said  # and no error: what it got last was close_notify
    assert b"error" not in said.lower().replace(b"verify error", b"")
    wait_until(lambda: site.hub.count("closed_client_data") == 1)


def test_key_update_before_the_release_keeps_openssl(
    site: Site, run: Callable[..., Program]
) -> None:
    """It has changed the keys of the server's records too, so the first secret proves nothing."""
    program = run()
    program.send(b"request\n")
    server = site.harness.server()
    assert read(server, 8) == b"request\n"
    program.send(b"K\n")
    program.until(b"KEYUPDATE")
    program.send(b"again\n")
    assert read(server, 6) == b"again\n"
    server.sendall(b"answer\n")
    program.until(b"answer\n")
    site.stream(server)
    assert site.answer() == ["unproven"]
    program.until(site.hub.publish(b"goes on").body)


# ---- at any moment -------------------------------------------------------------------------------


def session(site: Site, chance: random.Random) -> None:
    """A client that sends, leaves or reads at a random moment around the release."""
    client, server = site.harness.connected()
    raw = socket.socket(fileno=os.dup(client.fileno()))
    steps = [
        lambda: site.stream(server),
        site.pass_on,
        site.pass_on,
        lambda: site.hub.publish(b"x"),
    ]
    disturbs = [
        lambda: client.sendall(b"more"),
        lambda: raw.sendall(b"\x17\x03\x03\x00\x13" + os.urandom(19)),
        lambda: raw.sendall(os.urandom(chance.randrange(1, 40))),
        lambda: raw.shutdown(socket.SHUT_WR),
        lambda: raw.shutdown(socket.SHUT_RDWR),
        lambda: None,
    ]
    steps.insert(chance.randrange(5), chance.choice(disturbs))
    with contextlib.suppress(OSError):
        for step in steps:
            step()
            if chance.random() < 0.5:
                select.select([], [], [], chance.random() / 500)
    raw.close()
    client.close()


def test_clients_that_do_anything_at_any_moment_leave_nothing(site: Site) -> None:
    seed = int(os.environ.get("FASTSSE_FUZZ_SEED", "1"))
    for number in range(SESSIONS):
        session(site, random.Random(f"{seed} {number}"))
    wait_until(lambda: site.pass_on() or site.hub.count("connections") == 0)
    site.harness.counts(under_way=0, open=0, closing=0, unclaimed=0)
    client, handle = site.connected()
    assert site.answer() == ["released"]
    reads(site, client)
    ends(site, client, handle)
    assert _seal.native_bytes_held() == 0
