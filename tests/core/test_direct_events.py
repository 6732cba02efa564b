"""Frames for one stream and frames for all: at a frame boundary, in the order of commands."""

import pytest

from fastsse import _core
from tests.core.conftest import HEAD, Client, Hub, MakeHub, wait_until

FAULTS = [{}, {"write_limit_bytes": 1}, {"write_limit_bytes": 7}, {"refuse_every": 2}]


def note(text: str) -> _core.Frame:
    return _core.raw_frame(f"event: note\ndata: {text}\n\n".encode())


def gets(hub: Hub, client: Client, *frames: _core.Frame) -> None:
    """These arrive, in this order, however writes are cut and refused."""
    want = client.wire(*frames)

    def arrived() -> bool:
        hub.sender.advance_clock(50)
        client.got += client.peer.recv(len(want) - len(client.got))
        return len(client.got) == len(want)

    wait_until(arrived)
    assert client.got == want


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("faults", FAULTS)
def test_a_frame_for_one_stream_comes_between_two_events(
    make_hub: MakeHub, faults: dict[str, int], chunked: bool
) -> None:
    hub = make_hub(heartbeat_ms=0, **faults)
    hub.sender.add_channel(1, [1])
    client, other = hub.connect(1, chunked=chunked), hub.connect(1)
    for n in range(10):
        hub.publish(b"%d" % n * n)
        assert hub.sender.send_direct(client.handle, note(f"for you {n}"))
    want = [hub.publish(b"end")]

    def arrived() -> bool:
        hub.sender.advance_clock(50)
        client.got += client.peer.recv(1 << 16)
        return client.got.endswith(client.wire(*want))

    wait_until(arrived)
    for n in range(10):
        assert client.got.count(client.wire(note(f"for you {n}"))) == 1
    bodies = client.got
    for n in range(10):
        bodies = bodies.replace(client.wire(note(f"for you {n}")), b"")
    assert bodies.count(b"data: ") == 11, "no event was cut in two"
    wait_until(lambda: hub.count("direct") == 10)
    assert b"for you" not in other.peer.recv(1 << 16)


def test_an_ended_stream_is_sent_nothing(hub: Hub) -> None:
    client = hub.connect(1)
    client.peer.close()
    hub.wait_closed(client)
    assert not hub.sender.send_direct(client.handle, note("late"))
    again = hub.connect(1)
    assert not hub.sender.send_direct(client.handle, note("for the slot's next one"))
    assert again.is_silent()


def test_frames_for_a_stream_that_does_not_read_are_bounded(make_hub: MakeHub) -> None:
    hub = make_hub(max_lag_bytes=20_000)
    hub.sender.add_channel(1, [1])
    client = hub.connect(1, send_buffer=4096)
    closed: list[object] = []
    while not closed:
        hub.sender.send_direct(client.handle, note("x" * 1000))
        hub.settle()
        assert hub.sender.memory_bytes < 60_000
        closed = [notice for notice in hub.take() if notice[0] == "closed"]
    assert hub.count("closed_lagged") == 1


@pytest.mark.parametrize("faults", FAULTS)
def test_an_announcement_reaches_every_stream_in_the_order_of_commands(
    make_hub: MakeHub, faults: dict[str, int]
) -> None:
    hub = make_hub(heartbeat_ms=0, **faults)
    hub.sender.add_channel(1, [1])
    hub.sender.add_channel(2, [2], [2])
    hub.sender.add_channel(3, [_core.EVERY_EVENT])
    hub.sender.add_channel(4, [])
    one, two, three, four = (hub.connect(n) for n in (1, 2, 3, 4))
    before = hub.publish(b"before", 1, 2)
    hub.sender.announce(told := note("gap"))
    after = hub.publish(b"after", 1, 2)
    for client in (one, two, three):
        gets(hub, client, before, told, after)
    gets(hub, four, told)
    assert hub.count("announced") == 1


def test_a_replaying_stream_gets_an_announcement_between_its_pages(hub: Hub) -> None:
    page = [_core.raw_frame(b"data: %d\n\n" % n) for n in range(3)]
    client = hub.connect(1, live=False, first=(_core.wire_frame(HEAD), page[0]))
    hub.sender.announce(told := note("gap"))
    wait_until(lambda: ("page", client.handle) in hub.take())
    assert hub.sender.page(client.handle, page[1], False)
    assert hub.sender.page(client.handle, page[2], True)
    live = hub.publish(b"live")
    want = HEAD + client.wire(page[0], told, page[1], page[2], live)
    assert client.read_until(live.body) == want


def test_an_announcement_is_never_left_out(make_hub: MakeHub) -> None:
    """A reader that lags over it is disconnected, so that it receives a gap when it comes again."""
    hub = make_hub(max_lag_bytes=20_000, tick_ms=1)
    hub.sender.add_channel(1, [1])
    client = hub.connect(1, send_buffer=4096)
    while hub.count("blocked") == 0:
        hub.publish(b"f" * 3000, policy=_core.POLICY_LATEST)
        hub.settle()
    hub.sender.announce(note("gap"))
    for _ in range(40):
        hub.publish(b"x" * 1000, policy=_core.POLICY_LATEST)
    assert hub.wait_closed(client)[3] == "lagged"


def test_a_skip_after_an_announcement_names_no_place_that_is_none(make_hub: MakeHub) -> None:
    hub = make_hub(max_lag_bytes=20_000, tick_ms=1)
    hub.sender.add_channel(1, [1])
    client = hub.connect(1, send_buffer=4096)
    hub.sender.announce(told := note("gap"))
    client.gets(told)
    while hub.count("skipped") == 0:
        hub.publish(b"f" * 3000, policy=_core.POLICY_SKIP)
        hub.settle()
    last = hub.publish(b"last", policy=_core.POLICY_SKIP)
    assert b'"0-0"' not in client.read_until(last.body)


def test_a_frame_that_is_none_of_a_stream_is_refused(hub: Hub) -> None:
    client = hub.connect(1)
    for give in (hub.sender.announce, lambda frame: hub.sender.send_direct(client.handle, frame)):
        with pytest.raises(ValueError, match="wire frame"):
            give(_core.wire_frame(b"x"))
    assert client.is_silent()
