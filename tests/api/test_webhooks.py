"""Signed requests of other services become events, once each, and others are refused."""

import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fastsse.config import Config, ConfigError
from fastsse.outbound import Signer
from fastsse.server import Server
from tests.otlp import SPAN, TRACE, TRACEPARENT, Collector, collector

__all__ = ["collector"]

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
OLD = "whsec_" + base64.b64encode(bytes(range(32))).decode()
RULE: dict[str, Any] = {
    "name": "shop",
    "secrets": [SECRET, OLD],
    "topic": "orders/{data.order}",
    "event": "{data.type}",
    "payload": "json",
    "filter": 'event != "debug"',
}


@pytest.fixture
async def url() -> AsyncIterator[str]:
    config = Config(port=0, sources=[RULE], publish_token="secret", access_lines=0)
    async with Server(config) as server:
        yield server.addresses[0]


async def post(
    url: str, body: bytes, message_id: str = "m1", secret: str = SECRET, **changed: str
) -> httpx.Response:
    headers = Signer([secret]).sign(message_id, int(time.time()), body)
    headers |= {name.replace("_", "-"): value for name, value in changed.items()}
    sent = {name: value for name, value in headers.items() if value}
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.post(f"{url}/webhooks/shop", content=body, headers=sent)


async def events(url: str, topic: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(trust_env=False) as client:
        params = {"topic": topic, "last_event_id": "earliest", "envelope": "json"}
        async with client.stream("GET", f"{url}/events", params=params) as stream:
            found = []
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    found.append(json.loads(line[6:]))
                if found and found[-1]["data"].get("last"):
                    return found
    raise AssertionError


BODY = b'{"order":17,"type":"paid"}'
LAST = b'{"order":17,"type":"x","last":true}'


async def test_a_signed_request_becomes_an_event_once(url: str) -> None:
    first = await post(url, BODY)
    again = await post(url, BODY)
    assert first.status_code == again.status_code == 200
    assert again.json() == {"id": first.json()["id"], "duplicates": 1}
    assert (await post(url, BODY, "m2", OLD)).status_code == 200
    await post(url, LAST, "m3")
    found = await events(url, "orders/17")
    assert [(one["event"], one["data"]["type"]) for one in found[:2]] == [("paid", "paid")] * 2
    assert len(found) == 3


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"webhook_signature": ""}, "webhook-signature is missing"),
        ({"webhook_id": ""}, "webhook-id is missing"),
        ({"webhook_timestamp": ""}, "webhook-timestamp is missing"),
        ({"webhook_signature": "v1,abc"}, "does not match"),
        ({"webhook_id": "another"}, "does not match"),
        ({"webhook_timestamp": "1"}, "does not match"),
    ],
)
async def test_a_request_without_the_signature_is_refused(
    url: str, changed: dict[str, str], said: str
) -> None:
    answer = await post(url, BODY, **changed)
    assert answer.status_code == 401
    assert said in answer.json()["detail"].lower()
    async with httpx.AsyncClient(trust_env=False) as client:
        metrics = (await client.get(f"{url}/metrics")).text
    assert 'fastsse_webhooks_total{what="refused"} 1.0' in metrics


async def test_a_recorded_request_is_refused_later(url: str) -> None:
    body = BODY
    headers = Signer([SECRET]).sign("m1", int(time.time()) - 400, body)
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"{url}/webhooks/shop", content=body, headers=headers)
    assert answer.status_code == 401
    assert "outside of the window" in answer.json()["detail"]


async def test_bodies_that_can_not_become_events_say_why(url: str) -> None:
    for body, said in ((b"no JSON", "no JSON"), (b"{}", "data.order"), (b"", "no JSON")):
        answer = await post(url, body)
        assert answer.status_code == 422
        assert said in answer.json()["detail"]
    filtered = await post(url, b'{"order":1,"type":"debug"}')
    assert filtered.json() == {"filtered": True}
    large = await post(url, b"x" * 1_500_000)
    assert large.status_code == 413


async def test_only_the_named_path_takes_webhooks(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.post(f"{url}/webhooks/other", content=BODY)).status_code == 404
        assert (await client.get(f"{url}/webhooks/shop")).status_code == 405


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"secrets": []}, "needs either channels or stream"),
        ({"secrets": ["short"]}, "sources[0].secrets"),
        ({"secrets": [SECRET], "stream": "s"}, "needs neither"),
        ({"secrets": [SECRET], "url": "redis://h"}, "needs no url"),
        ({"secrets": [SECRET], "dead_letter": "x"}, "dead_letter"),
    ],
)
def test_a_rule_that_can_t_be_is_refused_and_no_secret_shown(
    rule: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(sources=[{"name": "a", "topic": "t", **rule}])
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "short" not in str(caught.value)
    from fastsse.config import catalogue

    assert SECRET not in catalogue()["sources"].show(Config(sources=[RULE]).sources)


async def test_a_request_of_a_recorded_trace_makes_a_span_and_an_event_with_it(
    collector: Collector,
) -> None:
    config = Config(port=0, sources=[RULE], access_lines=0, tracing=True)
    async with Server(config) as server:
        url = server.addresses[0]
        assert (await post(url, BODY, traceparent=TRACEPARENT)).status_code == 200
        assert (await post(url, LAST, "m2")).status_code == 200
        first, last = await events(url, "orders/17")
        span = (await collector.named("publish"))["publish"]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
    assert first["meta"] == {"traceparent": f"00-{TRACE}-{span.span_id.hex()}-01"}
    assert last["meta"] is None
    assert collector.count("publish") == 1
