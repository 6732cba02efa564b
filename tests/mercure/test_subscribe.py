"""Subscribing: statements S1 to S9 of the protocol (its 0.x dialect)."""

import re
from urllib.parse import quote

import pytest

from fastsse.server import Server
from tests.http.conftest import Start
from tests.http.raw import connected, request
from tests.mercure.client import HUB, KEY, ask, bearer, subscribed, texts, update


async def test_S1_the_hub_is_at_the_well_known_path(hub: Server) -> None:
    async with subscribed(hub, "topic=a") as stream:
        await update(hub, "a", "hello")
        assert await texts(stream, 1) == ["hello"]
    assert (await ask(hub, "GET", "/mercure?topic=a")).status == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_S2_other_methods_are_not_allowed(hub: Server, method: str) -> None:
    answer = await ask(hub, method, f"{HUB}?topic=a")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST, HEAD, OPTIONS")


async def test_S1_the_page_tells_where_the_hub_is(hub: Server) -> None:
    assert (await ask(hub, "GET", "/")).headers["link"] == f'<{HUB}>; rel="mercure"'


async def test_S2_head_is_answered_as_get(hub: Server) -> None:
    answer = await ask(hub, "HEAD", f"{HUB}?topic=a")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    assert (await ask(hub, "HEAD", HUB)).status == 400
    assert hub.stream_count == 0


async def test_S3_a_subscription_needs_a_topic_and_other_names_mean_nothing(hub: Server) -> None:
    assert (await ask(hub, "GET", HUB)).status == 400
    assert (await ask(hub, "GET", f"{HUB}?Topic=a&topics=b")).status == 400
    async with subscribed(hub, "topic=a&unknown=1&last=2&Topic=x&since=never") as stream:
        await update(hub, "a")
        assert await texts(stream, 1) == ["x"]


async def test_S4_a_thousand_topics_are_taken_and_one_more_is_not(hub: Server) -> None:
    query = "&".join(f"topic={number}" for number in range(1000))
    async with subscribed(hub, query) as stream:
        await update(hub, "999")
        assert await texts(stream, 1) == ["x"]
    answer = await ask(hub, "GET", f"{HUB}?{query}&topic=0")
    assert (answer.status, answer.field) == (400, "topic")


async def test_S5_a_stream_opens_at_once_with_a_comment(hub: Server) -> None:
    async with subscribed(hub, "topic=a") as stream:
        assert stream.body == b":\n"
        assert stream.headers["content-type"] == "text/event-stream"


async def test_S6_no_proxy_may_store_or_buffer_a_stream(hub: Server) -> None:
    async with subscribed(hub, "topic=a") as stream:
        assert stream.headers["cache-control"] == (
            "private, no-cache, no-store, must-revalidate, max-age=0"
        )
        assert stream.headers["pragma"] == "no-cache"
        assert stream.headers["x-accel-buffering"] == "no"
        # Unlike the reference hub, which does not close the connection behind a stream.
        assert stream.headers["connection"] == "close"


async def test_S7_a_subscriber_without_room_receives_a_retry_time_and_never_503(
    start: Start,
) -> None:
    """Here we differ from the hub on purpose: a 503 ends an EventSource for good."""
    hub = await start(jwt_key=KEY, anonymous=True, max_connections=1)
    async with subscribed(hub, "topic=a"), connected(hub) as raw:
        await raw.send(request("GET", f"{HUB}?topic=a"))
        status, _ = await raw.head()
        assert (status, (await raw.rest())[:7]) == (200, b"retry: ")


async def test_S8_an_update_comes_once_however_many_selectors_match(hub: Server) -> None:
    query = "topic=a&topic=b&topic=" + quote("{x}") + "&topic=a"
    async with subscribed(hub, query) as stream:
        await update(hub, "a", "both", ("topic", "b"))
        await update(hub, "b", "one")
        assert await texts(stream, 2) == ["both", "one"]


async def test_S9_the_hub_names_subscribers_and_clients_can_not(hub: Server) -> None:
    by = bearer(subscribe=["*"])
    seen = set()
    for _ in range(2):
        async with subscribed(hub, "topic=a&subscriber=me&id=me", by):
            listed = (await ask(hub, "GET", f"{HUB}/subscriptions/a", by)).json
            (one,) = listed["subscriptions"]
            assert re.fullmatch(
                r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
                one["subscriber"],
            )
            seen.add(one["subscriber"])
    assert len(seen) == 2
