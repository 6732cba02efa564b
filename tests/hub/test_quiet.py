"""Streams without control events (`fastsse=false`). Each ends where another is sent a gap, its
response is cut so that a client does not take it for the whole, and the next request goes on."""

import re
from dataclasses import replace

import pytest

from fastsse.config import HistoryOptions
from fastsse.positions import parse_id
from fastsse.subscriptions import EVENTS, MERCURE, Cursor, Dialect
from tests.hub.onenode import Client, MakeNode, Node

RETRY_MS = 3000
QUIET = replace(EVENTS, has_control_events=False)
LAST_CHUNK = b"0\r\n\r\n"


def ended(node: Node, client: Client) -> bytes:
    """All that a client got, once its stream has ended: no control event, no last chunk."""
    node.run_until(lambda: client.is_ended)
    assert b"fastsse." not in client.body
    assert not client.body.endswith(LAST_CHUNK)
    return client.body


@pytest.mark.parametrize("initial_id", ["true", "line", "data"])
@pytest.mark.parametrize("asked", ["unknown", "9999999999999-1"])
def test_an_id_that_can_not_be_resumed_ends_the_stream_and_names_the_next(
    node: Node, initial_id: str, asked: str
) -> None:
    node.publish("a", "1")
    dialect = replace(QUIET, initial_id=initial_id)
    client = node.resume("a", after=asked, dialect=dialect, chunked=True)
    body = ended(node, client)
    (place,) = re.findall(rb"\nid: (\S+)\n", body)
    assert (b"\ndata:\n\n" in body) is (initial_id == "data")
    again = node.resume("a", after=place.decode(), dialect=dialect, chunked=True)
    node.publish("a", "2")
    assert node.run_until_received(again, 2 if initial_id == "data" else 1)[-1] == "2"
    assert node.closed[0].reason == "ended"


def test_an_id_before_what_is_kept_ends_the_stream_and_the_next_has_all_that_is_kept(
    make_node: MakeNode,
) -> None:
    node = make_node(HistoryOptions(history_events=3))
    old = node.publish("a", "0")
    for number in range(1, 9):
        node.publish("a", str(number))
    body = ended(node, node.resume("a", after=old, dialect=QUIET, chunked=True))
    assert (node.hub.counters()["replays_failed"], node.hub.streams.replays) == (1, 0)
    (place,) = re.findall(rb"\nid: (\S+)\n", body)
    assert parse_id(place) is not None
    again = node.resume("a", after=place.decode(), dialect=QUIET, chunked=True)
    assert node.run_until_received(again, 3) == ["6", "7", "8"]


def test_eviction_that_overtakes_a_replay_ends_it_after_whole_events(make_node: MakeNode) -> None:
    node = make_node(HistoryOptions(history_events=24), page_bytes=2000)
    big = "x" * 450
    for index in range(24):
        node.publish("a", f"{index} {big}")
    client = node.subscribe("a", cursor=Cursor("earliest"), dialect=QUIET, receive_bytes=4096)
    for index in range(24, 48):
        node.publish("a", f"{index} {big}")
    *_, farewell = ended(node, client).splitlines()
    name, _, retry_ms = farewell.partition(b": ")
    assert name == b"retry"
    assert RETRY_MS <= int(retry_ms) <= 2 * RETRY_MS
    assert (node.hub.counters()["replays_failed"], node.hub.streams.replays) == (1, 0)
    got = [int(data.partition(" ")[0]) for data in client.data]
    assert got == list(range(len(got)))


@pytest.mark.parametrize("dialect", [QUIET, MERCURE])
def test_a_loss_of_the_log_ends_live_streams_and_others_are_sent_a_gap(
    node: Node, dialect: Dialect
) -> None:
    quiet = node.subscribe("a", dialect=dialect, chunked=True)
    loud = node.subscribe("a")
    node.publish("a", "1")
    node.run_until_received(loud, 1)
    node.hub.streams.report_loss(node.hub.history.head)
    node.run_until(lambda: bool(loud.gaps))
    assert b"data: 1\n" in ended(node, quiet)
    assert not loud.is_ended


def test_quiet_streams_and_others_share_no_channel(node: Node) -> None:
    clients = [node.subscribe("a", dialect=one) for one in (QUIET, EVENTS, QUIET, EVENTS)]
    assert len(node.hub.channels) == 2
    node.publish("a", "x")
    for client in clients:
        assert node.run_until_received(client, 1) == ["x"]
    for client in clients:
        node.hang_up(client)
    assert len(node.hub.channels) == 0
