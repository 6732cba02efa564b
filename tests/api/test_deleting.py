"""Deleted events and purged topics: what readers see afterwards, and who may delete."""

import json

import pytest

from fastsse.errors import NotKept
from tests.auth.minting import SECRET, grants, mint
from tests.http.raw import connected, get, request, until


def token(**claims: object) -> str:
    return f"Authorization: Bearer {mint(grants(**claims)).decode()}"


async def replayed(server, query: str) -> list[str]:
    """The data of the events that a new stream replays, up to one that is published behind them."""
    async with connected(server) as raw:
        await raw.send(get(f"/events?{query}"))
        stream = await raw.stream()
        last = server.publish("end", "end")
        found = []
        while (event := await stream.next()).last_event_id != last:
            assert event.type != "fastsse.gap"
            if not event.type.startswith("fastsse.") and "end" not in event.data:
                found.append(event.data)
        return found


def id_in(answer) -> str:
    assert answer.status == 200
    return answer.json["id"]


async def test_no_read_that_begins_after_the_answer_shows_a_deleted_event(ask, server) -> None:
    ids = [server.publish(("a", "b") if n == 1 else "a", f"n{n}") for n in range(3)]
    queries = (
        "topic=a&topic=end&last_event_id=earliest",
        "topic=b&topic=end&last_event_id=earliest",
        "topic=*&since=1h",
        "topic=a&topic=end&last=2",
        "topic=a&topic=end&last_each=3",
        "topic=a&topic=end&last_event_id=earliest&envelope=json",
    )
    # Pages and snapshots are in the caches now.
    before = {query: await replayed(server, query) for query in queries}
    control = id_in(await ask("DELETE", f"/events?topic=a&id={ids[1]}"))
    assert control > ids[2]
    for query in queries:
        found = await replayed(server, query)
        assert not any("n1" in data for data in found)
        if "last=" not in query:
            assert found == [data for data in before[query] if "n1" not in data]
    # The place of the deleted event, and of its deletion, are places to resume from.
    assert await replayed(server, f"topic=a&topic=end&last_event_id={ids[1]}") == ["n2"]
    assert await replayed(server, f"topic=a&topic=end&last_event_id={control}") == []


async def test_a_purge_empties_the_topic_and_keeps_its_state(ask, server) -> None:
    first = server.publish("a", "one", id="mine")
    server.publish(("a", "b"), "both")
    server.publish("b", "other")
    await server.end_topic("a")
    id_in(await ask("DELETE", "/topics?topic=a"))
    assert await replayed(server, "topic=a&topic=b&topic=end&since=1h") == ["other"]
    assert await replayed(server, f"topic=b&topic=end&last_event_id={first}") == ["other"]
    assert (await ask("POST", "/events?topic=a", body=b"x")).status == 409
    assert (await ask("DELETE", "/topics?topic=a")).status == 404


async def test_live_streams_that_ask_get_notices_and_no_others(ask, server) -> None:
    async with connected(server) as asking, connected(server) as plain, connected(server) as one:
        await asking.send(get("/events?topic=a&deleted=true&filter=data.n%3E5"))
        await plain.send(get("/events?topic=a"))
        await one.send(get("/events?topic=b&deleted=true&envelope=json&max_rate=1"))
        streams = [await raw.stream() for raw in (asking, plain, one)]
        event_id = server.publish("a", {"n": 1}, id="mine")
        control = id_in(await ask("DELETE", "/events?topic=a&id=mine"))
        last = server.publish("a", {"n": 9})
        notice = await streams[0].next()
        assert (notice.type, notice.last_event_id) == ("fastsse.deleted", control)
        assert json.loads(notice.data) == {"op": "delete", "topic": "a", "id": event_id}
        assert (await streams[0].next()).last_event_id == last
        assert [(await streams[1].next()).data for _ in "12"] == ['{"n":1}', '{"n":9}']
        server.publish("b", "x")
        await streams[2].next()
        purge = id_in(await ask("DELETE", "/topics?topic=b"))
        notice = await streams[2].next()
        assert (notice.type, notice.last_event_id) == ("fastsse.deleted", purge)
        assert json.loads(notice.data) == {"op": "purge", "topic": "b", "through": purge}


async def test_streams_that_come_back_get_notices_of_deletions(ask, server) -> None:
    first = server.publish("a", "one")
    control = id_in(await ask("DELETE", f"/events?topic=a&id={first}"))
    server.publish("a", "two")
    async with connected(server) as raw:
        await raw.send(get(f"/events?topic=a&deleted=true&last_event_id={first}"))
        stream = await raw.stream()
        notice = await stream.next()
        assert (notice.type, notice.last_event_id) == ("fastsse.deleted", control)
        assert (await stream.next()).data == "two"


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("/events", 400, "topic"),
        ("/events?topic=a", 400, "id"),
        ("/events?topic=a&id=", 400, "id"),
        ("/events?topic=a&id=1-1&id=2-1", 400, "id"),
        ("/events?topic=a&topic=b&id=1-1", 400, "topic"),
        (f"/events?topic=a&id={'x' * 257}", 400, "id"),
        ("/events?topic=a&id=1-1&why=x", 400, "why"),
        ("/events?topic=$sys&id=1-1", 400, "topic"),
        ("/events?topic=a&id=1-1", 404, "id"),
        ("/events?topic=a&id=99999999999999-1", 404, "id"),
        ("/events?topic=a&id=earliest", 404, "id"),
        ("/events?topic=a&id=unknown", 404, "id"),
        ("/topics", 400, "topic"),
        ("/topics?topic=", 400, "topic"),
        ("/topics?topic=a&topic=b", 400, "topic"),
        ("/topics?topic=a", 404, "topic"),
    ],
)
async def test_a_deletion_that_can_not_be_is_refused(ask, path, status, field) -> None:
    answer = await ask("DELETE", path)
    assert (answer.status, answer.field) == (status, field)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_what_is_deleted_is_unknown_and_a_body_is_refused(ask, server) -> None:
    event_id = server.publish("a", "x")
    assert (await ask("DELETE", f"/events?topic=b&id={event_id}")).status == 404
    answer = await ask("DELETE", f"/events?topic=a&id={event_id}", body=b"x")
    assert (answer.status, answer.field) == (400, "body")
    assert (await ask("DELETE", f"/events?topic=a&id={event_id}")).status == 200
    assert (await ask("DELETE", f"/events?topic=a&id={event_id}")).status == 404
    with pytest.raises(NotKept):
        await server.delete_event("a", event_id)
    with pytest.raises(NotKept):
        await server.purge_topic("a")
    other = server.publish("a", "y", id="own")
    assert (await server.delete_event("a", "own"), other)[1] == "own"


async def test_a_deletion_needs_the_rights_to_publish_to_every_topic_of_the_event(start) -> None:
    server = await start(jwt_key=SECRET)
    both = server.publish(("a", "b"), "x")
    only_a, all_of_it = token(publish=["a"]), token(publish=["a", "b"])
    for path, status in (
        (f"/events?topic=a&id={both}", 403),
        (f"/events?topic=b&id={both}", 403),
        ("/topics?topic=b", 403),
    ):
        async with connected(server) as raw:
            await raw.send(request("DELETE", path, only_a))
            assert (await raw.answer()).status == status
    for header, status in (("X-None: 1", 401), (all_of_it, 200)):
        async with connected(server) as raw:
            await raw.send(request("DELETE", f"/events?topic=a&id={both}", header))
            assert (await raw.answer()).status == status


async def test_a_private_deletion_is_shown_to_grants_only(start) -> None:
    server = await start(jwt_key=SECRET, anonymous=True)
    reader = token(subscribe=["a"])
    async with connected(server) as granted, connected(server) as public:
        await granted.send(get("/events?topic=a&deleted=true", reader))
        await public.send(get("/events?topic=a&deleted=true"))
        await until(lambda: server.stream_count == 2)
        event_id = server.publish(("a", "secret"), "x", private=True)
        await server.delete_event("a", event_id)
        server.publish("a", "public")
        stream = await granted.stream()
        assert (await stream.next()).data == "x"
        assert json.loads((await stream.next()).data) == {"op": "delete", "id": event_id}
        assert (await (await public.stream()).next()).data == "public"


async def test_notices_need_control_events_and_a_switch(ask) -> None:
    for query in ("deleted=maybe", "deleted=true&fastsse=false", "deleted=true&deleted=true"):
        answer = await ask("GET", f"/events?topic=a&{query}")
        assert (answer.status, answer.field) == (400, "deleted")
