"""Private events reach those whose grants match, live and on replay; for others they are as if they
did not exist. Templates get what they match, whenever it comes to life."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsse.auth.rights import Rights
from fastsse.config import HistoryOptions
from fastsse.hub import channels as channels_module
from fastsse.hub import history as history_module
from fastsse.hub import templates, time_budget
from fastsse.selectors import compile_selector
from fastsse.subscriptions import MERCURE, Cursor
from tests.hub.onenode import Client, MakeNode, Node
from tests.hub.storednode import Disk

ONE, TEMPLATE, ALL = (
    Rights(subscribe=["user/1"]),
    Rights(subscribe=["user/{id}"]),
    Rights(subscribe=["*"]),
)


def received(node: Node, *clients: Client) -> list[list[str]]:
    """What each has got when all before a last public event of every topic has come."""
    node.publish(("user/1", "user/2", "news", "other"), "end")
    node.run_until(lambda: all(client.data[-1:] == ["end"] for client in clients))
    return [client.data[:-1] for client in clients]


def publish_some(node: Node) -> list[str]:
    return [
        node.publish("user/1", "to 1", private=True),
        node.publish("user/2", "to 2", private=True, id="second"),
        node.publish("user/1", "public"),
        node.publish(("news", "user/1"), "news for 1", private=True),
    ]


READERS = [
    (("user/1",), None, ["public"]),
    (("user/1",), Rights(), ["public"]),
    (("user/1",), ONE, ["to 1", "public", "news for 1"]),
    (("user/2",), ONE, []),
    (("user/1", "user/2"), TEMPLATE, ["to 1", "to 2", "public", "news for 1"]),
    (("news",), ONE, ["news for 1"]),
    (("news",), Rights(subscribe=["other"]), []),
    (("user/{id}",), None, ["public"]),
    (("user/{id}",), ONE, ["to 1", "public", "news for 1"]),
    (("user/{id}", "user/1"), TEMPLATE, ["to 1", "to 2", "public", "news for 1"]),
    (("*",), None, ["public"]),
    (("*",), ONE, ["to 1", "public", "news for 1"]),
    (("*",), ALL, ["to 1", "to 2", "public", "news for 1"]),
    (("user/1",), ALL, ["to 1", "public", "news for 1"]),
    (("{+any}",), TEMPLATE, ["to 1", "to 2", "public", "news for 1"]),
]


@pytest.mark.parametrize("topics_are_alive", [False, True])
def test_live_streams_get_what_they_may(node: Node, topics_are_alive: bool) -> None:
    if topics_are_alive:
        node.publish(("user/1", "user/2", "news"), "before")
    clients = [node.subscribe(*topics, rights=rights) for topics, rights, _ in READERS]
    publish_some(node)
    assert received(node, *clients) == [expected for _, _, expected in READERS]


@pytest.mark.parametrize("is_restarted", [False, True])
def test_replays_bring_what_live_streams_got(make_node: MakeNode, is_restarted: bool) -> None:
    node = make_node(disk=Disk())
    first = node.publish("other", "place")
    publish_some(node)
    if is_restarted:
        node = make_node(disk=node.store.disk, now_ms=node.now_ms + 1)
        node.store.holds = True
    clients = [node.resume(*topics, after=first, rights=rights) for topics, rights, _ in READERS]
    assert received(node, *clients) == [expected for _, _, expected in READERS]
    assert [client.gaps for client in clients] == [[] for _ in READERS]


def test_the_newest_n_are_those_that_may_be_read(make_node: MakeNode) -> None:
    for holds in (False, True):
        node = make_node(disk=Disk())
        publish_some(node)
        node.store.holds = holds
        reader = node.subscribe("user/1", cursor=Cursor("last", 1))
        bearer = node.subscribe("user/1", cursor=Cursor("last", 1), rights=ONE)
        assert received(node, reader, bearer) == [["public"], ["news for 1"]]


@pytest.mark.parametrize("is_restarted", [False, True])
def test_an_id_of_an_event_that_may_not_be_read_is_as_unknown_as_any(
    make_node: MakeNode, is_restarted: bool
) -> None:
    node = make_node(disk=Disk())
    publish_some(node)
    if is_restarted:
        node = make_node(disk=node.store.disk, now_ms=node.now_ms + 1)
    for rights in (None, ONE):
        told = [node.resume("user/1", after=own, rights=rights) for own in ("second", "unknown")]
        assert received(node, *told) == [[], []]
        gaps = [json.loads(client.gaps[0].data) for client in told]
        assert [gap["reason"] for gap in gaps] == ["unknown", "unknown"]
        assert gaps[0]["from"] == gaps[1]["from"]
    bearer = node.resume("user/1", after="second", rights=TEMPLATE)
    assert received(node, bearer)[0][:2] == ["public", "news for 1"]


def test_without_a_grant_a_private_event_is_not_noticeable(node: Node) -> None:
    node.publish("user/1", "public")

    def places() -> list[bytes]:
        told = [
            node.subscribe("user/1"),
            node.subscribe("user/1", rights=Rights()),
            node.subscribe("user/1", cursor=Cursor("since", node.now_ms + 1_000_000)),
            node.resume("user/1", after="unknown"),
        ]
        node.run_until(lambda: all(b"\nid: " in client.body for client in told))
        return [client.body.split(b"\nid: ")[1].split(b"\n")[0] for client in told]

    before = places()
    hidden = node.publish("user/1", "to 1", private=True)
    assert places() == before
    bearer = node.subscribe("user/1", rights=ONE)
    node.run_until(lambda: hidden.encode() in bearer.body)
    # Nothing is missed from there on, and nothing hidden comes.
    resumed = node.resume("user/1", after=before[0].decode())
    assert received(node, resumed) == [[]]


def test_pages_are_not_shared_between_those_who_may_read_and_those_who_may_not(
    node: Node,
) -> None:
    first = node.publish("user/1", "place")
    publish_some(node)
    bearer = node.resume("user/1", after=first, rights=ONE)
    reader = node.resume("user/1", after=first)
    again = node.resume("user/1", after=first, rights=Rights(subscribe=["user/1"]))
    assert received(node, bearer, reader, again) == [
        ["to 1", "public", "news for 1"],
        ["public"],
        ["to 1", "public", "news for 1"],
    ]


def test_a_topic_that_is_forgotten_and_comes_back_has_its_links_and_grants(
    make_node: MakeNode,
) -> None:
    node = make_node(HistoryOptions(history_events=0))
    clients = [
        node.subscribe("user/{id}", rights=ONE),
        node.subscribe("*", rights=TEMPLATE),
        node.subscribe("user/{id}"),
    ]
    for index in range(3):
        node.publish("user/1", f"private {index}", private=True)
        node.publish("other", "takes a number")
        node.hub.sweep(node.now_ms)
        assert len(node.hub.topics) == 0
    node.publish("user/1", "end")
    node.run_until(lambda: all(client.data[-1:] == ["end"] for client in clients))
    private = [f"private {index}" for index in range(3)]
    assert [word for word in clients[1].data if word != "takes a number"] == [*private, "end"]
    assert [clients[0].data, clients[2].data] == [[*private, "end"], ["end"]]


def test_a_template_does_not_keep_topics_alive(make_node: MakeNode) -> None:
    node = make_node(HistoryOptions(history_events=0))
    node.subscribe("user/{id}")
    for index in range(100):
        node.publish(f"user/{index}", "x")
    node.hub.sweep(node.now_ms)
    assert len(node.hub.topics) == 0


def test_losses_of_a_template_include_forgotten_topics(
    make_node: MakeNode,
) -> None:
    node = make_node(HistoryOptions(history_events=1))
    start = node.publish("place", "0")
    for index in range(2):
        node.publish("user/1", str(index))
    node.publish("calm/1", "x")
    node.hub.history.sweep(node.now_ms + 10_000_000)
    node.hub.sweep(node.now_ms)
    assert len(node.hub.topics) == 0
    for topics, reasons in ((("user/{id}",), ["evicted"]), (("quiet/{id}",), [])):
        client = node.resume(*topics, after=start)
        node.run_until(lambda client=client: client.stream.last_event_id != "")  # type: ignore[misc]
        assert [json.loads(gap.data)["reason"] for gap in client.gaps] == reasons


def test_nothing_is_left_of_channels_with_templates_and_grants(make_node: MakeNode) -> None:
    node = make_node(HistoryOptions(history_events=0))
    for topics, rights, _ in READERS:
        client = node.subscribe(*topics, rights=rights)
        node.publish("user/1", "x", private=True)
        node.hang_up(client)
    node.hub.sweep(node.now_ms)
    held = node.hub.channels._templates
    assert (len(node.hub.channels), len(node.hub.topics)) == (0, 0)
    assert (held._granted, node.hub.channels.of_everything) == ({}, 0)
    assert all(not one.channels and not one.granted for one in held._templates.values())
    assert len(held) <= templates.IDLE_MAX


def test_unused_patterns_are_bounded(node: Node) -> None:
    for index in range(templates.IDLE_MAX + 20):
        node.hang_up(node.subscribe(f"user/{index}/{{x}}"))
    assert len(node.hub.channels._templates) == templates.IDLE_MAX


def test_a_template_that_matches_very_many_topics_is_replayed_in_order(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "MERGED_MAX", 3)
    node = make_node(page_bytes=500)
    first = node.publish("other", "0")
    for index in range(50):
        node.publish(f"user/{index % 20}", str(index), private=index % 5 == 0)
        node.publish("other", "not this")
    client = node.resume("user/{id}", after=first)
    node.run_until_received(client, 40)
    assert client.data == [str(index) for index in range(50) if index % 5]
    newest = node.subscribe("user/{id}", cursor=Cursor("last", 10))
    node.run_until_received(newest, 10)
    assert newest.data == client.data[-10:]


# -- templates that need time ---------------------------------------------------------------------


@pytest.fixture
def slow_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new template sees two topics at once, and two more in each sweep."""
    monkeypatch.setattr(time_budget, "BURST_S", 0.0)
    monkeypatch.setattr(channels_module, "LOOKS_AT_ONCE", 0)
    monkeypatch.setattr(channels_module, "LOOKS_A_STEP", 2)


@pytest.mark.usefixtures("slow_looks")
def test_a_stream_whose_template_has_many_topics_to_look_at_opens_later_and_misses_nothing(
    node: Node,
) -> None:
    ids = [node.publish(f"user/{index}", str(index)) for index in range(20)]
    head = node.subscribe("user/{id}", "other")
    resumed = node.resume("user/{id}", after=ids[9])
    bearer = node.subscribe("*", rights=Rights(subscribe=["user/{id}"]))
    assert node.hub.streams.replays == 3
    node.publish("user/new", "new")
    node.run_until(lambda: all(client.body != b"" for client in (head, resumed, bearer)))
    assert node.hub.streams.replays == 0
    node.publish("user/3", "private", private=True)
    node.publish("user/3", "end")
    node.run_until(lambda: all(c.data[-1:] == ["end"] for c in (head, resumed, bearer)))
    assert head.data == ["new", "end"]
    assert head.stream.events == head.events
    assert resumed.data == [*map(str, range(10, 20)), "new", "end"]
    assert bearer.data == ["new", "private", "end"]


@pytest.mark.usefixtures("slow_looks")
def test_topics_forgotten_before_a_template_are_still_reported_to_it(
    make_node: MakeNode,
) -> None:
    node = make_node(HistoryOptions(history_events=1))
    start = node.publish("place", "0")
    for index in range(10):
        node.publish(f"user/{index}", "lost")
        node.publish(f"user/{index}", "aged")
    client = node.resume("user/{id}", after=start)
    node.hub.history.sweep(node.now_ms + 10_000_000)
    while len(node.hub.topics):
        node.hub.sweep(node.now_ms)
    node.run_until(lambda: client.body != b"")
    assert [json.loads(gap.data)["reason"] for gap in client.gaps] == ["evicted"]


@pytest.mark.usefixtures("slow_looks")
@pytest.mark.parametrize("how", ["drain", "close", "hang up", "abandon"])
def test_a_stream_that_ends_before_its_channel_is_ready_leaves_nothing(
    node: Node, how: str
) -> None:
    for index in range(20):
        node.publish(f"user/{index}", "x")
    client = node.subscribe("user/{id}")
    if how == "drain":
        node.hub.drain(0.0)
    elif how == "close":
        assert not node.hub.streams.close(client.handle, 6)
    elif how == "abandon":
        node.hub.streams.abandon()
    if how == "hang up":
        node.hang_up(client)
    else:
        client.sock.setblocking(True)
        assert client.sock.recv(1) == b""
    if how != "abandon":
        assert [stream.handle for stream in node.closed] == [client.handle]
        assert (len(node.hub.channels), node.hub.streams.replays) == (0, 0)
    while node.hub.sweep(node.now_ms):
        pass


@pytest.mark.usefixtures("slow_looks")
def test_a_mercure_stream_that_opens_later_names_no_id(node: Node) -> None:
    for index in range(20):
        node.publish(f"user/{index}", "x")
    seen: list[bytes | None] = []

    def head(last_event_id: bytes | None) -> bytes:
        seen.append(last_event_id)
        return b"HTTP/1.1 200 OK\r\n\r\n"

    client = node.subscribe("user/{id}", dialect=MERCURE, head=head)
    node.run_until(lambda: client.body == b":\n")
    assert seen == [None]


# -- at random ----------------------------------------------------------------------------------

selectors = st.lists(
    st.sampled_from(["a", "b", "t/1", "t/{x}", "{x}", "*", "{/x*}"]), min_size=1, max_size=3
)
publishes = st.tuples(
    st.lists(st.sampled_from(["a", "b", "t/1", "t/2"]), min_size=1, max_size=2, unique=True),
    st.booleans(),
)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(publishes, min_size=1, max_size=15),
    selectors,
    st.none() | selectors.map(lambda texts: Rights(subscribe=texts)),
    st.sampled_from([0, 2, 1000]),
    st.data(),
)
def test_every_allowed_reader_gets_a_private_event_live_and_in_replay(
    steps: list[tuple[list[str], bool]],
    wanted: list[str],
    rights: Rights | None,
    kept: int,
    data: st.DataObject,
) -> None:
    """Subscribes in between, sweeps in between, resumes after everything, with little memory."""
    node = Node(HistoryOptions(history_events=kept), disk=Disk(), page_bytes=300)
    with pytest.MonkeyPatch.context() as patched, contextlib.closing(node):
        patched.setattr(time_budget, "BURST_S", 0.0)
        patched.setattr(channels_module, "LOOKS_AT_ONCE", data.draw(st.sampled_from([1, 1000])))
        patched.setattr(channels_module, "LOOKS_A_STEP", 1)
        node.store.holds = data.draw(st.booleans())
        begin = data.draw(st.integers(0, len(steps)))
        start = node.publish("elsewhere", "place")
        live: Client | None = None
        expected: list[tuple[int, str]] = []
        for index, (topics, private) in enumerate(steps):
            if index == begin:
                live = node.subscribe(*wanted, rights=rights)
            if data.draw(st.booleans()):
                node.hub.sweep(node.now_ms)
            node.publish(topics, str(index), private=private)
            if matches(wanted, topics) and (
                not private or (rights is not None and matches(rights.subscribe, topics))
            ):
                expected.append((index, str(index)))
        late = node.resume(*wanted, after=start, rights=rights)
        everything = [word for _, word in expected]
        node.run_until(lambda: node.hub.streams.replays == 0 and len(late.data) >= len(everything))
        assert late.data == everything
        assert late.gaps == []
        if live is not None:
            newer = [word for index, word in expected if index >= begin]
            node.run_until_received(live, len(newer))
            assert live.data == newer


def matches(texts: "list[str] | tuple[str, ...]", topics: list[str]) -> bool:
    return any(compile_selector(text).matches(topic) for text in texts for topic in topics)
