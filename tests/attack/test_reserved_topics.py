"""Nobody publishes to the server's own topics, however they are spelt."""

import json

import pytest

from fastsse.reserved import is_reserved
from tests.http.conftest import Start
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
