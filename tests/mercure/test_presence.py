"""Active subscriptions: statements E1 to E8, and the plain form."""

import asyncio
import json
from urllib.parse import quote, quote_plus

import pytest

from fastsse.server import Server
from tests.http.conftest import Start
from tests.http.raw import get, opened, until
from tests.mercure.client import HUB, KEY, ask, bearer, publish, subscribed, texts, update

ALL = "/.well-known/mercure/subscriptions{/topic}{/subscriber}"
WATCHER = bearer(subscribe=[ALL, f"{HUB}/subscriptions"])


async def watched(stream: object) -> dict[str, object]:
    """The next subscription event."""
    event = await stream.next()  # type: ignore[attr-defined]
    assert event.type == "message"
    document: dict[str, object] = json.loads(event.data)
    return document


async def test_E1_each_start_and_each_end_is_a_private_update(hub: Server) -> None:
    async with subscribed(hub, "topic=" + quote(ALL), WATCHER) as watcher:
        assert (await watched(watcher))["topic"] == ALL
        async with subscribed(hub, "topic=a&topic=b"):
            started = [await watched(watcher) for _ in range(2)]
        ended = [await watched(watcher) for _ in range(2)]
    assert [(one["topic"], one["active"]) for one in started] == [("a", True), ("b", True)]
    assert [(one["topic"], one["active"]) for one in ended] == [("a", False), ("b", False)]
    assert {one["id"] for one in started} == {one["id"] for one in ended}
    assert len({one["subscriber"] for one in started}) == 1


async def test_E1_who_has_no_grant_sees_nothing(hub: Server) -> None:
    async with subscribed(hub, "topic=*", bearer(subscribe=["a", "b"])) as stream:
        async with subscribed(hub, "topic=a"):
            pass
        await update(hub, "end", "end")
        assert await texts(stream, 1) == ["end"]


async def test_E2_E3_topic_and_document_are_as_the_hub_writes_them(hub: Server) -> None:
    topic = "https://example.com/a b/{x}?y=1&z=ü"
    by = bearer(subscribe=["a"], payload={"user": "ann", "n": [1]})
    # No template can become a plus, so a template does not see the space in this topic.
    async with subscribed(hub, "topic=*", bearer(subscribe=["*"])) as watcher:
        await watched(watcher)
        async with subscribed(hub, f"topic={quote(topic)}", by):
            document = await watched(watcher)
    subscriber = document["subscriber"]
    path = f"{HUB}/subscriptions/{quote_plus(topic)}/{quote_plus(str(subscriber))}"
    assert document == {
        "@context": "https://mercure.rocks/",
        "id": path,
        "type": "Subscription",
        "topic": topic,
        "subscriber": subscriber,
        "active": True,
        "payload": {"user": "ann", "n": [1]},
    }
    assert "a+b" in path


async def test_E4_without_a_payload_there_is_none(hub: Server) -> None:
    async with (
        subscribed(hub, "topic=" + quote(ALL), WATCHER) as watcher,
        subscribed(hub, "topic=a"),
    ):
        await watched(watcher)
        assert "payload" not in await watched(watcher)


async def test_E5_who_is_announced_is_listed_and_who_ended_is_not(hub: Server) -> None:
    async with subscribed(hub, "topic=" + quote(ALL), WATCHER) as watcher:
        await watched(watcher)
        async with subscribed(hub, "topic=a"):
            path = str((await watched(watcher))["id"])
            assert (await ask(hub, "GET", path, WATCHER)).status == 200
        await watched(watcher)
        assert (await ask(hub, "GET", path, WATCHER)).status == 404


async def test_E6_all_of_a_topic_or_one(hub: Server) -> None:
    async with subscribed(hub, "topic=a&topic=b"), subscribed(hub, "topic=a"):
        every = (await ask(hub, "GET", f"{HUB}/subscriptions", WATCHER)).json
        assert sorted(one["topic"] for one in every["subscriptions"]) == ["a", "a", "b"]
        of_b = (await ask(hub, "GET", f"{HUB}/subscriptions/b", WATCHER)).json
        (one,) = of_b["subscriptions"]
        alone = (await ask(hub, "GET", one["id"], WATCHER)).json
        assert {**one, "@context": every["@context"]} == {
            name: value for name, value in alone.items() if name != "lastEventID"
        }
        none = (await ask(hub, "GET", f"{HUB}/subscriptions/c", WATCHER)).json
        assert none["subscriptions"] == []
        other = one["id"].replace("/b/", "/a%2F/")
        assert (await ask(hub, "GET", other, WATCHER)).status == 404


@pytest.mark.parametrize("grants", [None, [], ["a"], [f"{HUB}/subscriptions/b"]])
async def test_E6_the_token_must_cover_the_path(hub: Server, grants: list[str] | None) -> None:
    headers = [] if grants is None else [bearer(subscribe=grants)]
    for path in (f"{HUB}/subscriptions", f"{HUB}/subscriptions/a", f"{HUB}/subscriptions/a/b"):
        assert (await ask(hub, "GET", path, *headers)).status == 401


async def test_E6_one_path_may_be_granted_alone(hub: Server) -> None:
    path = f"{HUB}/subscriptions/a"
    by = bearer(subscribe=[path])
    assert (await ask(hub, "GET", path, by)).status == 200
    assert (await ask(hub, "GET", f"{HUB}/subscriptions/b", by)).status == 401
    assert (await ask(hub, "GET", f"{HUB}/subscriptions/%61", by)).status == 401
    answer = await ask(hub, "GET", f"{HUB}/subscriptions")
    assert (answer.status, answer.json["detail"]) == (
        401,
        "Listing subscriptions requires a token.",
    )


@pytest.mark.parametrize("rest", ["/", "/a/", "//b", "/a/b/c", "/%ff", "/%zz"])
async def test_E6_what_is_no_subscriptions_path_is_refused(hub: Server, rest: str) -> None:
    answer = await ask(hub, "GET", f"{HUB}/subscriptions{rest}", bearer(subscribe=["*"]))
    assert answer.status in (400, 404)


async def test_E6_without_the_option_there_is_nothing(start: Start) -> None:
    hub = await start(jwt_key=KEY)
    by = bearer(subscribe=["*"])
    for path in (f"{HUB}/subscriptions", f"{HUB}/subscriptions/a", "/presence?topic=a"):
        assert (await ask(hub, "GET", path, by)).status == 404
    async with subscribed(hub, "topic=*", by) as stream:
        async with subscribed(hub, "topic=a", by):
            pass
        await update(hub, "end", "end")
        assert await texts(stream, 1) == ["end"]


async def test_E7_a_collection_names_the_place_from_which_changes_follow(hub: Server) -> None:
    await update(hub, "a")
    answer = await ask(hub, "GET", f"{HUB}/subscriptions", WATCHER)
    assert answer.headers["content-type"] == "application/ld+json"
    body = answer.json
    assert (body["@context"], body["type"]) == ("https://mercure.rocks/", "Subscriptions")
    assert body["id"] == f"{HUB}/subscriptions"
    async with subscribed(hub, "topic=b"):
        await until(lambda: hub.stream_count == 1)
        query = f"topic={quote(ALL)}&lastEventID={quote(body['lastEventID'])}"
        async with subscribed(hub, query, WATCHER) as watcher:
            assert (await watched(watcher))["topic"] == "b"


async def test_E8_the_etag_is_the_last_id_and_304_answers_it(hub: Server) -> None:
    path = f"{HUB}/subscriptions"
    before = await ask(hub, "GET", path, WATCHER)
    assert (before.headers["etag"], before.json["lastEventID"]) == ("earliest", "earliest")
    last = await update(hub, "a")
    answer = await ask(hub, "GET", path, WATCHER)
    assert (answer.headers["etag"], answer.json["lastEventID"]) == (last, last)
    for known in (last, f'"{last}"', f'"x", W/"{last}"'):
        again = await ask(hub, "HEAD", path, WATCHER, f"If-None-Match: {known}")
        assert (again.status, again.headers["etag"]) == (304, last)
    assert (await ask(hub, "GET", path, WATCHER, "If-None-Match: x")).status == 200


# ── The plain form ────────────────────────────────────────────────────────────────────────────


async def test_presence_counts_and_lists_who_asks_for_a_topic(hub: Server) -> None:
    by = bearer(subscribe=["a"], payload="ann")
    async with opened(hub.addresses[0]) as raw, subscribed(hub, "topic=a", by):
        await raw.send(get("/events?topic=a"))
        await (await raw.stream()).opening()
        body = (await ask(hub, "GET", "/presence?topic=a", WATCHER)).json
        assert (body["topic"], body["count"]) == ("a", 2)
        payloads = [one.get("payload") for one in body["subscribers"]]
        assert sorted(payloads, key=str) == [None, "ann"]
        body = (await ask(hub, "GET", "/presence?topic=a&limit=1", WATCHER)).json
        assert (body["count"], len(body["subscribers"])) == (2, 1)
        assert (await ask(hub, "GET", "/presence?topic=b", WATCHER)).json["count"] == 0


@pytest.mark.parametrize(
    "query", ["", "topic=", "topic=a&topic=b", "topic=a&limit=-1", "topic=a&limit=10001"]
)
async def test_presence_refuses_what_it_does_not_understand(hub: Server, query: str) -> None:
    assert (await ask(hub, "GET", f"/presence?{query}", WATCHER)).status == 400


async def test_presence_needs_a_grant(hub: Server) -> None:
    unknown = await ask(hub, "GET", "/presence?topic=a")
    assert (unknown.status, unknown.headers["www-authenticate"][:6]) == (401, "Bearer")
    assert (await ask(hub, "GET", "/presence?topic=a", bearer(subscribe=["a"]))).status == 403


async def test_many_that_come_and_go_leave_nothing(hub: Server) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(_come_and_go(hub, number))
    await until(lambda: hub.stream_count == 0)
    answer = await ask(hub, "GET", f"{HUB}/subscriptions", WATCHER)
    while answer.json["subscriptions"]:
        answer = await ask(hub, "GET", f"{HUB}/subscriptions", WATCHER)
    assert (await publish(hub, ("topic", "a"))).status == 200


async def _come_and_go(hub: Server, number: int) -> None:
    async with subscribed(hub, f"topic={number}&topic=all"):
        pass
