"""How a stream speaks: a heartbeat of its own, quiet channels, ends that are not the end."""

import re
import socket

import pytest

from fastsse import _core
from tests.core.conftest import Hub, MakeHub


def test_a_stream_has_the_heartbeat_that_it_asked_for(make_hub: MakeHub) -> None:
    hub = make_hub(heartbeat_ms=30_000)
    hub.sender.add_channel(1, [1])
    plain = hub.connect(1)
    often = [hub.connect(1, heartbeat_s=2) for _ in range(3)]
    padded = hub.connect(1, heartbeat_s=2, pad_bytes=4096, chunked=True)
    hub.wait_count("connections", 5)
    hub.sender.advance_clock(2100)
    for client in often:
        assert client.read_until(b"\n") == b":\n"
    assert padded.read_until(b"\n\r\n") == b"1000\r\n:" + b" " * 4094 + b"\n\r\n"
    assert plain.is_silent()
    hub.sender.advance_clock(30_100)
    assert plain.read_until(b"\n") == b":\n"


def test_a_heartbeat_may_be_asked_for_where_there_is_none(make_hub: MakeHub) -> None:
    hub = make_hub(heartbeat_ms=0)
    hub.sender.add_channel(1, [1])
    plain, often = hub.connect(1), hub.connect(1, heartbeat_s=31, pad_bytes=1024)
    hub.wait_count("connections", 2)
    hub.sender.advance_clock(31_100)
    assert len(often.read_until(b"\n")) == 1024
    assert plain.is_silent()


def test_streams_with_the_same_padding_share_one_frame(make_hub: MakeHub) -> None:
    hub = make_hub(heartbeat_ms=0)
    hub.sender.add_channel(1, [1])
    clients = [hub.connect(1, heartbeat_s=1, pad_bytes=16_384) for _ in range(20)]
    hub.wait_count("connections", 20)
    before = hub.sender.memory_bytes
    hub.sender.advance_clock(1100)
    for client in clients:
        assert len(client.read_until(b"\n")) == 16_384
    assert hub.sender.memory_bytes - before < 2 * 16_384


@pytest.mark.parametrize(
    "options",
    [{"heartbeat_s": 32}, {"pad_bytes": 512}, {"pad_bytes": 5000}, {"pad_bytes": 32_768}],
)
def test_another_heartbeat_is_refused_and_the_descriptor_stays(
    make_hub: MakeHub, options: dict[str, int]
) -> None:
    hub = make_hub()
    ours, peer = socket.socketpair()
    handle = hub.sender.allocate()
    with ours, peer:
        with pytest.raises(ValueError, match="must be"):
            hub.sender.attach(handle, ours.fileno(), 1, False, True, (), **options)
        assert ours.send(b"still mine") == 10
    hub.sender.release(handle)


# ---- quiet channels ------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("live", [True, False])
def test_an_announcement_ends_quiet_streams_without_a_last_chunk(
    make_hub: MakeHub, chunked: bool, live: bool
) -> None:
    hub = make_hub(retry_ms=3000)
    hub.sender.add_channel(1, [1])
    hub.sender.add_channel(2, [1], (), True)
    first = () if live else (_core.raw_frame(b"page"),)
    clients = [hub.connect(2, chunked=chunked, live=live, first=first) for _ in range(3)]
    loud = hub.connect(1)
    event = hub.publish(b"before")
    gap = _core.raw_frame(b"event: fastsse.gap\ndata: {}\n\n")
    hub.sender.announce(gap)
    for client in clients:
        body = client.read_to_end()
        assert (event.body if live else b"page") in body
        assert b"fastsse.gap" not in body
        assert not body.endswith(b"0\r\n\r\n")
        assert re.search(rb"retry: [3-6]\d{3}\n(\r\n)?$", body)
        assert hub.wait_closed(client)[3] == "ended"
    loud.gets(event)
    loud.gets(gap)
    hub.sender.remove_channel(2)


def test_a_blocked_quiet_stream_is_cut_by_an_announcement(make_hub: MakeHub) -> None:
    hub = make_hub()
    hub.sender.add_channel(2, [1], (), True)
    stuck = hub.connect(2, send_buffer=4096)
    for _ in range(50):
        hub.publish(b"x" * 10_000)
    hub.wait_count("blocked", 1)
    hub.sender.announce(_core.raw_frame(b"event: fastsse.gap\ndata: {}\n\n"))
    assert hub.wait_closed(stuck)[3] == "ended"
    assert b"fastsse.gap" not in stuck.read_to_end()


def test_policy_skip_ends_a_quiet_stream_that_lags(make_hub: MakeHub) -> None:
    hub = make_hub(max_lag_bytes=20_000)
    hub.sender.add_channel(2, [1], (), True)
    stuck = hub.connect(2, send_buffer=4096, chunked=True)
    for _ in range(50):
        hub.publish(b"x" * 10_000, policy=_core.POLICY_SKIP)
    assert hub.wait_closed(stuck)[3] == "lagged"
    body = stuck.read_to_end()
    assert b"fastsse.gap" not in body
    assert not body.endswith(b"0\r\n\r\n")
    assert hub.count("skipped") == 0


@pytest.mark.parametrize("is_over", [True, False])
def test_a_close_that_is_not_the_end_leaves_the_last_chunk_out(hub: Hub, is_over: bool) -> None:
    client = hub.connect(1, chunked=True)
    hub.sender.close(client.handle, 0, _core.raw_frame(b"bye"), is_over)
    assert client.read_to_end() == b"3\r\nbye\r\n" + (b"0\r\n\r\n" if is_over else b"")
