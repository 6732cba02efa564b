"""Private events: linked to one of the topics and granted one of them, by whatever path."""

import random

import pytest

from fastsse import _core
from tests.core.conftest import Client, Hub, MakeHub, wait_until
from tests.eventstream import parse

EVERY = _core.EVERY_EVENT


def fill(hub: Hub, topic: int, policy: int) -> None:
    """Publishes until a reader's socket takes no more."""
    while hub.count("blocked") == 0:
        hub.publish(b"f" * 3000, topic, policy=policy)
        hub.settle()


def data_of(client: Client, until: bytes) -> list[str]:
    return [event.data for event in parse(client.read_until(until)).events]


def test_a_private_event_reaches_only_who_is_linked_and_granted(hub: Hub) -> None:
    hub.sender.add_channel(2, [1], [1])
    hub.sender.add_channel(3, [2], [1])
    open_, granted, elsewhere = hub.connect(1), hub.connect(2), hub.connect(3)
    private = hub.publish(b"private", 1, private=True)
    public = hub.publish(b"public", 1, 2)
    open_.gets(public)
    granted.gets(private, public)
    elsewhere.gets(public)


def test_link_and_grant_may_be_by_different_topics(hub: Hub) -> None:
    """Mercure's alternate topics."""
    hub.sender.add_channel(2, [1], [2])
    client = hub.connect(2)
    hub.publish(b"not one of mine", 1, private=True)
    hub.publish(b"not asked for", 2, private=True)
    mine = hub.publish(b"mine", 1, 2, private=True)
    client.gets(mine)
    assert client.is_silent()


@pytest.mark.parametrize("links", [[EVERY], [7]])
def test_topic_zero_grants_everything(hub: Hub, links: list[int]) -> None:
    hub.sender.add_channel(2, links, [EVERY])
    client = hub.connect(2)
    client.gets(hub.publish(b"a", 7, private=True), hub.publish(b"b", 7, 8, private=True))


def test_a_link_to_everything_grants_nothing(hub: Hub) -> None:
    hub.sender.add_channel(2, [EVERY])
    client = hub.connect(2)
    hub.publish(b"private", 1, private=True)
    client.gets(hub.publish(b"public", 9))
    hub.sender.grant(1, 2)
    client.gets(hub.publish(b"granted since", 1, private=True))


def test_a_forgotten_topics_grants_are_not_its_numbers_next_topics(hub: Hub) -> None:
    hub.sender.add_channel(2, [EVERY], [5])
    client = hub.connect(2)
    hub.sender.remove_topic(5)
    hub.publish(b"another topic by now", 5, private=True)
    hub.sender.grant(5, 2)
    client.gets(hub.publish(b"granted again", 5, private=True))


def test_a_removed_channels_grants_are_not_its_numbers_next_channels(hub: Hub) -> None:
    hub.sender.add_channel(2, [1], [1, EVERY])
    hub.sender.remove_channel(2)
    hub.sender.add_channel(2, [1])
    client = hub.connect(2)
    hub.publish(b"private", 1, private=True)
    client.gets(hub.publish(b"public", 1))


def test_to_grant_or_link_twice_is_to_do_it_once(hub: Hub) -> None:
    hub.sender.add_channel(2, [1, 1], [1, 1])
    hub.sender.link(1, 2)
    hub.sender.grant(1, 2)
    client = hub.connect(2)
    client.gets(hub.publish(b"a", 1, private=True), hub.publish(b"b", 1))
    hub.sender.remove_topic(1)
    hub.sender.link(1, 2)
    hub.publish(b"c", 1, private=True)
    client.gets(hub.publish(b"d", 1))


def test_a_grant_of_no_topic_is_refused_and_changes_nothing(hub: Hub) -> None:
    for bad in (-1, 1 << 28):
        with pytest.raises(ValueError, match="out of range"):
            hub.sender.grant(bad, 1)
        with pytest.raises(ValueError, match="out of range"):
            hub.sender.add_channel(2, [1], [bad])
    hub.sender.grant(1, 4711)
    hub.settle()
    assert hub.count("channels") == 1


def test_a_hundred_thousand_topics_and_grants_of_one_channel_come_and_go(hub: Hub) -> None:
    many = range(10, 100_010)
    hub.sender.add_channel(2, many, many)
    hub.sender.add_channel(3, many)
    client = hub.connect(2)
    client.gets(hub.publish(b"a", 77_777, private=True))
    for topic in range(10, 90_010):
        hub.sender.remove_topic(topic)
    client.gets(hub.publish(b"b", 99_999, private=True))
    hub.sender.remove_channel(3)
    hub.wait_count("channels", 2)


# ---- what a slow reader gets instead ------------------------------------------------------------


@pytest.fixture
def slow(make_hub: MakeHub) -> Hub:
    """Lag is over after 20,000 bytes. Channel 1 has no grant, channel 2 has one of topic 1."""
    hub = make_hub(max_lag_bytes=20_000, max_lag_ms=5_000, tick_ms=1)
    hub.sender.add_channel(1, [1, 3])
    hub.sender.add_channel(2, [1, 3], [1])
    return hub


def lap(hub: Hub, channel: int, *, links: tuple[int, ...] = ()) -> Client:
    """A reader that is further behind than it may, of events with policy `latest`."""
    client = hub.connect(channel, send_buffer=4096)
    for topic in links:
        hub.sender.link(topic, channel)
    fill(hub, 3, _core.POLICY_LATEST)
    return client


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("granted", [False, True])
def test_the_last_value_is_the_newest_that_one_may_see(
    slow: Hub, granted: bool, many: bool
) -> None:
    # A channel of many topics finds its last values by another way.
    client = lap(slow, 1 + granted, links=tuple(range(100, 300)) if many else ())
    slow.publish(b"public", 1, policy=_core.POLICY_LATEST)
    slow.publish(b"private", 1, policy=_core.POLICY_LATEST, private=True)
    for _ in range(40):
        slow.publish(b"x" * 1000, 3, policy=_core.POLICY_LATEST)
    wait_until(lambda: slow.count("lapped") == 1)
    last = slow.publish(b"last", 3, policy=_core.POLICY_LATEST)
    got = data_of(client, last.body)
    assert ("private" in got, "public" in got) == (granted, not granted)


def test_a_public_event_replaces_a_private_last_value(slow: Hub) -> None:
    client = lap(slow, 2)
    slow.publish(b"private", 1, policy=_core.POLICY_LATEST, private=True)
    slow.publish(b"public", 1, policy=_core.POLICY_LATEST)
    for _ in range(40):
        slow.publish(b"x" * 1000, 3, policy=_core.POLICY_LATEST)
    wait_until(lambda: slow.count("lapped") == 1)
    got = data_of(client, slow.publish(b"last", 3, policy=_core.POLICY_LATEST).body)
    assert ("private" in got, "public" in got) == (False, True)


def test_a_stream_behind_a_private_event_of_several_topics_receives_a_gap(slow: Hub) -> None:
    client = lap(slow, 2)
    slow.publish(b"private", 1, 3, policy=_core.POLICY_LATEST, private=True)
    for _ in range(40):
        slow.publish(b"x" * 1000, 3, policy=_core.POLICY_LATEST)
    wait_until(lambda: slow.count("skipped") >= 1)
    last = slow.publish(b"last", 3, policy=_core.POLICY_LATEST)
    events = parse(client.read_until(last.body)).events
    assert "fastsse.gap" in [event.type for event in events]


@pytest.mark.parametrize("policy", [_core.POLICY_SKIP, _core.POLICY_LATEST])
def test_private_events_are_no_lag_of_who_may_not_see_them(slow: Hub, policy: int) -> None:
    client = slow.connect(1, send_buffer=4096)
    fill(slow, 3, policy)
    for _ in range(100):
        slow.publish(b"secret" * 200, 1, policy=policy, private=True)
    last = slow.publish(b"last", 1, policy=policy)
    slow.settle()
    slow.sender.advance_clock(2_000)
    got = data_of(client, last.body)
    assert not [text for text in got if "secret" in text]
    assert slow.count("skipped") == slow.count("lapped") == slow.count("closed_lagged") == 0


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_linked_granted_and_forgotten_each_stream_is_exact(
    make_hub: MakeHub, seed: int
) -> None:
    """A model, with every write cut short on odd seeds: what each client must get is kept too."""
    hub = make_hub(write_limit_bytes=seed % 2 * 11)
    dice = random.Random(seed)
    links: dict[int, set[int]] = {}
    grants: dict[int, set[int]] = {}
    want: dict[Client, tuple[int, list[_core.Frame]]] = {}
    for step in range(800):
        what = dice.random()
        channel = dice.choice(sorted(links)) if links else 0
        topic = dice.randrange(1, 20)
        if what < 0.08 and len(links) < 20:
            channel = len(links) + 1
            links[channel] = set(dice.sample(range(20), dice.randint(1, 12)))
            grants[channel] = set(dice.sample(range(20), dice.choice([0, 1, 2, 12])))
            hub.sender.add_channel(channel, links[channel], grants[channel])
            want[hub.connect(channel)] = (channel, [])
        elif what < 0.12 and channel:
            links[channel].add(topic)
            hub.sender.link(topic, channel)
        elif what < 0.18 and channel:
            grants[channel].add(topic)
            hub.sender.grant(topic, channel)
        elif what < 0.22:
            hub.sender.remove_topic(topic)
            for of in (*links.values(), *grants.values()):
                of.discard(topic)
        elif what < 0.25 and channel and len(want) < 50:
            want[hub.connect(channel)] = (channel, [])
        else:
            topics = set(dice.sample(range(1, 20), dice.randint(1, 3)))
            private = dice.random() < 0.6
            frame = hub.publish(b"%d" % step, *topics, private=private)
            for channel, frames in want.values():
                if links[channel] & {*topics, EVERY} and (
                    not private or grants[channel] & {*topics, EVERY}
                ):
                    frames.append(frame)
    hub.settle()
    for client, (_, frames) in want.items():
        client.gets(*frames)
    assert all(client.is_silent() for client in want)
