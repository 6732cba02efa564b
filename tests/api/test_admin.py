"""The operator's side over HTTP: who may, what it lists, and what it does."""

import json
import logging
import os
import time
from contextlib import AsyncExitStack
from urllib.parse import quote

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_families,
)
from prometheus_client.parser import text_string_to_metric_families as classic_families

from fastsse.server import Server
from tests.api.operators import HTML, PASSWORD, Subscriber, listed, operator
from tests.auth.minting import mint
from tests.http.conftest import Start
from tests.http.raw import connected, request, until
from tests.mercure.client import KEY, ask

# ── Who may ───────────────────────────────────────────────────────────────────────────────────


async def test_a_role_is_a_claim_and_a_grant_of_everything_is_none(start: Start) -> None:
    server = await start(jwt_key=KEY)
    for header, reads, acts in (
        (operator("act"), 200, 200),
        (operator("read"), 200, 403),
        (operator(None), 403, 403),
        (operator("all"), 401, 401),
        (operator("act", key="another secret of at least 32 bytes"), 401, 401),
        ("Accept: */*", 401, 401),
    ):
        read = await ask(server, "GET", "/admin/topics", header)
        act = await ask(server, "DELETE", "/admin/connections?subject=none", header)
        assert (read.status, act.status) == (reads, acts), header
    cookie = operator().replace("Authorization: Bearer ", "Cookie: mercureAuthorization=")
    token = operator().rpartition(" ")[2]
    assert (await ask(server, "GET", "/admin/topics", cookie)).status == 401
    query = await ask(server, "GET", f"/admin/topics?authorization={token}", operator())
    assert (query.status, query.field) == (400, "authorization")


async def test_keys_that_sign_only_subscribers_make_no_operators(start: Start) -> None:
    other = "another secret of at least 32 bytes"
    server = await start(publisher_jwt_key=other, subscriber_jwt_key=KEY)
    assert (await ask(server, "GET", "/admin/topics", operator())).status == 401
    assert (await ask(server, "GET", "/admin/topics", operator(key=other))).status == 200


async def test_the_password_opens_and_nothing_else_does(start: Start) -> None:
    server = await start(console_password="open-sesame")
    assert (await ask(server, "GET", "/admin/topics", PASSWORD)).status == 200
    for header in ("Authorization: Bearer no", "Authorization: Basic open-sesame", "Accept: */*"):
        answer = await ask(server, "GET", "/admin/topics", header)
        assert answer.status == 401
        assert "www-authenticate" in answer.headers


async def test_without_both_only_this_machine_and_its_own_pages_may(server: Server) -> None:
    for status, headers in (
        (200, ()),
        (200, ("Origin: http://localhost",)),
        (403, ("Origin: https://evil.example",)),
        (403, ("Origin: null",)),
        (403, ("X-Forwarded-For: 192.0.2.1",)),
    ):
        method, path = "DELETE", "/admin/connections?subject=none"
        assert (await ask(server, method, path, *headers)).status == status, headers


async def test_a_server_behind_a_proxy_needs_a_role(start: Start) -> None:
    server = await start(trusted_proxies=["127.0.0.1"])
    answer = await ask(server, "GET", "/admin/topics")
    assert (answer.status, answer.field) == (403, "console_password")


# ── What is listed ────────────────────────────────────────────────────────────────────────────


async def test_a_stream_is_listed_by_the_id_that_it_has_everywhere(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    server = await start(jwt_key=KEY, subscriptions=True, access_lines=10)
    token = mint({"sub": "ann", "mercure": {"subscribe": ["*"]}}, key=KEY).decode()
    bearer = f"Authorization: Bearer {token}"
    with caplog.at_level(logging.INFO, "fastsse.access"):
        async with Subscriber(server, "topic=news", bearer, f"User-Agent: {HTML}"):
            (row,) = await listed(server, "topic=news", operator())
            presence = await ask(server, "GET", "/presence?topic=news", bearer)
        await until(lambda: any("closed" in one.message for one in caplog.records))
    (subscriber,) = presence.json["subscribers"]
    assert subscriber["subscriber"].removeprefix("urn:uuid:").replace("-", "") == row["id"]
    named = {one.stream for one in caplog.records if one.message.startswith("Stream ")}
    assert named == {row["id"]}
    assert (row["agent"], row["subject"], row["topics"]) == (HTML, "ann", ["news"])
    assert row["address"].startswith("127.0.0.1:")
    assert row["state"] == "live"
    assert row["grants"] == ["*"]


async def test_filters_choose_and_pages_have_each_stream_once(server: Server) -> None:
    async with (
        Subscriber(server, "topic=a", "User-Agent: one"),
        Subscriber(server, "topic=a&topic=b", "User-Agent: two"),
        Subscriber(server, "topic=rooms/{id}", "User-Agent: three"),
    ):
        agents = {query: {row["agent"] for row in await listed(server, query)} for query in (
            "", "topic=a", "topic=rooms/7", "topic=none", "agent=TW", "address=127.0.0.0/8",
            "address=10.0.0.0/8", "state=blocked",
        )}  # fmt: skip
        assert agents == {
            "": {"one", "two", "three"},
            "topic=a": {"one", "two"},
            "topic=rooms/7": {"three"},
            "topic=none": set(),
            "agent=TW": {"two"},
            "address=127.0.0.0/8": {"one", "two", "three"},
            "address=10.0.0.0/8": set(),
            "state=blocked": set(),
        }
        ids, after = [], ""
        while True:
            page = (await ask(server, "GET", f"/admin/connections?limit=1{after}")).json
            ids += [row["id"] for row in page["connections"]]
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        assert len(ids) == len(set(ids)) == 3
        (one,) = await listed(server, f"id={ids[0]}")
        assert one["id"] == ids[0]
        assert await listed(server, f"id={'0' * 32}") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("after=1.2", "after"),
        ("id=7", "id"),
        ("address=nowhere", "address"),
        ("address=10.0.0.1/8", "address"),
        ("state=live", "state"),
        ("subject=", "subject"),
        ("topic=a&topic=b", "topic"),
        ("topics=a", "topics"),
        ("topic=" + "x" * 1025, "topic"),
    ],
)
async def test_a_mistyped_filter_is_refused(server: Server, query: str, field: str) -> None:
    answer = await ask(server, "GET", f"/admin/connections?{query}")
    assert (answer.status, answer.field) == (400, field)


async def test_workers_say_what_they_hold(server: Server) -> None:
    async with Subscriber(server, "topic=news"):
        answer = (await ask(server, "GET", "/admin/nodes")).json
    (row,) = answer["workers"]
    assert (row["worker"], row["connections"], row["state"]) == (0, 1, "ready")
    assert row["pid"] == os.getpid()
    assert row["room"] > 0
    assert row["resident_bytes"] > 1 << 20
    assert answer["missing"] == []
    refused = await ask(server, "GET", "/admin/nodes?limit=1")
    assert (refused.status, refused.field) == (400, "limit")


async def test_topics_say_who_has_them_and_what_is_kept(server: Server) -> None:
    for data in ("1", "22", "333"):
        server.publish("b", data)
    server.publish(HTML, "x", private=True)
    async with (
        Subscriber(server, "topic=b&topic=c"),
        Subscriber(server, "topic={any}"),
        Subscriber(server, "topic=*"),
    ):
        answer = (await ask(server, "GET", "/admin/topics")).json
        assert answer["everything"] == 1
        rows = {row["topic"]: row for row in answer["topics"]}
        assert {name: row["subscribers"] for name, row in rows.items()} == {HTML: 0, "b": 2, "c": 2}
        assert (rows["b"]["events"], rows["c"]["events"]) == (3, 0)
        assert rows["b"]["rate"] > 0
        assert rows[HTML]["last_is_private"]
        page = (await ask(server, "GET", "/admin/topics?limit=1")).json
        assert ([row["topic"] for row in page["topics"]], page["next"]) == ([HTML], HTML)
        page = (await ask(server, "GET", f"/admin/topics?after={quote(HTML)}")).json
        assert [row["topic"] for row in page["topics"]] == ["b", "c"]
        for sort, first in (("subscribers", "b"), ("events", "b"), ("rate", "b")):
            page = (await ask(server, "GET", f"/admin/topics?sort={sort}&limit=1")).json
            assert [row["topic"] for row in page["topics"]] == [first]
        matching = (await ask(server, "GET", "/admin/topics?topic=[bx]")).json
        assert [row["topic"] for row in matching["topics"]] == ["b"]
    for query, field in (("sort=size", "sort"), ("sort=rate&after=b", "after")):
        answer = await ask(server, "GET", f"/admin/topics?{query}")
        assert (answer.status, answer.field) == (400, field)


async def test_without_details_connections_are_not_listed_and_still_end_by_id(
    start: Start,
) -> None:
    server = await start(connection_details=False, ping="20ms")
    answer = await ask(server, "GET", "/admin/connections")
    assert (answer.status, answer.field) == (409, "connection_details")
    async with Subscriber(server, "topic=a&ping=true") as raw:
        text = await raw.reader.readuntil(b'"}\n\n')
        name = json.loads(text.rpartition(b"data: ")[2])["stream"]
        answer = await ask(server, "DELETE", f"/admin/connections?id={name}")
        assert answer.json["kicked"] == 1


# ── Metrics of topics ─────────────────────────────────────────────────────────────────────────


async def test_the_busiest_topics_are_metrics_only_where_they_are_asked_for(start: Start) -> None:
    plain, shown = await start(), await start(metrics_topics=2)
    for server in (plain, shown):
        for topic, count in (("a", 1), ('b"\\', 3), ("c", 2)):
            for _ in range(count):
                server.publish(topic, "x")
    async with Subscriber(shown, "topic=c"):
        assert "fastsse_topic_" not in (await ask(plain, "GET", "/metrics")).body.decode()
        classic = (await ask(shown, "GET", "/metrics")).body.decode()
        accept = "Accept: application/openmetrics-text"
        opened = (await ask(shown, "GET", "/metrics", accept)).body.decode()
    for text, read in ((classic, classic_families), (opened, open_families)):
        found = {
            (sample.name.removeprefix("fastsse_topic_"), sample.labels["topic"]): sample.value
            for family in read(text)
            for sample in family.samples
            if sample.name.startswith("fastsse_topic_")
        }
        assert {topic for _, topic in found} == {'b"\\', "c"}
        assert (found["history_events", 'b"\\'], found["history_events", "c"]) == (3, 2)
        assert (found["subscribers", 'b"\\'], found["subscribers", "c"]) == (0, 1)
        assert found["events_per_second", 'b"\\'] > 0


# ── Explanations ──────────────────────────────────────────────────────────────────────────────


async def explained(server: Server, topic: str) -> dict[str, dict[str, str]]:
    answer = await ask(server, "GET", f"/admin/explain?topic={quote(topic)}")
    assert answer.status == 200
    return {check["name"]: check for check in answer.json["checks"]}


async def test_an_explanation_names_the_first_thing_that_is_wrong(server: Server) -> None:
    server.publish("news", "x", event="tick")
    server.publish("secret", "x", private=True)
    wrong = await explained(server, "News/")
    assert wrong["topic name"]["verdict"] == "wrong"
    assert "Subscribe to news" in wrong["topic name"]["do"]
    async with Subscriber(server, "topic=news"):
        right = await explained(server, "news")
    assert {name: check["verdict"] for name, check in right.items()} == {
        "topic name": "ok", "published": "ok", "streams": "ok", "event type": "note",
        "history": "ok", "lag policy": "ok", "service": "ok",
    }  # fmt: skip
    assert 'addEventListener("tick"' in right["event type"]["do"]
    hidden = await explained(server, "secret")
    assert hidden["private"]["verdict"] == "note"
    assert hidden["streams"]["verdict"] == "wrong"
    assert (await explained(server, "nothing like it"))["topic name"]["verdict"] == "wrong"
    assert (await ask(server, "GET", "/admin/explain?topics=a")).status == 400


# ── Live figures ──────────────────────────────────────────────────────────────────────────────


async def test_consoles_share_figures_that_no_selector_finds(start: Start) -> None:
    server = await start(console_password="open-sesame")
    assert (await ask(server, "GET", "/admin/live")).status == 401
    assert (await ask(server, "HEAD", "/admin/live", PASSWORD)).status == 200
    async with AsyncExitStack() as stack:
        watching = []
        for _ in range(3):
            raw = await stack.enter_async_context(connected(server))
            await raw.send(request("GET", "/admin/live", PASSWORD))
            watching.append(await raw.stream())
        for topic in ("*", "/.well-known/mercure/fastsse/console", "{+any}"):
            await stack.enter_async_context(Subscriber(server, f"topic={quote(topic)}"))
        seen = [await stream.next() for stream in watching]
        assert {one.type for one in seen} == {"stats"}
        assert not any(one.last_event_id for one in seen)
        while json.loads(seen[0].data)["connections"] != 6:
            seen = [await stream.next() for stream in watching]
        rows = await listed(server, "", PASSWORD)
        assert sorted(row["events"] for row in rows)[:3] == [0, 0, 0]
    history = await ask(server, "GET", "/admin/history", PASSWORD)
    assert history.json["points"]
    assert history.json["every_s"] == 5
    assert (await ask(server, "GET", "/admin/history")).status == 401


async def test_a_console_ends_when_its_token_does(start: Start) -> None:
    server = await start(jwt_key=KEY)
    soon = operator("read", exp=int(time.time()) + 2)
    lasting = operator("read", sub="ann")
    async with connected(server) as first, connected(server) as second:
        await first.send(request("GET", "/admin/live", soon))
        await first.stream()
        await second.send(request("GET", "/admin/live", lasting))
        stream = await second.stream()
        assert not (await first.reader.read()).endswith(b"0\r\n\r\n")
        assert (await stream.next()).type == "stats"
        bar = await ask(server, "DELETE", "/admin/connections?subject=ann&bar=1m", operator())
        assert bar.json["kicked"] == 1
        await second.reader.read()
        assert (await ask(server, "GET", "/admin/live", lasting)).status == 401
