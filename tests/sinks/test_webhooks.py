"""Committed events reach another service by signed requests: in order, at least once, from a place
that is kept."""

import asyncio
import base64
import json
import pathlib
import time
from typing import Any

import httpx
import pytest

from fastsse.config import Config, ConfigError
from fastsse.outbound import Signer
from fastsse.server import Server
from fastsse.sinks import webhooks
from tests.mercure.client import ask
from tests.otlp import SPAN, TRACE, TRACEPARENT, Collector, attributes, collector
from tests.outbound.test_outbound import Receiver, answer

__all__ = ["collector"]

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
TIMEOUT_S = 30


def config(path: pathlib.Path, address: str, **rule: Any) -> Config:
    given = {
        "name": "billing",
        "url": address,
        "topics": ["orders/{id}"],
        "secrets": [SECRET],
        **rule,
    }
    return Config(
        port=0,
        store=f"sqlite:{path}/history.db",
        webhooks=[given],
        outbound_networks=["127.0.0.0/8"],
        access_lines=0,
        drain="0s",
    )


def sent(receiver: Receiver) -> list[dict[str, Any]]:
    """The events of all requests, each of which is signed."""
    signer, found = Signer([SECRET]), []
    for head, body in zip(receiver.heads, receiver.bodies, strict=True):
        signer.verify(head, body, time.time())
        message = json.loads(body)
        assert message["type"] == "fastsse.events"
        found += message["data"]
    return found


async def until(is_so: Any, about: Any = None) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def publish(server: Server, first: int, behind: int, topic: str = "orders/1") -> None:
    for number in range(first, behind):
        await server.publish_later(topic, {"n": number}, event="paid", meta={"n": number})


def numbers(receiver: Receiver) -> list[int]:
    return [event["data"]["n"] for event in sent(receiver)]


async def test_events_are_sent_in_order_with_what_an_envelope_has(tmp_path: pathlib.Path) -> None:
    async with Receiver(answer(204)) as receiver:
        async with Server(config(tmp_path, receiver.url, batch=10)) as server:
            await server.publish_later("other", "not asked for")
            await publish(server, 0, 50)
            await server.publish_later("orders/2", "text", id="own")
            await server.publish_later("orders/3", "hidden", private=True)
            await publish(server, 50, 51)
            await until(lambda: len(sent(receiver)) == 52)
        events = sent(receiver)
        assert [event["data"]["n"] for event in events[:50]] == list(range(50))
        assert events[0]["topic"] == "orders/1"
        assert (events[0]["event"], events[0]["meta"]) == ("paid", {"n": 0})
        assert (events[50]["id"], events[50]["data"]) == ("own", "text")
        assert events[51]["data"] == {"n": 50}
        ids = [head["webhook-id"] for head in receiver.heads]
        assert len(set(ids)) == len(ids)
        assert all(name.startswith("billing.") for name in ids)


async def test_a_receiver_that_is_away_gets_everything_later_also_over_restarts(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Receiver(answer(204)) as receiver:
        url = receiver.url
        async with Server(config(tmp_path, url)) as server:
            await publish(server, 0, 5)
            await until(lambda: len(sent(receiver)) == 5)
    held = Receiver(answer(204))
    async with held:
        # Another port: the receiver has moved, the place stays.
        async with Server(config(tmp_path, "http://127.0.0.1:1/")) as server:
            await publish(server, 5, 10)
            await until(lambda: server._worker._sinks.counters()["webhook_failures"] >= 1)
        async with Server(config(tmp_path, held.url)) as server:
            await publish(server, 10, 12)
            await until(lambda: len(sent(held)) >= 7)
        assert numbers(held) == list(range(5, 12))


async def test_a_busy_receiver_is_tried_with_the_same_request(tmp_path: pathlib.Path) -> None:
    async with Receiver(answer(503), answer(429, b"", "Retry-After: 1"), answer(200)) as receiver:
        async with Server(config(tmp_path, receiver.url)) as server:
            await publish(server, 0, 1)
            await until(lambda: len(receiver.bodies) == 3)
            await publish(server, 1, 2)
            await until(lambda: len(receiver.bodies) == 4)
        assert len({head["webhook-id"] for head in receiver.heads[:3]}) == 1
        assert numbers(receiver) == [0, 0, 0, 1]


async def test_events_that_are_deleted_while_a_receiver_is_away_are_not_sent(
    tmp_path: pathlib.Path,
) -> None:
    async with Receiver(answer(503), answer(200)) as receiver:
        async with Server(config(tmp_path, receiver.url)) as server:
            await publish(server, 0, 1)
            await until(lambda: len(receiver.bodies) == 1)
            mistake = await server.publish_later("orders/1", {"n": 1}, key="k")
            await server.publish_later("orders/2", {"n": 2})
            await server.delete_event("orders/1", mistake)
            await server.purge_topic("orders/2")
            await publish(server, 3, 4)
            await until(lambda: len(receiver.bodies) == 3)
        assert numbers(receiver) == [0, 0, 3]


async def test_refused_events_are_set_aside_and_later_ones_are_sent(
    tmp_path: pathlib.Path,
) -> None:
    letters = tmp_path / "letters"
    async with Receiver(answer(400), answer(200)) as receiver:
        rule = {"dead_letter": f"file:{letters}", "batch": 1}
        async with Server(config(tmp_path, receiver.url, **rule)) as server:
            await publish(server, 0, 2)
            await until(lambda: len(receiver.bodies) == 2)
            counters = server._worker._sinks.counters()
            await until(letters.exists)
        assert counters["webhook_given_up"] == 1
        (line,) = letters.read_text().splitlines()
        letter = json.loads(line)
        assert letter["why"] == "status 400"
        assert json.loads(letter["payload"])["data"] == {"n": 0}


async def test_dead_letters_are_listed_and_sent_again(tmp_path: pathlib.Path) -> None:
    letters = tmp_path / "letters"
    refused = [answer(400)] * 3
    async with Receiver(*refused, answer(503), answer(400), answer(200)) as receiver:
        rule = {"dead_letter": f"file:{letters}", "batch": 1}
        async with Server(config(tmp_path, receiver.url, **rule)) as server:
            await publish(server, 0, 3)
            await until(lambda: letters.exists() and len(letters.read_text().splitlines()) == 3)
            found = await dead_letters(server, "GET")
            assert [one["why"] for one in found["letters"]] == ["status 400"] * 3
            # A receiver that is busy ends the replay; nothing is lost.
            done = await replayed(server)
            assert (done["state"], done["events"], done["trouble"]) == ("failed", 0, "status 503")
            done = await replayed(server)
            assert (done["state"], done["events"], done["set_aside"]) == ("done", 2, 1)
            assert len((await dead_letters(server, "GET"))["letters"]) == 1
            unknown = await asked(server, "GET", "other")
            assert unknown.status_code == 404
        assert numbers(receiver) == [0, 1, 2, 0, 0, 1, 2]
        assert len({head["webhook-id"] for head in receiver.heads}) == 3


async def asked(server: Server, method: str, name: str = "billing") -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        url = f"{server.addresses[0]}/admin/dead-letters?source={name}"
        return await client.request(method, url)


async def dead_letters(server: Server, method: str) -> dict[str, Any]:
    found: dict[str, Any] = (await asked(server, method)).raise_for_status().json()
    return found


async def replayed(server: Server) -> dict[str, Any]:
    replay: dict[str, Any] = (await dead_letters(server, "POST"))["replay"]
    while replay["state"] == "running":
        await asyncio.sleep(0.02)
        replay = (await dead_letters(server, "GET"))["replay"]
    return replay


async def test_what_is_not_taken_in_time_is_given_up(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Receiver(answer(503)) as receiver:
        async with Server(config(tmp_path, receiver.url, give_up="1s")) as server:
            await publish(server, 0, 1)
            await until(lambda: server._worker._sinks.counters()["webhook_given_up"] == 1)
        assert len(receiver.bodies) >= 2


async def test_a_filter_leaves_events_out(tmp_path: pathlib.Path) -> None:
    async with Receiver(answer(200)) as receiver:
        rule = {"filter": 'data.n > 2 && meta.n < 5 && event == "paid"'}
        async with Server(config(tmp_path, receiver.url, **rule)) as server:
            await publish(server, 0, 10)
            await until(lambda: len(sent(receiver)) == 2)
        assert numbers(receiver) == [3, 4]


async def test_an_address_of_the_own_network_is_not_reached(tmp_path: pathlib.Path) -> None:
    async with Receiver(answer(200)) as receiver:
        given = config(tmp_path, receiver.url)
        closed = Config(**{**_given(given), "outbound_networks": ["10.0.0.0/8"]})
        async with Server(closed) as server:
            await publish(server, 0, 1)
            await until(lambda: server._worker._sinks.counters()["webhook_given_up"] == 1)
        assert receiver.connections == 0


def _given(given: Config) -> dict[str, Any]:
    return {name: getattr(given, name) for name in given.model_fields_set}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"url": "ftp://example.com"}, "webhooks[0].url"),
        ({"url": "https://user:hidden@example.com"}, "webhooks[0].url"),
        ({"url": "https://"}, "webhooks[0].url"),
        ({"topics": []}, "webhooks[0].topics"),
        ({"secrets": []}, "webhooks[0].secrets"),
        ({"secrets": ["hidden"]}, "webhooks[0].secrets"),
        ({"filter": "data.x >"}, "at character 9"),
        ({"batch": 0}, "webhooks[0].batch"),
        ({"dead_letter": "/tmp/x"}, "file: and a path"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_rule_that_can_t_be_is_refused_by_name(
    tmp_path: pathlib.Path, rule: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, "https://example.com/hook", **rule)
    assert said in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_webhooks_need_a_store_that_survives(tmp_path: pathlib.Path) -> None:
    rule = {"name": "a", "url": "https://x.example/", "topics": ["a"], "secrets": [SECRET]}
    with pytest.raises(ConfigError, match="store = memory"):
        Config(webhooks=[rule])
    with pytest.raises(ConfigError, match="different from those"):
        Config(store=f"sqlite:{tmp_path}/h.db", webhooks=[rule, rule])
    assert webhooks.BATCH_BYTES


OTHER = f"00-{'1' * 32}-{'2' * 16}-01"


async def test_events_of_several_traces_are_one_span_that_is_linked_to_all(
    collector: Collector, tmp_path: pathlib.Path
) -> None:
    async with Receiver(answer(400)) as receiver:
        given = config(tmp_path, receiver.url).model_copy(update={"tracing": True})
        async with Server(given) as server:
            lines = [
                json.dumps({"topic": "orders/1", "data": "x", "meta": {"traceparent": context}})
                for context in ("x", TRACEPARENT, OTHER, "y")
            ]
            kind = "Content-Type: application/x-ndjson"
            batch = await ask(server, "POST", "/events", kind, body="\n".join(lines).encode())
            assert batch.status == 200
            span = (await collector.named("webhook"))["webhook"]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
    assert [link.trace_id.hex() for link in span.links] == ["1" * 32]
    assert attributes(span)["messaging.batch.message_count"] == 4
    assert span.status.message == "status 400"
    (head,) = receiver.heads
    assert head["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"


async def test_without_tracing_the_first_trace_of_a_batch_is_named(tmp_path: pathlib.Path) -> None:
    async with Receiver(answer(200)) as receiver:
        async with Server(config(tmp_path, receiver.url)) as server:
            for meta in ({"traceparent": "x"}, {"traceparent": OTHER, "tracestate": "a=1"}):
                before = len(receiver.bodies)
                await server.publish_later("orders/1", "x", meta=meta)
                await until(lambda before=before: len(receiver.bodies) > before)
        without, named = receiver.heads
        assert "traceparent" not in without
        assert (named["traceparent"], named["tracestate"]) == (OTHER, "a=1")
