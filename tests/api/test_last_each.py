"""`last_each=N`: the newest events of each topic when a stream begins, and after a gap."""

import json

import pytest

from tests.http.raw import Raw, Stream, connected, get

GAP, SNAPSHOT = "fastsse.gap", "fastsse.snapshot"


async def snapshot(stream: Stream) -> tuple[list[str], dict]:
    """The data of the events up to the end of the snapshot, and what that says."""
    data = []
    while (message := await stream.next()).type != SNAPSHOT:
        data.append(message.data)
    return data, {**json.loads(message.data), "id": message.last_event_id}


async def begun(raw: Raw, path: str, *headers: str) -> Stream:
    await raw.send(get(path, *headers))
    return await raw.stream()


@pytest.fixture
def ids(server) -> list[str]:
    """Of `a1 b1 a2 b2 a3`, and of an event of both `t/1` and `t/2`."""
    data = [("a", "a1"), ("b", "b1"), ("a", "a2"), ("b", "b2"), ("a", "a3")]
    return [*(server.publish(*one) for one in data), server.publish(["t/1", "t/2"], "both")]


@pytest.mark.parametrize(
    ("query", "data", "topics"),
    [
        ("topic=a&topic=b&last_each=1", ["b2", "a3"], 2),
        ("topic=a&topic=b&last_each=2", ["b1", "a2", "b2", "a3"], 2),
        ("topic=a&topic=none&last_each=5", ["a1", "a2", "a3"], 1),
        ("topic=none&last_each=1", [], 0),
        ("topic=t/{id}&last_each=1", ["both"], 2),
        ("topic=t/{id}&topic=b&last_each=1", ["b2", "both"], 3),
        ("topic=*&last_each=1", ["b2", "a3", "both"], 4),
    ],
)
async def test_stream_begins_with_the_newest_of_each_topic(
    server, ids, query: str, data: list[str], topics: int
) -> None:
    async with connected(server) as raw:
        stream = await begun(raw, f"/events?{query}")
        found, end = await snapshot(stream)
        assert found == data
        assert end == {"topics": topics, "events": len(data), "complete": True, "id": ids[-1]}
        for topic in ("a", "b", "none", "t/9"):
            server.publish(topic, f"live {topic}")
        assert (await stream.next()).data.startswith("live ")


async def test_an_id_that_can_be_continued_is(server, ids) -> None:
    async with connected(server) as raw:
        path = "/events?topic=a&topic=b&last_each=1"
        stream = await begun(raw, path, f"Last-Event-ID: {ids[1]}")
        assert [(await stream.next()).data for _ in range(3)] == ["a2", "b2", "a3"]
        server.publish("a", "live")
        assert (await stream.next()).data == "live"


async def test_client_that_is_cut_before_the_snapshot_gets_it_again(server, ids) -> None:
    """The opening names no place, or the return would be taken for one that has everything."""
    async with connected(server) as raw:
        stream = await begun(raw, "/events?topic=a&last_each=1")
        first = await stream.next()
        assert (first.data, first.last_event_id) == ("a3", ids[4])
        assert stream.parsed.retry_ms is not None


@pytest.mark.parametrize("lost", ["never-published", "1999999999999-1"])
async def test_a_cursor_that_cannot_be_continued_gets_a_gap_and_a_snapshot(
    server, ids, lost: str
) -> None:
    async with connected(server) as raw:
        stream = await begun(raw, "/events?topic=a&topic=b&last_each=1", f"Last-Event-ID: {lost}")
        gap = await stream.next()
        assert gap.type == GAP
        assert gap.last_event_id == ""  # A cut before the snapshot asks with the old id again.
        assert await snapshot(stream) == (
            ["b2", "a3"],
            {"topics": 2, "events": 2, "complete": True, "id": ids[-1]},
        )


async def test_what_was_evicted_is_followed_by_a_snapshot(start) -> None:
    server = await start(history_events=3)
    first = server.publish("a", "first")
    for n in range(9):
        server.publish("a", str(n))
    async with connected(server) as raw:
        stream = await begun(raw, "/events?topic=a&last_each=2", f"Last-Event-ID: {first}")
        gap = await stream.next()
        assert (gap.type, json.loads(gap.data)["reason"]) == (GAP, "evicted")
        found, _ = await snapshot(stream)
        assert found == ["7", "8"]


async def test_without_control_events_the_snapshot_has_no_marker(server, ids) -> None:
    async with connected(server) as raw:
        path = "/events?topic=a&topic=b&last_each=1&fastsse=false"
        stream = await begun(raw, path, "Last-Event-ID: unknown")
        server.publish("a", "live")
        assert [(await stream.next()).data for _ in range(3)] == ["b2", "a3", "live"]


async def test_long_snapshots_are_sent_in_pages_and_events_meanwhile_come_after(server) -> None:
    for n in range(300):
        server.publish(f"s/{n}", "x" * 4000)
    async with connected(server) as raw:
        stream = await begun(raw, "/events?topic=s/{n}&last_each=1")
        await stream.next()
        last = server.publish("s/1", "meanwhile")
        found, end = await snapshot(stream)
        assert (len(found), end["events"]) == (299, 300)
        message = await stream.next()
        assert (message.data, message.last_event_id) == ("meanwhile", last)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("last_each=0", "above 0"),
        ("last_each=-1", "above 0"),
        ("last_each=x", "above 0"),
        ("last_each=", "above 0"),
        ("last_each=1&last_each=2", "once"),
        ("last_each=10001", "at most 10000"),
        ("topic=b&last_each=5001", "at most 5000 for 2 topics"),
        ("last_each=1&last=1", "combined with last"),
        ("last_each=1&since=1h", "combined with since"),
    ],
)
async def test_absurd_values_are_refused(ask, query: str, why: str) -> None:
    answer = await ask("GET", f"/events?topic=a&{query}")
    assert answer.status == 400
    assert why in answer.json["detail"]
