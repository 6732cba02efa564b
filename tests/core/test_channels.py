"""Which connection gets which event, and that each gets it once."""

import random

import pytest

from fastsse import _core
from tests.core.conftest import Client, Hub


def bodies(*frames: _core.Frame) -> bytes:
    return b"".join(frame.body for frame in frames)


def test_an_event_reaches_every_channel_of_its_topic_and_no_other(hub: Hub) -> None:
    hub.sender.add_channel(2, [1, 2])
    hub.sender.add_channel(3, [3])
    one, two, three = hub.connect(1), hub.connect(2), hub.connect(3)
    a, b, c = hub.publish(b"a", 1), hub.publish(b"b", 2), hub.publish(b"c", 3)
    assert one.read_until(a.body) == a.body
    assert two.read_until(b.body) == bodies(a, b)
    assert three.read_until(c.body) == c.body


def test_an_event_with_several_matching_topics_arrives_once(hub: Hub) -> None:
    hub.sender.add_channel(2, [1, 2, 3, _core.EVERY_EVENT])
    client = hub.connect(2)
    frames = [hub.publish(b"x", 1, 2, 3), hub.publish(b"y", 3, 1)]
    assert client.read_until(frames[-1].body) == bodies(*frames)


def test_topic_zero_is_every_event(hub: Hub) -> None:
    hub.sender.add_channel(9, [_core.EVERY_EVENT])
    client = hub.connect(9)
    frames = [hub.publish(b"a", 5), hub.publish(b"b", 6), hub.publish(b"c", 1)]
    assert client.read_until(frames[-1].body) == bodies(*frames)


def test_a_channel_linked_later_gets_what_comes_later(hub: Hub) -> None:
    client = hub.connect(1)
    before = hub.publish(b"before", 7)
    hub.sender.link(7, 1)
    after = hub.publish(b"after", 7)
    assert client.read_until(after.body) == after.body
    assert before.body not in client.got


def test_a_newcomer_gets_what_is_published_after_it_joined_and_nothing_before(hub: Hub) -> None:
    hub.publish(b"before")
    client = hub.connect(1)
    after = hub.publish(b"after")
    assert client.read_until(after.body) == after.body


def test_a_removed_topic_number_can_be_used_again(hub: Hub) -> None:
    client = hub.connect(1)
    hub.sender.remove_topic(1)
    hub.publish(b"lost", 1)
    hub.sender.add_channel(2, [1])
    other = hub.connect(2)
    frame = hub.publish(b"new", 1)
    assert other.read_until(frame.body) == frame.body
    assert client.is_silent()


def test_a_removed_channel_number_can_be_used_again(hub: Hub) -> None:
    hub.sender.add_channel(2, [2])
    gone = hub.connect(2)
    gone.peer.close()
    hub.wait_closed(gone)
    hub.sender.remove_channel(2)
    hub.publish(b"unread", 2)
    hub.sender.add_channel(2, [3])
    client = hub.connect(2)
    hub.publish(b"not this", 2)
    frame = hub.publish(b"this", 3)
    assert client.read_until(frame.body) == frame.body


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_joining_linking_and_leaving_keeps_every_stream_exact(
    hub: Hub, seed: int
) -> None:
    """A model: each client's expected bytes are kept with it."""
    dice = random.Random(seed)
    links: dict[int, set[int]] = {}
    want: dict[Client, tuple[int, list[_core.Frame]]] = {}
    for step in range(600):
        what = dice.random()
        if what < 0.1 and len(links) < 30:
            channel = next(n for n in range(2, 100) if n not in links)
            links[channel] = set(dice.sample(range(1, 12), dice.randint(1, 4)))
            hub.sender.add_channel(channel, sorted(links[channel]))
        elif what < 0.2 and links and len(want) < 60:
            channel = dice.choice(sorted(links))
            want[hub.connect(channel, chunked=bool(step % 2))] = (channel, [])
        elif what < 0.25 and links:
            channel = dice.choice(sorted(links))
            if new := set(range(1, 12)) - links[channel]:
                topic = dice.choice(sorted(new))
                links[channel].add(topic)
                hub.sender.link(topic, channel)
        elif what < 0.3 and want:
            client = dice.choice(list(want))
            channel, _ = want.pop(client)
            client.peer.close()
            hub.wait_closed(client)
            if all(other != channel for other, _ in want.values()):
                hub.sender.remove_channel(channel)
                del links[channel]
        else:
            topics = tuple(dice.sample(range(1, 12), dice.randint(1, 3)))
            frame = hub.publish(b"%d" % step, *topics)
            for channel, frames in want.values():
                if links[channel] & set(topics):
                    frames.append(frame)
    hub.settle()
    for client, (_, frames) in want.items():
        client.gets(*frames)
    assert all(client.is_silent() for client in want)


def test_ten_thousand_channels_on_one_topic_come_and_go(hub: Hub) -> None:
    for number in range(2, 10_002):
        hub.sender.add_channel(number, [5, 10_000 + number])
    hub.publish(b"x", 5)
    for number in range(2, 10_002):
        hub.sender.remove_channel(number)
    hub.wait_count("channels", 1)
