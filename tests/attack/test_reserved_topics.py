"""No client publishes to the server's own topics, however they are spelt."""

import json
from urllib.parse import quote, urlencode

import pytest

from fastsse.reserved import HUB_PATH, is_reserved
from tests.http.conftest import Start, asked
from tests.http.raw import connected, request

RESERVED = [
    "/.well-known/mercure",
    "/.well-known/mercure/subscriptions/a/b",
    "https://example.com/.well-known/mercure/subscriptions/a/b",
    "https://evil.example/.well-known/mercure?x",
    "/.WELL-KNOWN/Mercure/subscriptions",
    "/.well-known/%6Dercure",
    "/%2ewell-known/mercure",
    "%2F.well-known%2Fmercure",
    "/%252ewell-known/mercure",
    "/%25252ewell-known/mercure",
    "/%2525252525ewell-known/mercure",
    "/.well-known//mercure",
    "/.well-known/./mercure",
    "/.well-known/x/../mercure",
    "/.well-known/x/%2e%2E/mercure",
    "/x/.././/.well-known/mercure/",
    "\\.well-known\\mercure",
    "/.well-known%5cmercure",
    ".well-known/mercure/subscriptions",
    "/.well-known/mercure;x=1",
    "/.well-known/mercure#x",
    "urn:x:/.well-known/mercure",
    "%" + "25" * 50 + "6d",
]
FREE = [
    "mercure",
    "https://mercure.example/books/1",
    "/well-known/mercure",
    "/.well-known/other",
    "https://example.com/100%",
    "50%25 off",
    "planet/Mercure",
    "$x",
]


@pytest.mark.parametrize("topic", RESERVED)
def test_a_reserved_topic_is_known_in_every_spelling(topic: str) -> None:
    assert is_reserved(topic)


@pytest.mark.parametrize("topic", FREE)
def test_other_topics_are_free(topic: str) -> None:
    assert not is_reserved(topic)


@pytest.mark.parametrize("topic", RESERVED[:4])
@pytest.mark.parametrize("way", ["json", "lines", "query"])
async def test_no_way_of_publishing_reaches_a_reserved_topic(
    start: Start, topic: str, way: str
) -> None:
    server = await start()
    event = json.dumps({"topic": ["free", topic], "data": "x"}).encode()
    requests = {
        "json": request("POST", "/events", "Content-Type: application/json", body=event),
        "lines": request(
            "POST",
            "/events",
            "Content-Type: application/x-ndjson",
            body=b'{"topic":"free","data":"x"}\n' + event,
        ),
        "query": request(
            "POST",
            "/events?topic=free&topic=" + "".join(f"%{b:02x}" for b in topic.encode()),
            body=b"x",
        ),
    }
    async with connected(server) as raw:
        await raw.send(requests[way])
        assert (await raw.answer()).status == 403
        await raw.send(request("GET", "/stats"))
        assert (await raw.answer()).json["totals"]["events_published"] == 0


@pytest.mark.parametrize("topic", ["$é", "$fastsse/revoke\u00e9", "$\u00a0x", "$" + "é" * 100])
async def test_a_topic_of_the_servers_own_is_refused_in_any_script(
    start: Start, topic: str
) -> None:
    server = await start()
    event = json.dumps({"topic": ["free", topic], "data": "x"}).encode()
    for path in ("/events", HUB_PATH):
        as_form = urlencode({"topic": topic, "data": "x"}).encode()
        kind = "application/json" if path == "/events" else "application/x-www-form-urlencoded"
        body = event if path == "/events" else as_form
        answer = await asked(server, "POST", path, f"Content-Type: {kind}", body=body)
        assert answer.status == 400
    assert (await asked(server, "GET", "/events?topic=" + quote(topic))).status == 400
