"""What an operator sees of single connections, while the sender goes on."""

from typing import Any

import pytest

from fastsse import _core
from tests.core.conftest import Hub, MakeHub, wait_until


def inspected(hub: Hub, number: int) -> Any:
    """The notice of an inspection."""
    assert number

    def found() -> list[Any]:
        return [one for one in hub.take() if one[0] == "inspected" and one[1] == number]

    wait_until(lambda: bool(found()))
    return found()[0]


def test_figures_are_those_of_what_a_client_was_sent(hub: Hub) -> None:
    client = hub.connect(1, first=(_core.wire_frame(b"HEAD"),))
    other = hub.connect(1)
    client.read_until(b"HEAD")
    frames = [hub.publish(b"x" * size) for size in (1, 100)]
    client.gets(*frames) if client.got == b"" else client.read_until(b"x\n\n")
    hub.wait_count("deliveries", 4)
    _, _, rows, _ = inspected(hub, hub.sender.inspect([client.handle, other.handle]))
    sent = sum(frame.size for frame in frames)
    assert [row[:5] for row in rows] == [
        (client.handle, "live", 2, len(b"HEAD") + sent, 0),
        (other.handle, "live", 2, sent, 0),
    ]
    assert all(row[6] < 60 for row in rows)


def test_a_client_that_does_not_read_is_found_with_what_it_has_not(hub: Hub) -> None:
    slow = hub.connect(1, send_buffer=4096)
    hub.connect(1)
    while not hub.count("blocked"):
        hub.publish(b"y" * 2000)
        hub.settle()
    for _ in range(3):
        hub.publish(b"z" * 1000)
    hub.settle()
    number = hub.sender.inspect_blocked(0)
    _, _, rows, following = inspected(hub, number)
    blocked = [row for row in rows if row[0] == slow.handle]
    assert len(blocked) == 1
    assert blocked[0][1] == "blocked"
    assert blocked[0][4] >= 3000
    assert following == 64


def test_stale_and_unknown_handles_have_no_row(hub: Hub) -> None:
    gone = hub.connect(1)
    here = hub.connect(1)
    gone.peer.close()
    hub.wait_closed(gone)
    _, _, rows, _ = inspected(hub, hub.sender.inspect([gone.handle, here.handle, 0, 1 << 60]))
    assert [row[0] for row in rows] == [here.handle]


def test_a_row_that_is_not_attached_yet_is_opening(hub: Hub) -> None:
    handle = hub.sender.allocate()
    _, _, rows, _ = inspected(hub, hub.sender.inspect([handle]))
    assert rows == [(handle, "opening", 0, 0, 0, 0.0, 0.0)]
    hub.sender.release(handle)


def test_too_many_rows_are_refused_and_too_many_questions_wait(hub: Hub) -> None:
    with pytest.raises(ValueError, match="at most 256"):
        hub.sender.inspect([1] * 257)
    with pytest.raises(OverflowError):
        hub.sender.inspect([-1])
    numbers = [hub.sender.inspect([]) for _ in range(65)]
    assert numbers[:64] == list(range(1, 65))
    assert numbers[64] == 0
    inspected(hub, 64)
    assert hub.sender.inspect([]) == 65


def test_inspections_under_way_are_freed_with_the_sender(make_hub: MakeHub) -> None:
    before = _core.native_bytes_held()
    hub = make_hub()
    for _ in range(64):
        hub.sender.inspect([])
    hub.sender.stop()
    assert _core.native_bytes_held() <= before
    with pytest.raises(RuntimeError):
        hub.sender.inspect([])


def test_an_ended_stream_still_has_its_name(hub: Hub) -> None:
    client = hub.connect(1)
    name = hub.sender.stream_id(client.handle)
    client.peer.close()
    hub.wait_closed(client)
    assert hub.sender.stream_id(client.handle, True) == name
    assert hub.sender.find_stream(name) == 0
