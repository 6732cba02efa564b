"""Promises of a door that lets OpenSSL go: a real client reads on in the records of the sender,
after a full handshake and a resumed one; what does not fit stays with OpenSSL and goes on."""

import contextlib
import os
import random
import select
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from fastsse import _core, _seal
from tests.core.conftest import DEADLINE_S, HEAD, Hub, wait_until

pytest.importorskip("tests.core.test_door", exc_type=ImportError)

from tests.core.test_door import NAME, Harness, Make, make, pair, read

__all__ = ["make", "pair"]  # fixtures

OPENSSL: Final = shutil.which("openssl")
#: Sessions of random clients; more by hand: FASTSSE_FUZZ=5000.
SESSIONS: Final = int(os.environ.get("FASTSSE_FUZZ", "40"))
MakeHub = Callable[..., Hub]


class Site:
    """A door and a sender, connected as the loop does."""

    def __init__(self, harness: Harness, hub: Hub) -> None:
        self.harness, self.hub = harness, hub
        self.fits: list[str] = []
        hub.sender.on_waiting = harness.door.release
        hub.sender.add_channel(1, [1])

    def answer(self, count: int = 1) -> list[str]:
        """Waits for answers of the door and passes them on; why each connection fits or not."""
        wanted = len(self.fits) + count
        while len(self.fits) < wanted:
            assert select.select([self.harness.door.notice_fd], [], [], DEADLINE_S)[0]
            self.pass_on()
        return self.fits[wanted - count :]

    def pass_on(self) -> None:
        self.harness.notices += self.harness.door.take()
        for handle, sealed, fit in self.harness.door.take_released():
            self.fits.append(fit)
            if sealed is None:
                self.hub.sender.go_on_plain(handle)
            else:
                self.hub.sender.seal(handle, sealed)

    def stream(self, server: socket.socket, number: int | None = None) -> int:
        """Attaches the server's end as a stream; its handle."""
        handle = self.hub.sender.allocate()
        head = (_core.wire_frame(HEAD),)
        number = self.harness.number if number is None else number
        fd = server.detach()
        self.hub.sender.attach(handle, fd, 1, False, True, head, door_number=number)
        self.hub.sender.wake()
        return handle

    def connected(self, **more: Any) -> tuple[ssl.SSLSocket, int]:
        """A client whose stream is attached."""
        client, server = self.harness.connected(**more)
        return client, self.stream(server)


@pytest.fixture
def make_site(make: Make, make_hub: MakeHub) -> Callable[..., Site]:
    def make_one(**options: Any) -> Site:
        sender = options.pop("sender", {})
        return Site(make(releases=True, **options), make_hub(seals=True, **sender))

    return make_one


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


def reads(site: Site, client: ssl.SSLSocket, first: bytes = HEAD) -> None:
    """The client reads on, event by event."""
    assert read(client, len(first)) == first
    for n in range(20):
        event = site.hub.publish(b"event %d" % n)
        assert read(client, len(event.body)) == event.body


def ends(site: Site, client: ssl.SSLSocket, handle: int) -> None:
    """The stream ends behind close_notify."""
    site.hub.sender.close(handle, _core.REASON_ENDED, _core.raw_frame(b"retry: 9\n\n"))
    assert read(client, 10) == b"retry: 9\n\n"
    assert client.recv(1) == b""  # close_notify; else it is an SSLEOFError
    client.close()


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
    door.certify(_certificates(pair), site.harness.keys)
    later, handle = site.connected()
    assert site.answer() == ["released"]  # The new certificates give their secrets too.
    reads(site, later)
    door.stop()
    event = site.hub.publish(b"still here")
    assert read(later, len(event.body)) == event.body
    ends(site, later, handle)


def _certificates(pair: tuple[str, str]) -> Any:
    from tests.core.test_door import certificates

    return certificates(pair)


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


# ---- other clients than Python's -----------------------------------------------------------------


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
