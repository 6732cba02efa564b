"""What others hear of a stream on its way to live: that it got there or ended, and its pages."""

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest

from fastsse.auth.rights import Rights
from fastsse.errors import Unavailable
from fastsse.hub import history
from fastsse.hub.resume import replayer
from fastsse.hub.resume.preamble import ReplayingStream
from fastsse.hub.time_budget import TimeBudget
from fastsse.positions import format_position
from fastsse.subscriptions import Cursor
from tests.hub.afterrestart import BIG, PAGE_BYTES, reasons, restarted
from tests.hub.onenode import Client, MakeNode, Node
from tests.hub.storednode import Disk


def waiting(make_node: MakeNode) -> tuple[Node, Client]:
    """A node whose store has not answered its stream yet."""
    before = make_node(disk=Disk())
    first = before.publish("a", "0")
    before.publish("a", "1")
    node = restarted(make_node, before)
    node.store.holds = True
    return node, node.resume("a", after=first)


def test_a_caller_is_notified_once_when_a_stream_is_live(make_node: MakeNode) -> None:
    node, client = waiting(make_node)
    streams, calls = node.hub.streams, list[str]()
    assert streams.when_live(client.handle, lambda: calls.append("live"))
    streams.read_notices()
    assert calls == []
    node.run_until(lambda: node.hub.streams.replays == 0)
    streams.read_notices()
    assert calls == ["live"]
    node.publish("a", "2")
    assert node.run_until_received(client, 2) == ["1", "2"]
    streams.read_notices()
    assert calls == ["live"]
    assert not streams.when_live(client.handle, lambda: calls.append("again"))


def test_a_caller_is_notified_when_a_stream_ends_before_it_is_live(make_node: MakeNode) -> None:
    node, client = waiting(make_node)
    calls: list[str] = []
    assert node.hub.streams.when_live(client.handle, lambda: calls.append("ended"))
    node.hub.streams.close(client.handle, 6)
    node.hub.streams.read_notices()
    assert calls == ["ended"]


def test_each_page_of_a_replay_is_reported_with_its_bytes(make_node: MakeNode) -> None:
    node = make_node(page_bytes=PAGE_BYTES)
    for n in range(12):
        node.publish("a", f"{n} {BIG}")
    pages: list[tuple[int, int]] = []
    node.hub.streams.watch_replays(lambda handle, size: pages.append((handle, size)))
    client = node.subscribe("a", cursor=Cursor("earliest"), receive_bytes=4096)
    assert len(pages) == 1, "the first page comes with the opening"
    node.run_until_received(client, 12)
    assert {handle for handle, _ in pages} == {client.handle}
    assert len(pages) == 3
    events = node.hub.history.page(None, 0).frames
    assert sum(size for _, size in pages) == sum(frame.size for frame in events)
    node.subscribe("a")
    assert len(pages) == 3, "a stream at the head is sent no page"


def test_pages_of_a_snapshot_are_reported_too(make_node: MakeNode) -> None:
    node = make_node()
    node.publish("a", "1")
    pages: list[tuple[int, int]] = []
    node.hub.streams.watch_replays(lambda handle, size: pages.append((handle, size)))
    client = node.subscribe("a", last_each=1)
    ((handle, size),) = pages
    assert handle == client.handle
    node.run_until(lambda: len(client.stream.events) == 2)
    opening, page = client.body[:-size], client.body[-size:]
    assert opening == b": fastsse\nretry: 3000\n"
    (event,) = node.hub.history.page(None, 0).frames
    assert page.startswith(event.body + b"event: fastsse.snapshot\n")


def test_streams_of_a_store_that_fails_return_at_different_times(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replayer.random, "random", lambda: 0.5)
    node, client = waiting(make_node)
    node.store.fails = True
    node.run_until(lambda: client.is_ended)
    assert client.stream.retry_ms == 4500
    assert node.hub.counters()["replays_failed"] == 1


def test_streams_that_wait_for_memory_go_on_in_their_order(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(page_bytes=PAGE_BYTES)
    for n in range(12):
        node.publish("a", f"{n} {BIG}")
    made = node.hub.streams._replayer
    clients = [node.subscribe("a", cursor=Cursor("earliest"), receive_bytes=4096) for _ in range(3)]
    is_short = True
    monkeypatch.setattr(made, "_must_wait", lambda: is_short)
    pages: list[int] = []
    node.hub.streams.watch_replays(lambda handle, size: pages.append(handle))
    for client in reversed(clients):
        node.clients.remove(client)
    handles = [client.handle for client in clients]
    made._waiting.clear()
    for handle in reversed(handles):
        made.on_page_sent(handle)
    made.on_page_sent(0)
    made.go_on()
    assert pages == []
    assert list(made._waiting) == handles[::-1]
    is_short = False
    made.go_on()
    assert pages == handles[::-1]
    assert not made._waiting
    node.clients += clients
    for client in clients:
        node.run_until_received(client, 12)


def test_the_place_of_a_loss_is_reported_to_streams_that_replay_and_to_live_ones_once(
    make_node: MakeNode,
) -> None:
    node = make_node(page_bytes=PAGE_BYTES)
    for n in range(12):
        node.publish("a", f"{n} {BIG}")
    live = node.subscribe("a")
    slow = node.subscribe("a", cursor=Cursor("earliest"), receive_bytes=4096)
    node.clients.remove(slow)
    place = node.hub.history.lose(node.hub.history.head)
    node.hub.streams.report_loss(place)
    node.publish("a", "after")
    node.run_until_received(live, 1)
    node.clients.append(slow)
    node.run_until(lambda: slow.data[-1:] == ["after"])
    for client in (live, slow):
        assert [gap.last_event_id for gap in client.gaps] == [format_position(place).decode()]
    assert node.hub.streams.gaps["lost"] == 1


# -- errors and ends ----------------------------------------------------------------------------


def test_an_opening_that_fails_while_memory_is_short_leaves_no_stream(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.publish("a", "0")
    made = node.hub.streams._replayer
    monkeypatch.setattr(made, "_must_wait", lambda: True)

    def refuse(*arguments: object) -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as patched:
        patched.setattr(made, "_give", refuse)
        with pytest.raises(RuntimeError, match="no"):
            node.subscribe("a", cursor=Cursor("earliest"))
    assert node.hub.streams.replays == 0
    assert len(node.hub.channels) == 0


def test_an_error_after_the_sender_has_the_socket_is_logged_and_ends_the_stream(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.publish("a", "0")

    def fail(handle: int, size: int) -> None:
        raise RuntimeError("no")

    node.hub.streams.watch_replays(fail)
    monkeypatch.setattr(replayer, "log", logged := Mock())
    client = node.subscribe("a", cursor=Cursor("earliest"))
    logged.exception.assert_called_once()
    node.run_until(lambda: client.is_ended and len(node.closed) == 1)
    assert node.closed[0].reason == "ended"
    assert node.hub.streams.replays == 0


def test_searches_take_turns_and_go_on_within_one_sweep(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "LEFT_OUT_MAX", 2)
    start = node.publish("a", "0")
    for _ in range(7):
        node.publish("a", "hidden", private=True)
    clients = [node.resume("a", after=start) for _ in range(3)]
    made = node.hub.streams._replayer
    handles = [client.handle for client in clients]
    assert list(made._searching) == handles
    looked_at: list[int] = []
    go_on = made._go_on

    def noted(one: ReplayingStream, step: object, given: object) -> None:
        looked_at.append(one.handle)
        go_on(one, step, given)  # type: ignore[arg-type]

    monkeypatch.setattr(made, "_go_on", noted)
    monkeypatch.setattr(made, "_time_budget", TimeBudget(burst_s=60))
    assert made.search() is False
    assert looked_at == handles * 3
    assert node.hub.streams.replays == 0


def test_a_stream_that_left_is_not_gone_on_with_when_the_store_answers(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make_node(disk=Disk())
    first = before.publish("a", "0")
    before.publish("a", "1")
    node = restarted(make_node, before)
    node.store.holds, made, is_short = True, node.hub.streams._replayer, True
    monkeypatch.setattr(made, "_must_wait", lambda: is_short)
    client = node.resume("a", after=first)
    node.run_until(lambda: bool(made._waiting))
    is_short = False
    made.go_on()
    assert len(node.store.held) == 1
    node.hang_up_unanswered(client)
    assert node.store.answer()
    assert node.hub.streams.replays == 0


def test_a_node_that_ended_does_nothing_with_answers_that_come_late(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, _ = waiting(make_node)
    monkeypatch.setattr(replayer, "log", logged := Mock())
    node.hub.streams.abandon()
    assert node.store.answer()
    logged.exception.assert_not_called()
    assert node.hub.streams.replays == 0


def test_a_revocation_passes_by_streams_without_a_token_that_still_wait(
    make_node: MakeNode,
) -> None:
    node, anonymous = waiting(make_node)
    mine = Rights(subject="me", issued_s=5)
    first = node.store.disk.entries[0].position
    client = node.resume("a", after=format_position(first).decode(), rights=mine)
    node.hub.streams.revoke(mine.claims[1], 0, 7)
    node.run_until(lambda: client.is_ended and len(node.closed) == 1)
    assert node.closed[0].handle == client.handle
    assert node.run_until_received(anonymous, 1) == ["1"]


def test_a_node_that_ended_has_nothing_left_to_do(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "LEFT_OUT_MAX", 2)
    node, is_short = make_node(), True
    start = node.publish("a", "0")
    for _ in range(3):
        node.publish("a", "hidden", private=True)
    made = node.hub.streams._replayer
    node.resume("a", after=start)
    monkeypatch.setattr(made, "_must_wait", lambda: is_short)
    client = node.resume("a", after=start)
    made.on_page_sent(client.handle)
    assert (len(made._searching), len(made._waiting)) == (1, 1)
    node.hub.streams.abandon()
    is_short = False
    made.go_on()
    assert made.search() is False


# -- what was read before -----------------------------------------------------------------------


def test_pages_and_snapshots_of_before_a_loss_are_not_sent_after_it(make_node: MakeNode) -> None:
    node = make_node(page_bytes=PAGE_BYTES)
    ids = [node.publish("a", f"{n} {BIG}") for n in range(12)]
    for _ in range(2):
        node.run_until_received(node.resume("a", after=ids[0]), 11)
        node.run_until_received(node.subscribe("a", last_each=1), 1)
    node.hub.streams.report_loss(node.hub.history.lose(node.hub.history.head))
    live = node.publish("a", "live")
    resumed, current = node.resume("a", after=ids[0]), node.subscribe("a", last_each=1)
    node.run_until(lambda: resumed.stream.last_event_id == live == current.stream.last_event_id)
    assert resumed.data == ["live"]
    assert len(resumed.gaps) == 1
    assert current.data[0] == "live"


def test_pages_and_snapshots_of_before_a_deletion_are_not_sent_after_it(
    make_node: MakeNode,
) -> None:
    node = make_node(page_bytes=PAGE_BYTES)
    ids = [node.publish("a", f"{n} {BIG}") for n in range(12)]
    for _ in range(2):
        node.run_until_received(node.resume("a", after=ids[0]), 11)
        node.run_until_received(node.subscribe("a", last_each=12), 12)
    node.hub.delete_event("a", ids[1], Mock())
    resumed, current = node.resume("a", after=ids[0]), node.subscribe("a", last_each=12)
    node.run_until_received(resumed, 10)
    node.run_until_received(current, 11)
    for client in (resumed, current):
        assert ids[1] not in [event.last_event_id for event in client.events]


def test_a_stream_that_waits_for_its_first_page_is_sent_a_gap_for_a_loss_meanwhile(
    make_node: MakeNode,
) -> None:
    node, client = waiting(make_node)
    made = node.hub.streams._replayer
    made.on_lost = lost = Mock()
    node.store.broken("lost", node.store.head)
    lost.assert_called_once()
    node.run_until(lambda: client.data == ["1"])
    assert reasons(client) == ["lost"]


# -- what only the store knows ------------------------------------------------------------------


class Ends:
    """A store's answers about topics that may have ended, now or when the test gives them."""

    def __init__(self, node: Node, answer: object = None) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.held: list[Callable[[Any], None]] = []
        self._answer = answer
        node.store.has_ended = True
        node.store.ended_topics = self._ask  # type: ignore[method-assign]

    def _ask(self, topics: tuple[str, ...], done: Callable[[Any], None]) -> None:
        self.asked.append(topics)
        if self._answer is None:
            self.held.append(done)
        else:
            done(self._answer)


def stored(make_node: MakeNode) -> tuple[Node, list[str]]:
    """A node after a restart, and the ids of the two events in its store."""
    before = make_node(disk=Disk())
    ids = [before.publish("a", str(n)) for n in range(2)]
    return restarted(make_node, before), ids


@pytest.mark.parametrize("answer", [{}, Unavailable("store", 1), {"a": 5 << 64}])
@pytest.mark.parametrize("is_later", [False, True])
def test_a_stream_waits_until_it_is_known_whether_its_topic_has_ended(
    make_node: MakeNode, answer: Any, is_later: bool
) -> None:
    node, ids = stored(make_node)
    ends = Ends(node, None if is_later else answer)
    client = node.resume("a", after=ids[0])
    assert ends.asked == [("a",)]
    if is_later:
        assert client.received == b""
        assert node.hub.streams.replays == 1
        ends.held.pop()(answer)
    assert node.run_until_received(client, 1)[0] == "1"
    node.resume("a", after=ids[0])
    is_known = isinstance(answer, dict)
    assert len(ends.asked) == (1 if is_known else 2)


@pytest.mark.parametrize("is_later", [False, True])
def test_a_client_that_has_all_of_an_ended_topic_is_answered_with_204(
    make_node: MakeNode, is_later: bool
) -> None:
    node, ids = stored(make_node)
    ends = Ends(node, None if is_later else {"a": 5 << 64})
    client = node.resume("a", after=ids[1])
    if is_later:
        ends.held.pop()({"a": 5 << 64})
    node.hub.sweep(node.now_ms)
    client.sock.setblocking(True)
    assert client.sock.recv(1000).startswith(b"HTTP/1.1 204 No Content\r\n")
    assert client.sock.recv(1) == b""
    assert [stream.handle for stream in node.closed] == [client.handle]
    assert node.hub.streams.replays == 0


@pytest.mark.parametrize("holds", [False, True])
@pytest.mark.parametrize(
    ("grants", "is_readable"), [(None, False), (["b"], False), (["a"], True), (["*"], True)]
)
def test_the_own_id_of_a_stored_private_event_is_unknown_without_a_grant(
    make_node: MakeNode, grants: list[str] | None, is_readable: bool, holds: bool
) -> None:
    before = make_node(disk=Disk())
    before.publish("a", "0")
    before.publish("a", "secret", id="mine", private=True)
    before.publish("a", "1")
    node = restarted(make_node, before)
    node.store.holds = holds
    client = node.resume("a", after="mine", rights=Rights(subscribe=grants) if grants else None)
    node.run_until(lambda: client.stream.last_event_id != "")
    node.publish("a", "live")
    node.run_until(lambda: client.data[-1:] == ["live"])
    assert client.data == (["1", "live"] if is_readable else ["live"])
    assert reasons(client) == ([] if is_readable else ["unknown"])
    # With grants for everything nothing has to be looked at.
    looks = [one for one in node.store.questions if one[:2] == ("read", ("*",))]
    assert len(looks) == (0 if grants == ["*"] else 1)


@pytest.mark.parametrize("holds", [False, True])
def test_the_last_stored_events_are_sent_though_a_private_one_is_before_them(
    make_node: MakeNode, holds: bool
) -> None:
    before = make_node(disk=Disk())
    before.publish("a", "0")
    before.publish("a", "secret", private=True)
    for n in (1, 2):
        before.publish("a", str(n))
    node = restarted(make_node, before)
    node.store.holds = holds
    client = node.subscribe("a", cursor=Cursor("last", 2))
    node.run_until(lambda: node.hub.streams.replays == 0)
    node.publish("a", "live")
    assert node.run_until_received(client, 3) == ["1", "2", "live"]
    assert client.gaps == []


def test_a_stream_ends_when_the_store_can_not_say_whether_its_event_is_private(
    make_node: MakeNode,
) -> None:
    before = make_node(disk=Disk())
    before.publish("a", "0", id="mine")
    node = restarted(make_node, before)
    node.store.holds = True
    client = node.resume("a", after="mine")
    node.store.fails = False
    assert node.store.answer(1), "its place"
    node.store.fails = True
    node.run_until(lambda: client.is_ended)
    assert client.stream.retry_ms is not None
    assert node.hub.counters()["replays_failed"] == 1
    assert node.hub.streams.replays == 0
