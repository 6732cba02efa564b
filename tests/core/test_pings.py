"""Pings, their answers, and the names by which streams are answered for."""

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse import _core
from tests.core.conftest import HEAD, Client, Hub, MakeHub, wait_until
from tests.eventstream import parse

MASK = (1 << 64) - 1


# ---- stream ids ----------------------------------------------------------------------------------


def siphash(key: bytes, message: bytes) -> int:
    """SipHash-2-4 as its paper says it (Aumasson and Bernstein, 2012)."""
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    ]

    def turn(x: int, by: int) -> int:
        return (x << by | x >> (64 - by)) & MASK

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0] = (v[0] + v[1]) & MASK
            v[2] = (v[2] + v[3]) & MASK
            v[1], v[3] = turn(v[1], 13) ^ v[0], turn(v[3], 16) ^ v[2]
            v[0] = (turn(v[0], 32) + v[3]) & MASK
            v[2] = (v[2] + v[1]) & MASK
            v[1], v[3] = turn(v[1], 17) ^ v[2], turn(v[3], 21) ^ v[0]
            v[2] = turn(v[2], 32)

    tail = message[len(message) // 8 * 8 :]
    words = [int.from_bytes(message[at : at + 8], "little") for at in range(0, len(message) - 7, 8)]
    words.append(int.from_bytes(tail, "little") | (len(message) & 255) << 56)
    for word in words:
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_the_reference_gives_the_papers_own_result() -> None:
    assert siphash(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5


@pytest.mark.parametrize("seed", range(8))
def test_a_stream_id_is_the_sealed_handle(make_hub: MakeHub, seed: int) -> None:
    key = bytes((seed * 37 + n * 11) % 256 for n in range(32))
    hub = make_hub(id_key=key)
    handles = [hub.sender.allocate() for _ in range(10)]
    for handle in handles:
        seal = siphash(key[:16], handle.to_bytes(8, "little"))
        masked = handle ^ siphash(key[16:], seal.to_bytes(8, "little"))
        assert hub.sender.stream_id(handle) == b"%016x%016x" % (seal, masked)
        assert hub.sender.find_stream(hub.sender.stream_id(handle)) == handle
    for handle in handles:
        hub.sender.release(handle)


def test_every_sender_has_names_of_its_own(make_hub: MakeHub) -> None:
    one, two = make_hub(), make_hub()
    name = one.sender.stream_id(one.sender.allocate())
    assert name != two.sender.stream_id(two.sender.allocate())
    assert two.sender.find_stream(name) == 0


def test_a_name_dies_with_its_stream(hub: Hub) -> None:
    gone = hub.connect(1)
    name = hub.sender.stream_id(gone.handle)
    gone.peer.close()
    hub.wait_closed(gone)
    assert hub.sender.find_stream(name) == 0
    with pytest.raises(ValueError, match="stale"):
        hub.sender.stream_id(gone.handle)
    again = hub.connect(1)
    assert again.handle & 0xFFFFFFFF == gone.handle & 0xFFFFFFFF, "the same slot"
    assert hub.sender.find_stream(name) == 0
    assert hub.sender.stream_id(again.handle) != name


def test_a_changed_stream_id_names_no_stream(hub: Hub) -> None:
    client = hub.connect(1)
    name = hub.sender.stream_id(client.handle)
    for at in range(len(name)):
        for digit in b"0123456789abcdefAG/:\x00\xff":
            changed = name[:at] + bytes([digit]) + name[at + 1 :]
            assert hub.sender.find_stream(changed) == (client.handle if changed == name else 0)


SENDER = _core.Sender(max_connections=1, id_key=os.urandom(32))


@given(st.binary(max_size=40) | st.text("0123456789abcdef", min_size=32, max_size=32))
def test_other_bytes_name_no_stream(text: bytes | str) -> None:
    assert SENDER.find_stream(text if isinstance(text, bytes) else text.encode()) == 0


@pytest.mark.parametrize("key", [b"", b"x" * 31, b"x" * 33])
def test_a_key_of_another_length_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        _core.Sender(max_connections=1, id_key=key)


# ---- pings ---------------------------------------------------------------------------------------


@pytest.fixture
def pinging(make_hub: MakeHub) -> Hub:
    """Pings every ten seconds of the sender's clock, answered within five."""
    hub = make_hub(ping_ms=10_000, pong_timeout_ms=5_000, heartbeat_ms=0, tick_ms=1)
    hub.sender.add_channel(1, [1])
    return hub


def one_ping(hub: Hub, client: Client, count: int) -> bytes:
    """Lets time pass until the next ping has come, and returns what it said."""
    hub.settle()
    hub.sender.advance_clock(10_000)
    hub.wait_count("pings", count)
    name = hub.sender.stream_id(client.handle)
    client.gets(_core.raw_frame(b'event: fastsse.ping\ndata: {"stream":"%b"}\n\n' % name))
    return name


@pytest.mark.parametrize("chunked", [True, False])
def test_only_streams_that_asked_are_pinged_with_their_id(pinging: Hub, chunked: bool) -> None:
    other = pinging.connect(1)
    client = pinging.connect(1, chunked=chunked, pings=True)
    frame = pinging.publish(b"x")
    client.gets(frame)
    other.gets(frame)
    for count in (1, 2, 3):
        name = one_ping(pinging, client, count)
        assert pinging.sender.pong(pinging.sender.find_stream(name))
        pinging.wait_count("pongs", count)
    assert other.is_silent()
    assert pinging.count("deliveries") == 2, "a ping is no delivery"
    assert sum(pinging.sender.latency_buckets()[1]) == 2


def test_a_ping_leaves_the_place_to_resume_from(pinging: Hub) -> None:
    client = pinging.connect(1, pings=True)
    frame = pinging.publish(b"x")
    client.read_until(frame.body)
    pinging.sender.advance_clock(10_000)
    while b"fastsse.ping" not in client.got:
        client.got += client.peer.recv(1000)
    events = parse(client.got).events
    assert [event.type for event in events] == ["message", "fastsse.ping"]
    assert events[1].last_event_id == events[0].last_event_id
    assert re.fullmatch(r'\{"stream":"[0-9a-f]{32}"\}', events[1].data)


def test_who_does_not_answer_in_time_is_ended(pinging: Hub) -> None:
    quiet = pinging.connect(1, chunked=True, pings=True)
    alive = pinging.connect(1, pings=True)
    plain = pinging.connect(1)
    pinging.wait_count("connections", 3)
    pinging.sender.advance_clock(10_000)
    pinging.wait_count("pings", 2)
    assert pinging.sender.pong(alive.handle)
    pinging.wait_count("pongs", 1)
    pinging.sender.advance_clock(6_000)
    assert pinging.wait_closed(quiet)[3] == "no_pong"
    assert not quiet.read_to_end().endswith(b"0\r\n\r\n")
    pinging.settle()
    assert pinging.count("connections") == 2
    plain.gets(pinging.publish(b"still here"))
    assert not pinging.sender.pong(quiet.handle)


def test_an_answer_by_who_never_asked_changes_nothing(pinging: Hub) -> None:
    client = pinging.connect(1)
    assert pinging.sender.pong(client.handle)
    pinging.settle()
    assert pinging.count("pongs") == 0


def test_the_slots_next_stream_begins_with_a_pulse_of_its_own(pinging: Hub) -> None:
    gone = pinging.connect(1, pings=True)
    one_ping(pinging, gone, 1)
    gone.peer.close()
    pinging.wait_closed(gone)
    client = pinging.connect(1, pings=True)
    pinging.wait_count("connections", 1)
    pinging.sender.advance_clock(7_000)
    client.gets(pinging.publish(b"x"))
    assert pinging.count("closed_no_pong") == 0


def test_without_an_interval_no_stream_is_pinged_or_ended(make_hub: MakeHub) -> None:
    hub = make_hub(pong_timeout_ms=1_000, heartbeat_ms=0)
    hub.sender.add_channel(1, [1])
    client = hub.connect(1, pings=True)
    hub.wait_count("connections", 1)
    hub.sender.advance_clock(100_000)
    probe = hub.connect(1, claims=(1, 0, 0, 0))
    hub.wait_closed(probe)
    assert client.is_silent()
    assert hub.count("pings") == hub.count("closed_no_pong") == 0


@pytest.mark.parametrize("write_limit_bytes", [1, 3, 64])
def test_pings_and_events_do_not_cut_into_each_other(
    make_hub: MakeHub, write_limit_bytes: int
) -> None:
    hub = make_hub(
        ping_ms=100, heartbeat_ms=0, tick_ms=1, write_limit_bytes=write_limit_bytes, refuse_every=5
    )
    hub.sender.add_channel(1, [1])
    client = hub.connect(1, pings=True, first=(_core.raw_frame(b": open\n"),))
    frames = []
    for n in range(20):
        frames.append(hub.publish(b"%d" % n))
        hub.sender.advance_clock(200)
        hub.settle()

    def arrived() -> bool:
        hub.sender.advance_clock(50)
        client.got += client.peer.recv(1 << 16)
        return b"data: 19\n\n" in client.got

    wait_until(arrived)
    name = hub.sender.stream_id(client.handle).decode()
    events = parse(client.got).events
    assert [event.data for event in events if event.type == "message"] == [
        str(n) for n in range(20)
    ]
    assert {event.data for event in events if event.type != "message"} <= {f'{{"stream":"{name}"}}'}


def test_a_stream_that_is_pinged_while_it_replays_goes_on(pinging: Hub) -> None:
    pages = [_core.raw_frame(b"data: %d\n\n" % n) for n in range(2)]
    client = pinging.connect(1, live=False, first=(_core.wire_frame(HEAD), pages[0]), pings=True)
    client.read_until(pages[0].body)
    wait_until(lambda: ("page", client.handle) in pinging.take())
    client.got = b""
    one_ping(pinging, client, 1)
    assert pinging.sender.page(client.handle, pages[1], True)
    client.gets(pages[1], pinging.publish(b"live"))
