"""A client that asks for what it may not see takes no more of the server's time than others."""

import pytest

from fastsse.auth.rights import Rights
from fastsse.hub import history, time_budget
from fastsse.positions import format_position
from fastsse.subscriptions import Cursor
from tests.hub.conftest import make_node, node
from tests.hub.onenode import Node

__all__ = ["make_node", "node"]

HIDDEN = 40


@pytest.fixture(autouse=True)
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look ends after so many private events, and there is one a sweep."""
    monkeypatch.setattr(history, "LEFT_OUT_MAX", 5)
    monkeypatch.setattr(time_budget, "BURST_S", 0.0)


@pytest.fixture
def judged(node: Node, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the private events that were judged, in the last place those since it was added."""
    counts = [0]
    may_read = node.hub.history._may_read

    def counted(*arguments: object) -> bool:
        counts[-1] += 1
        return may_read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(node.hub.history, "_may_read", counted)
    return counts


def hide(node: Node, topic: str = "a") -> None:
    for number in range(HIDDEN):
        node.publish(topic, f"hidden {number}", private=True)


@pytest.mark.parametrize("topics", [["a"], ["*"], ["{x}"], ["a", "b"]])
def test_a_replay_looks_at_a_few_hidden_events_at_a_time_and_misses_none_of_its_own(
    node: Node, judged: list[int], topics: list[str]
) -> None:
    start = node.publish("a", "0")
    hide(node)
    node.publish("a", "1")
    hide(node)
    client = node.resume(*topics, after=start)
    assert judged == [history.LEFT_OUT_MAX] or client.body == b""
    node.publish("a", "2")
    assert node.run_until_received(client, 2) == ["1", "2"]
    node.publish("a", "3")
    assert node.run_until_received(client, 3) == ["1", "2", "3"]
    assert node.hub.streams.replays == 0


def test_a_stream_that_ends_while_it_searches_leaves_nothing(node: Node) -> None:
    start = node.publish("a", "0")
    hide(node)
    client = node.resume("a", after=start)
    assert node.hub.streams.replays == 1
    node.hub.streams.close(client.handle, 1)
    node.run_until(lambda: bool(node.closed))
    assert node.hub.streams.replays == 0


def test_the_last_few_are_looked_for_behind_a_few_hidden_ones_only(
    node: Node, judged: list[int]
) -> None:
    for number in range(3):
        node.publish("a", str(number))
    hide(node)
    node.publish("a", "newest")
    client = node.subscribe("a", cursor=Cursor("last", 2))
    assert judged[-1] <= 2 * history.LEFT_OUT_MAX
    node.publish("a", "live")
    assert node.run_until_received(client, 2) == ["newest", "live"]


def test_who_may_see_them_gets_them_all(node: Node) -> None:
    start = node.publish("a", "0")
    hide(node)
    client = node.resume("a", after=start, rights=Rights(subscribe=["a"]))
    assert len(node.run_until_received(client, HIDDEN)) == HIDDEN


CURSORS = [
    Cursor("head"),
    Cursor("last", 3),
    Cursor("last", 0),
    Cursor("earliest"),
    Cursor("since", 4_000_000_000_000),
    Cursor("after", "never-was"),
    Cursor("after", "99999999999999-1"),
]


@pytest.mark.parametrize("cursor", CURSORS, ids=lambda cursor: f"{cursor.kind}-{cursor.value}")
@pytest.mark.parametrize("grants", [None, ["mine"]])
@pytest.mark.parametrize("topics", [["quiet"], ["*"], ["mine", "quiet"]])
def test_no_stream_names_the_place_of_an_event_that_it_may_not_see(
    node: Node, topics: list[str], grants: list[str] | None, cursor: Cursor
) -> None:
    node.publish("other", "public")
    mine = node.publish("mine", "private", private=True)
    rights = None if grants is None else Rights(subscribe=grants)
    sees_mine = grants is not None and topics != ["quiet"]
    public = format_position(node.hub.history.public_head).decode()
    hidden = [node.publish("hidden", str(number), private=True) for number in range(3)]
    client = node.subscribe(*topics, cursor=cursor, rights=rights)
    node.run_until(lambda: client.stream.last_event_id != "" and node.hub.streams.replays == 0)
    told = client.stream.last_event_id
    assert told not in hidden
    assert told == (mine if sees_mine else public)
    # And from there on nothing is missing, nothing comes again, and no gap is made up.
    node.hang_up(client)
    back = node.resume(*topics, after=told, rights=rights)
    node.publish("quiet", "next")
    assert node.run_until_received(back, 1) == ["next"]
    assert back.gaps == []
