"""Events that expired: what is sent in their place, from rings and as last values."""

import time

from fastsse import _core
from tests.core.conftest import Hub

BLANK = b":\n\n"


def frame(hub: Hub, data: bytes, expires_ms: int) -> _core.Frame:
    made = hub.event(data)
    return _core.load_frame(made.body, made.position, False, None, True, 0, expires_ms)


def test_an_expired_event_is_a_comment_and_the_others_are_sent(hub: Hub) -> None:
    client = hub.connect(1, chunked=True)
    hour_ms = time.time_ns() // 1_000_000 + 3_600_000
    gone, kept = frame(hub, b"gone", 1), frame(hub, b"kept", hour_ms)
    for one in (gone, kept):
        hub.sender.publish(one, (1,), _core.POLICY_DISCONNECT)
    hub.sender.wake()
    client.gets(_core.raw_frame(BLANK), kept)


def test_a_stream_with_a_part_of_an_event_gets_the_rest_though_it_expired(make_hub) -> None:
    hub = make_hub()
    hub.sender.add_channel(1, [1])
    slow = hub.connect(1, send_buffer=4096)
    now_ms = time.time_ns() // 1_000_000
    large = frame(hub, b"x" * 400_000, now_ms + 300)
    hub.sender.publish(large, (1,), _core.POLICY_DISCONNECT)
    hub.sender.wake()
    hub.wait_count("blocked", 1)
    after = [frame(hub, b"gone", now_ms + 300), hub.event(b"on")]
    for one in after:
        hub.sender.publish(one, (1,), _core.POLICY_DISCONNECT)
    hub.sender.wake()
    time.sleep(max(0.0, now_ms / 1000 + 0.4 - time.time()))
    slow.gets(large, _core.raw_frame(BLANK), after[1])


def test_an_expired_last_value_is_a_comment(make_hub) -> None:
    hub = make_hub(max_lag_bytes=100_000, max_lag_ms=60_000)
    hub.sender.add_channel(1, [1, 2])
    slow = hub.connect(1, send_buffer=4096)
    first = hub.publish(b"x" * 60_000, 1, policy=_core.POLICY_LATEST)
    hub.wait_count("blocked", 1)
    gone = frame(hub, b"gone", 1)
    hub.sender.publish(gone, (2,), _core.POLICY_LATEST)
    for n in range(8):
        last = hub.publish(b"%d" % n * 60_000, 1, policy=_core.POLICY_LATEST)
    hub.sender.wake()
    hub.settle()
    got = slow.read_until(last.body)
    assert got.startswith(first.body)
    assert b"gone" not in got


def test_a_page_expires_with_the_first_of_its_events(hub: Hub) -> None:
    page = _core.join_frames(
        [frame(hub, b"a", 0), frame(hub, b"b", 9_000), frame(hub, b"c", 8_000)]
    )
    assert page.expires_ms == 8_000
    assert _core.join_frames([frame(hub, b"a", 0)]).expires_ms == 0
