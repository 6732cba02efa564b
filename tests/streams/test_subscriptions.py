"""Subscriptions that wake workers when streams have new content: webhooks and pull-wake. The suite
of the protocol's authors tests more (`test_suite.py`)."""

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fastsse.server import Server
from tests.auth.minting import SECRET, grants, mint
from tests.http.conftest import Start, asked
from tests.http.raw import Answer
from tests.streams.test_protocol import JSON, TEXT, created

SUBSCRIPTIONS = "/streams/__ds/subscriptions"
LOOPBACK = ("127.0.0.0/8",)


class Receiver:
    """A webhook's receiver: keeps what it is sent, and answers with `answers`."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[tuple[dict[str, str], Any]] = asyncio.Queue()
        self.answers: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        self.requests.put_nowait((headers, body))
        answer = self.answers.pop(0) if self.answers else b"200 OK\r\nContent-Length: 0"
        writer.write(b"HTTP/1.1 " + answer + b"\r\nConnection: close\r\n\r\n")
        if b"Content-Length: 14" in answer:
            writer.write(b'{"done": true}')
        await writer.drain()
        writer.close()

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(60):
            return (await self.requests.get())[1]


DONE = b"200 OK\r\nContent-Length: 14"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    async with server:
        yield receiver


async def subscribe(server: Server, name: str, *headers: str, **config: object) -> Answer:
    body = json.dumps(config).encode()
    return await asked(server, "PUT", f"{SUBSCRIPTIONS}/{name}", JSON, *headers, body=body)


async def post(server: Server, path: str, body: object, *headers: str) -> Answer:
    data = json.dumps(body).encode()
    return await asked(server, "POST", f"{SUBSCRIPTIONS}/{path}", JSON, *headers, body=data)


async def test_a_webhook_is_called_again_until_it_is_done(start: Start, receiver: Receiver) -> None:
    server = await start(outbound_networks=LOOPBACK)
    ask = partial(asked, server)
    await created(ask, "/streams/a/1", body=b"old")
    webhook = {"url": receiver.url}
    made = await subscribe(server, "s", type="webhook", pattern="a/*", webhook=webhook)
    assert made.status == 201
    receiver.answers = [b"500 Oops\r\nContent-Length: 0", DONE, DONE]
    await created(ask, "/streams/a/2", body=b"new")
    first, second = await receiver.next(), await receiver.next()
    assert second["generation"] == first["generation"] + 1
    assert first["wake_id"] != second["wake_id"]
    # What was there before the subscription is not sent.
    assert [one["path"] for one in second["streams"]] == ["a/2"]
    await ask("POST", "/streams/a/1", TEXT, body=b"more")
    third = await receiver.next()
    assert [one["path"] for one in third["streams"]] == ["a/1"]


async def test_a_lease_that_ends_wakes_again_and_fences_the_earlier_worker(
    start: Start, receiver: Receiver
) -> None:
    server = await start(outbound_networks=LOOPBACK)
    ask = partial(asked, server)
    webhook = {"url": receiver.url}
    config = {"type": "webhook", "streams": ["a"], "webhook": webhook, "lease_ttl_ms": 1000}
    await subscribe(server, "s", **config)
    await created(ask, "/streams/a", body=b"new")
    late, current = await receiver.next(), await receiver.next()

    def acked(wake: dict[str, Any], **more: object) -> dict[str, object]:
        acks = [{"stream": "a", "offset": wake["streams"][0]["tail_offset"]}]
        answer = {"wake_id": wake["wake_id"], "generation": wake["generation"], "acks": acks}
        return {**answer, **more}

    bearer = [f"Authorization: Bearer {wake['callback_token']}" for wake in (late, current)]
    fenced = await post(server, "s/callback", acked(late, done=True), bearer[0])
    assert (fenced.status, fenced.json["error"]["code"]) == (409, "FENCED")
    other = await post(server, "s/callback", acked(current, done=True), bearer[0])
    assert (other.status, other.json["error"]["code"]) == (401, "TOKEN_INVALID")
    assert (await post(server, "s/callback", acked(current, done=True))).status == 401
    done = await post(server, "s/callback", acked(current, done=True), bearer[1])
    assert done.json == {"ok": True, "next_wake": False}


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/hook",
        "https://10.0.0.1/hook",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "http://example.com/",
        "http://127.0.0.1/",
        "https://user:secret@example.com/",
        "file:///etc/passwd",
        "https://",
        "https://[/",
    ],
)
async def test_addresses_inside_the_network_are_refused(server: Server, url: str) -> None:
    webhook = {"url": url}
    refused = await subscribe(server, "s", type="webhook", pattern="**", webhook=webhook)
    assert (refused.status, refused.json["error"]["code"]) == (400, "WEBHOOK_URL_REJECTED")
    assert (await asked(server, "GET", f"{SUBSCRIPTIONS}/s")).status == 404


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"type": "email", "pattern": "a"},
        {"type": "pull-wake", "pattern": "a"},
        {"type": "pull-wake", "wake_stream": "w"},
        {"type": "pull-wake", "wake_stream": "w", "pattern": "a//b"},
        {"type": "pull-wake", "wake_stream": "w", "streams": "a"},
        {"type": "pull-wake", "wake_stream": "w", "streams": [1]},
        {"type": "pull-wake", "wake_stream": "w", "pattern": "a", "lease_ttl_ms": 999},
        {"type": "pull-wake", "wake_stream": "w", "pattern": "a", "lease_ttl_ms": True},
        {"type": "pull-wake", "wake_stream": "w", "pattern": "a", "lease": 1000},
    ],
)
async def test_configurations_that_can_not_be_are_refused(
    server: Server, config: dict[str, object]
) -> None:
    refused = await subscribe(server, "s", **config)
    assert (refused.status, refused.json["error"]["code"]) == (400, "INVALID_REQUEST")


async def test_a_subscription_and_its_place_survive_a_restart(start: Start, tmp_path: Path) -> None:
    options = {"store": f"sqlite:{tmp_path}/h.db", "port": 0, "drain": 0, "access_lines": 0}
    server = await start(**options)
    ask = partial(asked, server)
    await created(ask, "/streams/wakes", JSON)
    config = {"type": "pull-wake", "pattern": "**", "wake_stream": "wakes"}
    assert (await subscribe(server, "s", **config)).status == 201
    await created(ask, "/streams/a", body=b"1")
    claimed = await post(server, "s/claim", {"worker": "w"})
    assert claimed.status == 200
    before = (await ask("GET", f"{SUBSCRIPTIONS}/s")).json
    jwks = (await ask("GET", "/streams/__ds/jwks.json")).json
    await server.close()
    server = await start(**options)
    ask = partial(asked, server)
    assert (await ask("GET", f"{SUBSCRIPTIONS}/s")).json == before
    assert (await ask("GET", "/streams/__ds/jwks.json")).json == jwks
    assert (await subscribe(server, "s", **config)).status == 200
    assert (await subscribe(server, "s", **{**config, "pattern": "x"})).status == 409
    # The lease goes on. What it is for is not lost when it is given back.
    other = await post(server, "s/claim", {"worker": "other"})
    assert (other.status, other.json["error"]["code"]) == (409, "ALREADY_CLAIMED")
    wake = {key: claimed.json[key] for key in ("wake_id", "generation")}
    bearer = f"Authorization: Bearer {claimed.json['token']}"
    assert (await post(server, "s/release", wake, bearer)).status == 204
    again = await post(server, "s/claim", {"worker": "w"})
    assert [one["path"] for one in again.json["streams"]] == ["a"]
    assert again.json["generation"] > claimed.json["generation"]
    polled = "/streams/wakes?live=long-poll&offset="
    offset, wakes = "-1", []
    while len(wakes) < 2:
        answer = await ask("GET", polled + offset)
        offset = answer.headers["stream-next-offset"]
        wakes += json.loads(answer.body)
    assert [wake["stream"] for wake in wakes] == ["a", "a"]


async def test_subscriptions_need_the_right_to_publish_to_their_name() -> None:
    from fastsse.config import Config

    config = Config(port=0, drain=0, jwt_key=SECRET, anonymous=True)
    async with Server(config) as server:
        wanted = {"type": "pull-wake", "pattern": "**", "wake_stream": "wakes"}

        def bearer(*publish: str) -> str:
            return f"Authorization: Bearer {mint(grants(publish=list(publish))).decode()}"

        name = "__ds/subscriptions/s"
        assert (await subscribe(server, "s", **wanted)).status == 401
        for right in (bearer("wakes"), bearer(name), bearer("other")):
            assert (await subscribe(server, "s", right, **wanted)).status == 403
        assert (await subscribe(server, "s", bearer(name, "wakes"), **wanted)).status == 201
        assert (await asked(server, "GET", f"{SUBSCRIPTIONS}/s")).status == 401
        assert (await asked(server, "DELETE", f"{SUBSCRIPTIONS}/s", bearer("x"))).status == 403
        assert (await asked(server, "DELETE", f"{SUBSCRIPTIONS}/s", bearer(name))).status == 204
