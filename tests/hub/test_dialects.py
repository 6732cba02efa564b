"""How streams speak: our own dialect tells in band, Mercure's in the response head; and what
streams with tokens receive notices and can be asked."""

import json
import time

import pytest

from fastsse._core import Sender, raw_frame
from fastsse.auth.rights import Rights, claim_hash
from fastsse.config import HistoryOptions, StreamOptions
from fastsse.events import Event
from fastsse.subscriptions import MERCURE, MERCURE_CONTROL_EVENTS, Cursor
from tests.hub.onenode import Client, MakeNode, Node
from tests.hub.storednode import Disk


def head_with(last_event_id: bytes | None) -> bytes:
    named = b"" if last_event_id is None else b"Last-Event-ID: %b\r\n" % last_event_id
    return b"HTTP/1.1 200 OK\r\n%b\r\n" % named


def mercure(node: Node, cursor: Cursor, *topics: str) -> Client:
    return node.subscribe(*topics or ("a",), cursor=cursor, dialect=MERCURE, head=head_with)


def named_in_head(node: Node, client: Client) -> str | None:
    node.run_until(lambda: client.body != b"")
    head = client.received.partition(b"\r\n\r\n")[0].decode()
    return head.partition("Last-Event-ID: ")[2] or None


@pytest.mark.parametrize("chunked", [False, True])
def test_a_mercure_stream_begins_with_a_comment_and_nothing_of_ours(
    node: Node, chunked: bool
) -> None:
    client = node.subscribe("a", dialect=MERCURE, head=head_with, chunked=chunked)
    assert named_in_head(node, client) is None
    comment = b"2\r\n:\n\r\n" if chunked else b":\n"
    node.run_until(lambda: client.body == comment)
    node.publish("a", "x")
    node.run_until_received(client, 1)


def test_the_head_names_the_id_that_was_asked_for_when_all_after_it_follows(node: Node) -> None:
    first = node.publish("a", "1", id="urn:x")
    second = node.publish("a", "2")
    for event_id, expected in ((first, ["2"]), (second, []), ("urn:x", ["2"])):
        client = mercure(node, Cursor("after", event_id))
        assert named_in_head(node, client) == event_id
        assert node.run_until_received(client, len(expected)) == expected
        assert client.stream.events == client.events


@pytest.mark.parametrize("is_restarted", [False, True])
def test_the_head_says_earliest_when_it_is_not_known_what_is_missing(
    make_node: MakeNode, is_restarted: bool
) -> None:
    node = make_node(HistoryOptions(history_events=1), disk=Disk())
    ids = [node.publish("a", str(index)) for index in range(4)]
    node.store.disk.evict(2)
    if is_restarted:
        node = make_node(disk=node.store.disk, now_ms=node.now_ms + 1)
        node.store.holds = True
    for cursor, expected in (
        (Cursor("after", "earliest"), ["2", "3"]),
        (Cursor("earliest"), ["2", "3"]),
        (Cursor("after", ids[0]), ["2", "3"]),
        (Cursor("after", "unknown"), []),
        (Cursor("after", "9999999999999-1"), []),
    ):
        client = mercure(node, cursor)
        assert named_in_head(node, client) == "earliest"
        assert node.run_until_received(client, len(expected)) == expected
        assert client.gaps == []


def test_an_id_that_was_asked_for_can_not_add_header_lines(node: Node) -> None:
    node.publish("a", "1")
    client = mercure(node, Cursor("after", "x\r\nSet-Cookie: a=b"))
    assert named_in_head(node, client) == "earliest"


def test_a_mercure_client_can_ask_for_gap_events(node: Node) -> None:
    node.publish("a", "1")
    client = node.subscribe(
        "a", cursor=Cursor("after", "who"), dialect=MERCURE_CONTROL_EVENTS, head=head_with
    )
    node.run_until(lambda: bool(client.gaps))
    assert client.body.startswith(b":\nevent: fastsse.gap\n")
    assert named_in_head(node, client) == "earliest"


def test_eviction_that_overtakes_a_mercure_replay_ends_it_after_whole_events(
    make_node: MakeNode,
) -> None:
    node = make_node(HistoryOptions(history_events=24), page_bytes=2000)
    big = "x" * 450
    for index in range(24):
        node.publish("a", f"{index} {big}")
    client = node.subscribe(
        "a", cursor=Cursor("earliest"), dialect=MERCURE, head=head_with, receive_bytes=4096
    )
    for index in range(24, 48):
        node.publish("a", f"{index} {big}")
    node.run_until(lambda: client.is_ended)
    got = [int(data.partition(" ")[0]) for data in client.data]
    assert got == list(range(len(got)))
    assert client.gaps == []
    again = mercure(node, Cursor("after", client.stream.last_event_id))
    assert named_in_head(node, again) == "earliest"
    node.run_until_received(again, 24)


def test_a_mercure_replay_waits_whole_while_memory_is_short(make_node: MakeNode) -> None:
    limits = HistoryOptions(history_total=1 << 20), StreamOptions(memory_limit=2 << 20)
    node = make_node(*limits)
    first = node.publish("a", "1")
    node.publish("a", "2")
    held_by_others = raw_frame(b"x" * (1 << 20))
    client = mercure(node, Cursor("after", first))
    node.hub.sweep(node.now_ms)
    assert node.hub.streams.replays == 1
    del held_by_others
    node.hub.sweep(node.now_ms)
    assert named_in_head(node, client) == first
    assert node.run_until_received(client, 1) == ["2"]


def test_a_stored_uuid_resumes_as_the_position_that_it_holds(node: Node) -> None:
    ids = node.publish_all([Event("a", str(n), id_style="uuid") for n in range(3)]).ids
    assert ids[0].startswith(b"urn:uuid:")
    client = mercure(node, Cursor("after", ids[0].decode()))
    assert node.run_until_received(client, 2) == ["1", "2"]
    assert named_in_head(node, client) == ids[0].decode()


# -- bearers ------------------------------------------------------------------------------------


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def noticing(make_node: MakeNode) -> Node:
    """A node whose streams get a notice 30 s before their end, by the machine's clock."""
    return make_node(sender=Sender(max_connections=10, expiry_notice_ms=30_000), now_ms=now_ms())


def test_a_stream_receives_a_notice_before_its_token_ends_and_then_ends(noticing: Node) -> None:
    rights = Rights(subscribe=["a"], subject="me", expires_s=time.time() + 20)
    client = noticing.subscribe("a", rights=rights)
    noticing.run_until(lambda: len(client.stream.events) == 1)
    (told,) = client.stream.events
    assert told.type == "fastsse.expiring"
    assert told.last_event_id == client.stream.last_event_id
    data = json.loads(told.data)
    assert data["stream"] == noticing.hub.streams.id_of(client.handle).decode()
    assert 0 < data["expires_in_s"] < 30
    assert noticing.hub.streams.held_by(client.handle) == (claim_hash("me"), ("a",))
    noticing.sender.advance_clock(21_000)
    noticing.run_until(lambda: client.is_ended and bool(noticing.closed))
    assert noticing.closed[0].reason == "expired"
    assert noticing.hub.streams.held_by(client.handle) is None


def test_where_no_token_is_revoked_only_rights_with_an_end_have_rows(noticing: Node) -> None:
    streams = noticing.hub.streams
    streams.renews = False
    endless = noticing.subscribe("a", rights=Rights(subscribe=["a"], subject="me"))
    ending = noticing.subscribe("a", rights=Rights(subscribe=["a"], expires_s=time.time() + 20))
    noticing.publish("a", "for both", private=True)
    for client in (endless, ending):
        assert noticing.run_until_received(client, 1)[-1] == "for both"
    assert streams.held_by(endless.handle) is None
    assert streams.held_by(ending.handle) == (0, ("a",))
    noticing.sender.advance_clock(21_000)
    noticing.run_until(lambda: ending.is_ended and bool(noticing.closed))
    assert noticing.closed[0].reason == "expired"
    assert not endless.is_ended


def test_a_renewed_stream_lives_on(noticing: Node) -> None:
    streams = noticing.hub.streams
    client = noticing.subscribe("a", rights=Rights(subscribe=["a"], expires_s=time.time() + 20))
    noticing.run_until(lambda: len(client.stream.events) == 1)
    fresh = Rights(subscribe=["a"], expires_s=time.time() + 1000)
    assert streams.renew(streams.find(streams.id_of(client.handle)), fresh)
    noticing.run_until(lambda: noticing.sender.counters()["renewed"] == 1)
    noticing.sender.advance_clock(100_000)
    noticing.publish("a", "still here", private=True)
    assert noticing.run_until_received(client, 2)[-1] == "still here"
    assert streams._tokens.find(client.handle)[2] == fresh.claims[0]  # type: ignore[index]
    anonymous = noticing.subscribe("a")
    assert not streams.renew(anonymous.handle, fresh)
    assert not streams.renew(0, fresh)


def test_a_mercure_stream_receives_no_expiry_notice(noticing: Node) -> None:
    rights = Rights(expires_s=time.time() + 20)
    client = noticing.subscribe("a", rights=rights, dialect=MERCURE)
    ours = noticing.subscribe("a", rights=rights)
    noticing.run_until(lambda: len(ours.stream.events) == 1)
    noticing.publish("a", "x")
    noticing.run_until_received(client, 1)
    assert [message.data for message in client.stream.events] == ["x"]


def test_a_bearer_that_replays_ends_in_time_too(make_node: MakeNode) -> None:
    node = make_node(disk=Disk(), now_ms=now_ms())
    first = node.publish("a", "0")
    node = make_node(disk=node.store.disk, now_ms=node.now_ms + 1)
    node.store.holds = True
    rights = Rights(expires_s=time.time() + 20)
    client = node.resume("a", after=first, rights=rights)
    node.run_until(lambda: client.body != b"")
    node.sender.advance_clock(21_000)
    node.run_until(lambda: client.is_ended and bool(node.closed))
    assert node.closed[0].reason == "expired"


def test_revoking_ends_those_that_match_and_no_others(node: Node) -> None:
    mine = Rights(subject="me", token_id="1")
    clients = [
        node.subscribe("a", rights=mine),
        node.subscribe("a", rights=Rights(subject="you")),
        node.subscribe("a"),
    ]
    node.hub.streams.revoke(mine.claims[1], 0, 0)
    node.run_until(lambda: clients[0].is_ended and bool(node.closed))
    assert [stream.reason for stream in node.closed] == ["revoked"]
    node.publish("a", "x")
    node.run_until(lambda: all(client.data == ["x"] for client in clients[1:]))


def test_a_revocation_ends_streams_that_still_wait_for_their_first_page(
    make_node: MakeNode,
) -> None:
    node = make_node(disk=Disk())
    first = node.publish("a", "0")
    node.publish("a", "1")
    node = make_node(disk=node.store.disk, now_ms=node.now_ms + 1)
    node.store.holds = True
    mine, other = Rights(subject="me", issued_s=5), Rights(subject="me", issued_s=9)
    clients = [node.resume("a", after=first, rights=one) for one in (mine, other)]
    node.hub.streams.revoke(mine.claims[1], 0, 7)
    node.run_until(lambda: clients[0].is_ended and bool(node.closed))
    assert [stream.reason for stream in node.closed] == ["revoked"]
    node.run_until(lambda: clients[1].data == ["1"])
    assert clients[0].data == []


def test_pongs_are_for_streams_that_are_there(node: Node) -> None:
    client = node.subscribe("a")
    streams = node.hub.streams
    assert streams.pong(streams.id_of(client.handle))
    assert not streams.pong(b"unknown")
    assert streams.find(b"0" * 32) == 0
