"""Slow clients: judged only when blocked, in bytes and in seconds, and by the strictest policy."""

import json

import pytest

from fastsse import _core
from tests.core.conftest import HEAD, Client, Hub, MakeHub, wait_until
from tests.eventstream import Message, parse

SMALL = {"max_lag_bytes": 20_000, "max_lag_ms": 5_000, "tick_ms": 1}


@pytest.fixture
def slow(make_hub: MakeHub) -> Hub:
    """Lag is over after 20,000 bytes or five seconds."""
    hub = make_hub(**SMALL)
    hub.sender.add_channel(1, [1])
    return hub


def fill(hub: Hub, client: Client, *topics: int, policy: int) -> None:
    """Publishes until the client's socket takes no more."""
    while hub.count("blocked") == 0:
        hub.publish(b"f" * 3000, *topics, policy=policy)
        hub.settle()


def events(client: Client, until: bytes) -> list[Message]:
    client.read_until(until)
    return parse(client.got).events


def test_subscriber_past_max_lag_is_disconnected_once(slow: Hub) -> None:
    client = slow.connect(1, send_buffer=4096)
    fast = slow.connect(1)
    fill(slow, client, 1, policy=_core.POLICY_DISCONNECT)
    frames = [slow.publish(b"x" * 1000) for _ in range(30)]
    assert slow.wait_closed(client)[3] == "lagged"
    assert slow.count("closed_lagged") == 1
    fast.read_until(frames[-1].body)


def test_lag_below_the_bound_is_nobodys_business(slow: Hub) -> None:
    client = slow.connect(1, send_buffer=4096)
    fill(slow, client, 1, policy=_core.POLICY_DISCONNECT)
    last = slow.publish(b"end")
    slow.sender.advance_clock(4000)
    wait_until(lambda: slow.count("lag_bytes") > 0)
    assert slow.count("closed_lagged") == 0
    client.read_until(last.body)


def test_a_bound_in_seconds_above_the_machines_uptime_drops_nothing(make_hub: MakeHub) -> None:
    hub = make_hub(max_lag_ms=4_000_000_000, tick_ms=1)
    hub.sender.add_channel(1, [1])
    client = hub.connect(1, send_buffer=4096)
    frames = [hub.publish(b"f" * 3000) for _ in range(40)]
    hub.wait_count("blocked", 1)
    hub.sender.advance_clock(2_000)
    frames.append(hub.publish(b"end"))
    client.gets(*frames)


def test_lag_in_seconds_counts_from_the_oldest_missing_event(slow: Hub) -> None:
    client = slow.connect(1, send_buffer=4096)
    fill(slow, client, 1, policy=_core.POLICY_DISCONNECT)
    slow.publish(b"missing")
    slow.settle()
    slow.sender.advance_clock(6000)
    assert slow.wait_closed(client)[3] == "lagged"


def test_a_byte_now_and_then_does_not_buy_time(slow: Hub) -> None:
    client = slow.connect(1, send_buffer=4096)
    fill(slow, client, 1, policy=_core.POLICY_DISCONNECT)
    slow.publish(b"missing")
    slow.settle()
    for _ in range(12):
        client.peer.recv(1)
        slow.sender.advance_clock(500)
    assert slow.wait_closed(client)[3] == "lagged"


def test_a_connection_that_was_not_reached_yet_is_not_cut(make_hub: MakeHub) -> None:
    """The server's debt: the ring keeps all, far over max_lag, until the sweep has come by."""
    hub = make_hub(max_lag_bytes=1000, max_lag_ms=1000)
    hub.sender.add_channel(1, [1])
    clients = [hub.connect(1) for _ in range(20)]
    frames = [hub.publish(b"y" * 100) for _ in range(300)]
    for client in clients:
        client.gets(*frames)
    assert hub.count("closed_lagged") == 0


def test_skip_goes_to_the_newest_and_says_so(slow: Hub) -> None:
    client = slow.connect(1, send_buffer=4096)
    fill(slow, client, 1, policy=_core.POLICY_SKIP)
    for n in range(40):
        slow.publish(b"%d" % n + b"x" * 1000, policy=_core.POLICY_SKIP)
    wait_until(lambda: slow.count("skipped") >= 1)
    last = slow.publish(b"last", policy=_core.POLICY_SKIP)
    got = events(client, last.body)
    gaps = [event for event in got if event.type == "fastsse.gap"]
    assert gaps, got
    told = json.loads(gaps[-1].data)
    assert told["reason"] == "lagged"
    assert told["from"] == gaps[-1].last_event_id
    numbers = [int(event.last_event_id.split("-")[1]) for event in got]
    assert numbers == sorted(numbers), "the id of the gap lies before what follows"
    following = numbers[got.index(gaps[-1]) + 1]
    assert following == int(gaps[-1].last_event_id.split("-")[1]) + 1
    assert slow.count("closed_lagged") == 0


def test_skip_again_while_still_blocked_leaves_one_gap_event(slow: Hub) -> None:
    client = slow.connect(1, send_buffer=4096)
    fill(slow, client, 1, policy=_core.POLICY_SKIP)
    for round_ in range(1, 4):
        for _ in range(40):
            slow.publish(b"x" * 1000, policy=_core.POLICY_SKIP)
        wait_until(lambda round_=round_: slow.count("skipped") >= round_)
    last = slow.publish(b"last", policy=_core.POLICY_SKIP)
    assert [e.type for e in events(client, last.body)].count("fastsse.gap") == 1


def test_latest_keeps_the_newest_of_each_topic_in_order_without_a_gap(slow: Hub) -> None:
    slow.sender.add_channel(2, [11, 12, 13])
    client = slow.connect(2, send_buffer=4096)
    fill(slow, client, 11, policy=_core.POLICY_LATEST)
    rare = slow.publish(b"rare", 12, policy=_core.POLICY_LATEST)
    shared = slow.publish(b"shared", 12, 13, policy=_core.POLICY_LATEST)
    for n in range(60):
        newest = slow.publish(b"%d " % n + b"x" * 1000, 11, policy=_core.POLICY_LATEST)
    wait_until(lambda: slow.count("lapped") >= 1)
    got = events(client, newest.body)
    data = [event.data for event in got]
    assert rare.body.decode() not in client.got.decode()
    assert data.count("shared") == 1
    assert data[-1].startswith("59 ")
    assert sum(text.endswith("xxx") for text in data) < 60, "what is superseded was left out"
    assert not [event for event in got if event.type == "fastsse.gap"]
    ids = [int(event.last_event_id.split("-")[1]) for event in got]
    assert ids == sorted(set(ids)), "in order and none twice"
    assert shared.position


def test_latest_on_a_channel_of_everything_takes_every_topics_newest(slow: Hub) -> None:
    slow.sender.add_channel(2, [_core.EVERY_EVENT])
    client = slow.connect(2, send_buffer=4096)
    fill(slow, client, 21, policy=_core.POLICY_LATEST)
    for n in range(60):
        for topic in (21, 22, 23):
            newest = slow.publish(
                b"%d/%d" % (topic, n) + b"x" * 300, topic, policy=_core.POLICY_LATEST
            )
    wait_until(lambda: slow.count("lapped") >= 1)
    got = events(client, newest.body)
    assert [event.data[:5] for event in got][-3:] == ["21/59", "22/59", "23/59"]
    ids = [int(event.last_event_id.split("-")[1]) for event in got]
    assert ids == sorted(set(ids))


def test_latest_over_and_over_repeats_nothing(slow: Hub) -> None:
    client = slow.connect(1, send_buffer=4096)
    slow.sender.link(2, 1)
    fill(slow, client, 1, policy=_core.POLICY_LATEST)
    for _ in range(30):
        for n in range(30):
            newest = slow.publish(b"x" * 900, 1 + n % 2, policy=_core.POLICY_LATEST)
        slow.settle()
        client.got += client.peer.recv(700)
        slow.sender.advance_clock(100)
    got = events(client, newest.body)
    ids = [int(event.last_event_id.split("-")[1]) for event in got]
    assert ids == sorted(set(ids))


def test_a_stricter_event_after_a_lap_is_not_left_out(slow: Hub) -> None:
    slow.sender.link(2, 1)
    client = slow.connect(1, send_buffer=4096)
    fill(slow, client, 1, policy=_core.POLICY_LATEST)
    for _ in range(60):
        slow.publish(b"x" * 1000, 1, policy=_core.POLICY_LATEST)
    wait_until(lambda: slow.count("lapped") == 1)
    slow.publish(b"must arrive", 2, policy=_core.POLICY_DISCONNECT)
    newest = slow.publish(b"newest", 1, policy=_core.POLICY_LATEST)
    slow.settle()
    got = client.read_to_end() if slow.count("closed_lagged") else b""
    while not got.endswith(newest.body) and slow.count("closed_lagged") == 0:
        got += client.peer.recv(1 << 16)
    assert b"must arrive" in got or slow.count("closed_lagged") == 1


def test_a_thousand_topics_are_given_a_lapped_reader_a_visit_at_a_time(slow: Hub) -> None:
    slow.sender.add_channel(2, [_core.EVERY_EVENT])
    client = slow.connect(2, send_buffer=4096)
    fill(slow, client, 5, policy=_core.POLICY_LATEST)
    for round_ in range(3):
        for topic in range(10, 1010):
            newest = slow.publish(b"%d" % round_, topic, policy=_core.POLICY_LATEST)
    wait_until(lambda: slow.count("lapped") == 1)
    held = slow.sender.memory_bytes
    slow.sender.advance_clock(3000)
    assert slow.sender.memory_bytes <= held
    got = [event for event in events(client, newest.body) if len(event.data) == 1]
    assert [event.data for event in got][-1000:] == ["2"] * 1000
    ids = [int(event.last_event_id.split("-")[1]) for event in got]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize(
    ("policies", "outcome"),
    [
        ((_core.POLICY_LATEST, _core.POLICY_SKIP), "skipped"),
        ((_core.POLICY_SKIP, _core.POLICY_LATEST), "skipped"),
        ((_core.POLICY_SKIP, _core.POLICY_DISCONNECT), "closed_lagged"),
        ((_core.POLICY_LATEST, _core.POLICY_DISCONNECT), "closed_lagged"),
    ],
)
def test_the_strictest_policy_of_the_span_wins(
    slow: Hub, policies: tuple[int, int], outcome: str
) -> None:
    client = slow.connect(1, send_buffer=4096)
    fill(slow, client, 1, policy=policies[0])
    for _ in range(30):
        slow.publish(b"x" * 1000, policy=policies[0])
        slow.publish(b"x" * 1000, policy=policies[1])
    wait_until(lambda: slow.count(outcome) >= 1)


def test_a_head_that_is_never_read_ends_the_stream_in_time(slow: Hub) -> None:
    big = _core.raw_frame(b": " + b"x" * 400_000 + b"\n")
    client = slow.connect(1, send_buffer=4096, first=(_core.wire_frame(HEAD), big))
    slow.wait_count("blocked", 1)
    slow.sender.advance_clock(6000)
    assert slow.wait_closed(client)[3] == "lagged"


def test_a_slow_client_is_not_felt_by_the_others(slow: Hub) -> None:
    stuck = [slow.connect(1, send_buffer=4096) for _ in range(10)]
    fast = slow.connect(1)
    sent = []
    for _ in range(100):
        sent.append(slow.publish(b"z" * 500))
        fast.gets(sent[-1])
    assert len(stuck) == 10


def test_memory_of_a_stuck_channel_stays_bounded(slow: Hub) -> None:
    slow.connect(1, send_buffer=4096)
    for _ in range(2000):
        slow.publish(b"x" * 1000, policy=_core.POLICY_SKIP)
    slow.settle()
    wait_until(lambda: slow.sender.memory_bytes < 120_000)
