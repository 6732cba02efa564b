"""Views: which events a stream is sent, and in which form; live, replayed, and across cuts."""

import json
from typing import Any

import pytest

from fastsse._core import Sender
from fastsse.auth.rights import Rights
from fastsse.config import HistoryOptions, StreamOptions
from fastsse.errors import StreamRefused
from fastsse.events import DATA_JSON, Event
from fastsse.subscriptions import Cursor, View
from tests.hub.afterrestart import BIG, PAGE_BYTES, restarted
from tests.hub.onenode import Client, MakeNode, Node
from tests.hub.storednode import Disk

ENVELOPE = View(envelope=True)


def granted(*topics: str) -> Rights:
    return Rights(subscribe=topics)


def envelopes(client: Client) -> list[dict[str, Any]]:
    return [json.loads(message.data) for message in client.events]


def test_stream_of_some_types_is_sent_these_and_no_others(node: Node) -> None:
    live = node.subscribe("a", view=View(types=(b"tick", b"message")))
    plain = node.subscribe("a")
    for event in (None, "tick", "tock", "ticks"):
        node.publish_all([Event("a", str(event), event=event)])
    assert node.run_until_received(plain, 4) == ["None", "tick", "tock", "ticks"]
    assert node.run_until_received(live, 2) == ["None", "tick"]
    resumed = node.subscribe("a", cursor=Cursor("earliest"), view=View(types=(b"tick",)))
    assert node.run_until_received(resumed, 1) == ["tick"]
    assert resumed.gaps == []


@pytest.mark.parametrize("is_live", [True, False])
def test_envelope_names_what_the_publisher_sent(node: Node, is_live: bool) -> None:
    client = node.subscribe("a", view=ENVELOPE) if is_live else None
    sent = [
        Event("a", '{"n":\n1}', event="tick", meta={"tenant": "é"}, data_kind=DATA_JSON),
        Event(["a", "b"], '{"n": 1}', id="own"),
        Event("a", 'line "1"\r\n\tline 2\x01\\ 🎈', retry=2_000),
        Event("a", "not JSON", data_kind=DATA_JSON),
        Event("a", ""),
    ]
    ids = [node.publish_all([event]).first.decode() for event in sent]
    if client is None:
        client = node.subscribe("a", cursor=Cursor("earliest"), view=ENVELOPE)
    node.run_until_received(client, len(sent))
    assert [message.last_event_id for message in client.events] == ids
    assert [message.type for message in client.events] == ["tick", *["message"] * 4]
    base = {"event": None, "meta": None, "topic": "a", "time": node.now_ms}
    assert envelopes(client) == [
        base | {"id": ids[0], "event": "tick", "data": {"n": 1}, "meta": {"tenant": "é"}},
        base | {"id": "own", "topic": ["a", "b"], "data": '{"n": 1}'},
        base | {"id": ids[2], "data": 'line "1"\n\tline 2\x01\\ 🎈'},
        base | {"id": ids[3], "data": "not JSON"},
        base | {"id": ids[4], "data": ""},
    ]
    assert client.stream.retry_ms == 2_000


@pytest.mark.parametrize("is_live", [True, False])
@pytest.mark.parametrize(
    ("selectors", "grants", "shown"),
    [
        (("a", "b"), ("a", "b"), ["a", "b"]),
        (("a", "b"), ("a",), "a"),
        (("a",), ("a", "b"), "a"),
        (("a",), ("b",), None),
        (("*",), ("*",), ["a", "b", "c"]),
        (("*",), ("c",), "c"),
        (("{x}",), ("b", "c"), ["b", "c"]),
    ],
)
def test_envelope_of_a_private_event_names_only_selected_and_granted_topics(
    node: Node,
    is_live: bool,
    selectors: tuple[str, ...],
    grants: tuple[str, ...],
    shown: object,
) -> None:
    def subscribe(**options: Any) -> Client:
        return node.subscribe(*selectors, rights=granted(*grants), view=ENVELOPE, **options)

    first = [node.publish(topic) for topic in "abc"][-1]
    client = subscribe() if is_live else None
    node.publish(["a", "b", "c"], private=True)
    if client is None:
        client = subscribe(cursor=Cursor("after", first))
    node.run_until_received(client, 1)
    assert envelopes(client)[0]["topic"] == shown


def test_envelope_is_encoded_once_however_many_channels_are_sent_it(node: Node) -> None:
    clients = [node.subscribe("a", f"own-{n}", view=ENVELOPE) for n in range(50)]
    for n in range(3):
        node.publish("a", str(n))
    for client in clients:
        node.run_until_received(client, 3)
    assert node.sender.counters()["envelopes"] == 3


def test_equal_views_share_a_channel_and_others_do_not(node: Node) -> None:
    views = [View(types=(b"x",)), View(types=(b"x",)), View(types=(b"y",)), ENVELOPE, None, None]
    clients = [node.subscribe("a", view=view) for view in views]
    assert len(node.hub.channels) == 4
    for client in clients:
        node.hang_up(client)
    assert len(node.hub.channels) == node.hub.channels.with_views == 0


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("view", [View(until=(b"done",)), View(until_data=b"[DONE]")])
def test_stream_ends_cleanly_behind_the_event_that_ends_it(
    node: Node, view: View, chunked: bool
) -> None:
    live = node.subscribe("a", view=view, chunked=chunked)
    first = node.publish("a", "1")
    node.publish_all([Event("a", "[DONE]", event="done"), Event("a", "later")])
    replayed = node.subscribe("a", view=view, cursor=Cursor("earliest"), chunked=chunked)
    resumed = node.resume("a", after=first, view=view, chunked=chunked)
    node.run_until(
        lambda: len(node.closed) == 3 and all(one.is_ended for one in (live, replayed, resumed))
    )
    for client, data in ((live, ["1", "[DONE]"]), (replayed, ["1", "[DONE]"])):
        assert client.data == data
    assert resumed.data == ["[DONE]"]
    for client in (live, replayed, resumed):
        assert client.received.endswith(b"\r\n0\r\n\r\n") is chunked
    assert [stream.reason for stream in node.closed] == ["ended"] * 3


def test_stream_with_an_end_is_sent_it_whatever_types_it_asked_for(node: Node) -> None:
    view = View(types=(b"token",), until=(b"done",), envelope=True)
    client = node.subscribe("a", view=view)
    node.publish_all([Event("a", "t", event="token"), Event("a"), Event("a", "!", event="done")])
    node.run_until(lambda: client.is_ended)
    assert [one["data"] for one in envelopes(client)] == ["t", "!"]


def test_stream_behind_an_end_goes_on_with_what_follows(node: Node) -> None:
    """A client that asks from behind the end follows the next run."""
    view = View(until=(b"done",))
    end = node.publish_all([Event("a", "end", event="done")]).last.decode()
    node.publish("a", "next")
    client = node.resume("a", after=end, view=view)
    assert node.run_until_received(client, 1) == ["next"]


@pytest.mark.parametrize("write_limit", [1, 7, 64])
def test_end_is_exact_however_writes_are_cut(make_node: MakeNode, write_limit: int) -> None:
    sender = Sender(max_connections=100, write_limit_bytes=write_limit, refuse_every=3)
    node = make_node(sender=sender)
    clients = [node.subscribe("a", view=View(until=(b"done",)), chunked=True) for _ in range(5)]
    node.publish_all([Event("a", "x" * 50)] * 3 + [Event("a", "end", event="done"), Event("a")])
    node.run_until(lambda: all(client.is_ended for client in clients))
    for client in clients:
        assert client.data == ["x" * 50] * 3 + ["end"]
        assert client.received.endswith(b"\r\n0\r\n\r\n")


def test_replay_from_the_store_is_the_same_as_from_memory(make_node: MakeNode) -> None:
    disk = Disk()
    node = make_node(disk=disk)
    node.publish_all(
        [Event("a", f"{n}", event="tick" if n % 2 else "tock", meta={"n": n}) for n in range(20)]
    )
    node.run_until(lambda: node.hub.entries_seen == 20)
    view = View(types=(b"tick",), envelope=True)
    memory = node.subscribe("a", cursor=Cursor("earliest"), view=view)
    expected = node.run_until_received(memory, 10)
    again = make_node(disk=disk)
    stored = again.subscribe("a", cursor=Cursor("earliest"), view=view)
    assert again.run_until_received(stored, 10) == expected
    assert [one["meta"] for one in envelopes(stored)] == [{"n": n} for n in range(1, 20, 2)]


def test_pages_of_the_store_without_an_event_of_a_view_are_passed_over(
    make_node: MakeNode,
) -> None:
    before = make_node(disk=Disk())
    start = before.publish("a")
    for n in range(60):
        data, event = (str(n), "tick") if n in (0, 30) else (BIG, "tock")
        before.publish_all([Event("a", data, event=event)])
    node = restarted(make_node, before, page_bytes=PAGE_BYTES)
    client = node.resume("a", after=start, view=View(types=(b"tick",)))
    node.run_until(lambda: node.hub.streams.replays == 0)
    node.publish_all([Event("a", "live", event="tick")])
    assert node.run_until_received(client, 3) == ["0", "30", "live"]
    assert client.gaps == []


@pytest.mark.parametrize("count", [0, 1, 2])
def test_stream_ends_behind_an_end_that_is_stored(make_node: MakeNode, count: int) -> None:
    before = make_node(disk=Disk())
    start = before.publish("a")
    for n in range(count):
        before.publish("a", str(n))
    before.publish_all([Event("a", "end", event="done"), Event("a", "later")])
    node = restarted(make_node, before)
    client = node.resume("a", after=start, view=View(until=(b"done",)))
    node.run_until(lambda: client.is_ended and len(node.closed) == 1)
    assert client.data == [*map(str, range(count)), "end"]
    assert client.gaps == []


def test_quiet_stream_does_not_age_into_a_gap(make_node: MakeNode) -> None:
    """Its id is moved with the heartbeat, past events that its view left out."""
    node = make_node(HistoryOptions(history_events=5))
    client = node.subscribe("a", view=View(types=(b"rare",)))
    newest = [node.publish("a", str(n)) for n in range(20)][-1]
    node.sender.advance_clock(20_000)
    node.run_until(lambda: client.stream.last_event_id == newest)
    assert client.stream.events == []
    resumed = node.resume("a", after=client.stream.last_event_id, view=View(types=(b"rare",)))
    node.publish_all([Event("a", "now", event="rare")])
    assert node.run_until_received(resumed, 1) == ["now"]
    assert resumed.gaps == []


def test_filtered_stream_is_sent_what_matches_live_and_replayed(node: Node) -> None:
    view = View(filter="data.price > 5 && meta.tenant == 'acme' && topic.startsWith('eu/')")
    live = node.subscribe("*", view=view)
    for topic, price, tenant in (
        ("eu/x", 9, "acme"),
        ("us/x", 9, "acme"),
        ("eu/x", 5, "acme"),
        ("eu/y", 6, "acme"),
        ("eu/y", 7, "other"),
    ):
        data = json.dumps({"price": price})
        node.publish_all([Event(topic, data, meta={"tenant": tenant})])
    node.publish("eu/x", "not JSON")
    assert node.run_until_received(live, 2) == ['{"price": 9}', '{"price": 6}']
    replayed = node.subscribe("*", view=view, cursor=Cursor("earliest"))
    assert node.run_until_received(replayed, 2) == live.data
    counters = node.sender.counters()
    assert (counters["passed_over"], counters["filter_errors"]) == (4, 1)


def test_one_filter_too_many_is_refused_and_others_stay(make_node: MakeNode) -> None:
    node = make_node(streams=StreamOptions(max_topic_filters=3, max_filters=5))
    views = [View(filter=f"data.n == {n}") for n in range(6)]
    first = [node.subscribe("a", view=view) for view in views[:3]]
    with pytest.raises(StreamRefused, match="filters"):
        node.subscribe("a", view=views[3])
    same = node.subscribe("a", view=views[2])
    node.subscribe("b", view=views[3]), node.subscribe("c", view=views[4])
    with pytest.raises(StreamRefused, match="filters"):
        node.subscribe("d", view=views[5])
    node.subscribe("d")
    assert node.hub.counters()["filters"] == 5
    assert node.hub.counters()["filters_refused"] == 2
    node.hang_up(first[0])
    node.subscribe("a", view=views[3])
    node.publish("a", '{"n": 2}')
    assert node.run_until_received(same, 1) == ['{"n": 2}']


def test_lagging_filtered_stream_whose_newest_value_does_not_match_is_sent_a_gap(
    make_node: MakeNode,
) -> None:
    """Policy `latest` has nothing to send for such a topic, and must not say nothing."""
    options = StreamOptions(lag_policy="latest", max_lag=1024)
    sender = Sender(max_connections=10, max_lag_bytes=1024)
    node = make_node(streams=options, sender=sender)
    view = View(filter="data.n > 0")
    client = node.subscribe("a", view=view, receive_bytes=4096)
    pad = "x" * 2000
    for n in range(1, 60):
        node.publish("a", json.dumps({"n": n, "pad": pad}))
    node.publish("a", json.dumps({"n": 0, "pad": pad}))
    node.run_until(lambda: node.sender.counters()["skipped"] > 0, reading=False)
    node.run_until(lambda: bool(client.gaps))
    node.publish("a", '{"n": 99}')
    node.run_until(lambda: client.data[-1:] == ['{"n": 99}'])


def test_lagging_stream_with_envelopes_is_sent_the_newest_values_in_them(
    make_node: MakeNode,
) -> None:
    options = StreamOptions(lag_policy="latest", max_lag=1024)
    sender = Sender(max_connections=10, max_lag_bytes=1024)
    node = make_node(streams=options, sender=sender)
    client = node.subscribe("a", "b", view=ENVELOPE, receive_bytes=4096)
    for n in range(60):
        node.publish("ab"[n % 2], "x" * 2000 + str(n))
    node.run_until(lambda: node.sender.counters()["lapped"] > 0, reading=False)
    node.run_until(lambda: bool(client.events) and envelopes(client)[-1]["data"].endswith("x59"))
    assert [one["topic"] for one in envelopes(client)[-2:]] == ["a", "b"]
    assert envelopes(client)[-2]["data"].endswith("x58")


def test_snapshot_goes_through_the_view(node: Node) -> None:
    for n in range(3):
        node.publish_all([Event(f"t/{n}", json.dumps({"n": n}), data_kind=DATA_JSON)])
    view = View(filter="data.n != 1", envelope=True)
    client = node.subscribe("t/{n}", view=view, last_each=1)
    node.run_until(lambda: len(client.stream.events) == 3)
    *values, marker = client.stream.events
    assert [json.loads(one.data)["topic"] for one in values] == ["t/0", "t/2"]
    assert marker.type == "fastsse.snapshot"
