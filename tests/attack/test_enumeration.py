"""No client learns what it may not read, and no id makes the server work for nothing."""

import json
from urllib.parse import quote

import pytest

from fastsse.server import Server
from tests.attack.conftest import Start
from tests.http.raw import connected, get, request
from tests.mercure.client import HUB, KEY, ask, bearer, publish, subscribed, texts, update

ODD_IDS = [
    "-1",
    "0-0",
    "1-0",
    "00001-1",
    "18446744073709551616-1",
    "1-18446744073709551616",
    "99999999999999999999999999999-1",
    "4102444800000-1",
    "9" * 8_000,
    "urn:uuid:00000000-0000-7000-8000-000000000000",
    "urn:uuid:ffffffff-ffff-7fff-bfff-ffffffffffff",
    "urn:uuid:",
    "\u20ac\u2603",
    "%00",
    "a%0d%0aSet-Cookie:x",
    "../../etc/passwd",
    "'; DROP TABLE events; --",
    "{{7*7}}",
    "true",
    "NaN",
    "1-1\t",
    "#",
]


@pytest.fixture
async def hub(start: Start) -> Server:
    return await start(jwt_key=KEY, anonymous=True)


@pytest.mark.parametrize("odd", ODD_IDS)
@pytest.mark.parametrize("where", ["header", "query"])
async def test_any_id_opens_a_stream_that_says_where_it_goes_on(
    hub: Server, odd: str, where: str
) -> None:
    await update(hub, "a", "old")
    headers = [f"Last-Event-ID: {odd}"] if where == "header" else []
    query = "" if where == "header" else f"&last_event_id={quote(odd)}"
    async with connected(hub) as raw:
        lines = "".join(f"{line}\r\n" for line in headers)
        head = f"GET /events?topic=a{query} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"
        await raw.send(head.encode())
        stream = await raw.stream()
        await stream.opening()
        assert b"Set-Cookie" not in str(stream.headers).encode()
        await update(hub, "a", "live")
        while (await stream.next()).data != "live":
            pass


@pytest.mark.parametrize("size", [20_000, 100_000])
async def test_an_id_of_any_length_is_bounded_by_the_head(hub: Server, size: int) -> None:
    async with connected(hub) as raw:
        await raw.send(get("/events?topic=a", "Last-Event-ID: " + "1" * size))
        assert (await raw.answer()).status == 431


async def test_an_id_of_another_topic_shows_nothing_of_that_topic(hub: Server) -> None:
    other = await update(hub, "other", "not for you")
    await update(hub, "other", "nor this")
    await update(hub, "a", "mine")
    async with subscribed(hub, "topic=a", f"Last-Event-ID: {other}") as stream:
        assert await texts(stream, 1) == ["mine"]


@pytest.mark.parametrize("path", ["/events", HUB])
async def test_a_topic_that_exists_and_one_that_does_not_look_the_same(
    hub: Server, path: str
) -> None:
    await publish(hub, ("topic", "there"), ("private", "1"))
    answers = []
    for topic in ("there", "where"):
        async with connected(hub) as raw:
            await raw.send(request("HEAD", f"{path}?topic={topic}"))
            answers.append((await raw.answer(to_head=True)).headers)
    assert answers[0] == answers[1]
    by = bearer([])
    refusals = [await publish(hub, ("topic", topic), by=by) for topic in ("there", "where")]
    assert refusals[0].body.replace(b"there", b"where") == refusals[1].body


async def test_the_id_of_a_private_event_is_unknown_to_who_may_not_read_it(hub: Server) -> None:
    await publish(hub, ("topic", "a"), ("id", "private-id"), ("private", "1"))
    told = []
    for own in ("private-id", "no-such-id"):
        async with connected(hub) as raw:
            await raw.send(get(f"/events?topic=a&last_event_id={own}"))
            event = await (await raw.stream()).next()
            assert event.type == "fastsse.gap"
            told.append({**json.loads(event.data), "requested": ""})
    assert told[0] == told[1]


async def test_a_replay_shows_each_reader_only_what_it_may_read(hub: Server) -> None:
    """Pages are shared by those who resume from the same place."""
    for number in range(6):
        fields = (("topic", "a"), ("data", str(number)))
        await publish(hub, *fields, *((("private", "1"),) if number % 2 else ()))
    query = "topic=a&lastEventID=earliest"
    for by, seen in (
        (bearer(subscribe=["a"]), ["0", "1", "2", "3", "4", "5"]),
        ("X-None: 1", ["0", "2", "4"]),
        (bearer(subscribe=["b"]), ["0", "2", "4"]),
        (bearer(subscribe=["{x}"]), ["0", "1", "2", "3", "4", "5"]),
    ):
        async with subscribed(hub, query, by) as stream:
            assert await texts(stream, len(seen)) == seen


async def test_one_topic_that_is_not_granted_spoils_a_publish(hub: Server) -> None:
    async with subscribed(hub, "topic=*") as stream:
        for topics in (["mine", "yours"], ["yours", "mine"], ["mine", "*"], ["mine", "{x}"]):
            fields = [("topic", topic) for topic in topics]
            assert (await publish(hub, *fields, by=bearer(["mine"]))).status == 401
            body = json.dumps({"topic": topics, "data": "x"}).encode()
            kind = "Content-Type: application/json"
            answer = await ask(hub, "POST", "/events", kind, bearer(["mine"]), body=body)
            assert answer.status == 403
        await update(hub, "end", "end")
        assert await texts(stream, 1) == ["end"]


async def test_one_forbidden_event_spoils_its_batch(hub: Server) -> None:
    lines = b'{"topic":"mine","data":"1"}\n{"topic":"yours","data":"2"}\n'
    async with subscribed(hub, "topic=*") as stream:
        kind = "Content-Type: application/x-ndjson"
        answer = await ask(hub, "POST", "/events", kind, bearer(["mine"]), body=lines)
        assert answer.status == 403
        await update(hub, "end", "end")
        assert await texts(stream, 1) == ["end"]


@pytest.mark.parametrize("grant", ["{x}", "/{+x}", "https://example.com/{x}"])
async def test_a_grant_of_templates_is_no_grant_of_everything(hub: Server, grant: str) -> None:
    assert (await publish(hub, ("topic", "a/b\u00e9/../c"), by=bearer([grant]))).status == 401


async def test_selectors_and_grants_do_not_mix_where_they_are_joined(hub: Server) -> None:
    """A stream's selectors and grants make the channel that it shares with others."""
    pairs = [("a", ["b"]), ("b", ["a"]), ("a", ["a"]), ("a\u00ff", ["b"]), ("a", ["b", "c"])]
    for topic, grants in pairs:
        by = bearer(subscribe=grants)
        async with subscribed(hub, f"topic={quote(topic)}&topic=end", by) as stream:
            await publish(hub, ("topic", topic), ("data", "private"), ("private", "1"))
            await update(hub, "end", "end")
            may = topic in grants
            assert await texts(stream, 1) == ["private" if may else "end"]


async def test_subscriptions_are_hidden_from_metrics_and_statistics(hub: Server) -> None:
    async with subscribed(hub, "topic=hidden-topic-name", bearer(subscribe=["x"], sub="ann-name")):
        for path in ("/metrics", "/stats", "/readyz", "/healthz"):
            body = (await ask(hub, "GET", path)).body
            assert b"hidden-topic-name" not in body
            assert b"ann-name" not in body


async def test_asking_for_everything_again_and_again_is_limited(start: Start) -> None:
    hub = await start(jwt_key=KEY, anonymous=True, address_replay="1KB", subject_replay="1KB")
    await update(hub, "a", "x" * 10_000)
    replayed = 0
    for _ in range(5):
        async with connected(hub) as raw:
            await raw.send(get(f"{HUB}?topic=a&lastEventID=earliest"))
            replayed += b"retry: " not in (await raw.head(), await raw.reader.read(10))[1]
    assert replayed == 1
