"""Subscriptions to durable streams at two nodes: one service, also when a node is killed."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.redis.cluster import doomed, node, until
from tests.redis.server import RedisServer
from tests.streams.test_subscriptions import DONE, LOOPBACK, Receiver, receiver

__all__ = ["receiver"]

SUBSCRIPTIONS = "/streams/__ds/subscriptions"
OWNER = "{fastsse}:wakes:owner"


class Client:
    """Asks one node."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self.url = url
        self._http = http

    async def ask(self, method: str, path: str, body: Any = None, token: str = "") -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return await self._http.request(method, self.url + path, json=body, headers=headers)

    async def subscribe(self, name: str, **config: object) -> Any:
        return await self.ask("PUT", f"{SUBSCRIPTIONS}/{name}", config)

    async def create(self, path: str, content: str = "") -> None:
        answer = await self._http.put(
            f"{self.url}/streams/{path}", content=content, headers={"Content-Type": "text/plain"}
        )
        assert answer.status_code == 201

    async def append(self, path: str, content: str = "x") -> str:
        answer = await self._http.post(
            f"{self.url}/streams/{path}", content=content, headers={"Content-Type": "text/plain"}
        )
        assert answer.status_code == 204, answer.text
        return answer.headers["stream-next-offset"]

    async def claim(self, name: str, worker: str = "w") -> Any:
        return await self.ask("POST", f"{SUBSCRIPTIONS}/{name}/claim", {"worker": worker})

    async def ack(self, name: str, claimed: dict[str, Any], offset: str, **more: object) -> Any:
        acks = [{"stream": claimed["streams"][0]["path"], "offset": offset}]
        body = {key: claimed[key] for key in ("wake_id", "generation")}
        return await self.ask(
            "POST", f"{SUBSCRIPTIONS}/{name}/ack", {**body, "acks": acks, **more}, claimed["token"]
        )


async def served(client: Client, name: str = "none") -> None:
    """Waits until a node answers about subscriptions."""
    async with asyncio.timeout(60):
        while (await client.ask("GET", f"{SUBSCRIPTIONS}/{name}")).status_code == 503:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@asynccontextmanager
async def clients(*urls: str) -> AsyncIterator[list[Client]]:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        made = [Client(url, http) for url in urls]
        for one in made:
            await served(one)
        yield made


@pytest.fixture
async def pair(redis: RedisServer) -> AsyncIterator[list[Client]]:
    """A node with workers and one without."""
    networks = ",".join(LOOPBACK)
    async with (
        doomed(redis.url, "--workers", "2", outbound_networks=networks) as one,
        node(redis.url, outbound_networks=LOOPBACK) as two,
        clients(one.url, two) as made,
    ):
        yield made


async def test_what_is_subscribed_at_one_node_is_there_at_the_other(pair: list[Client]) -> None:
    one, two = pair
    paths = [f"some/{'long' * 20}/{n}" for n in range(4_000)]
    config = {"type": "pull-wake", "streams": paths, "wake_stream": "wakes"}
    assert (await one.subscribe("s", **config)).status_code == 201
    assert (await two.subscribe("s", **config)).status_code == 200
    assert (await two.subscribe("t", **config)).status_code == 201
    assert (await one.subscribe("t", **{**config, "streams": ["x"]})).status_code == 409
    shown = [await client.ask("GET", f"{SUBSCRIPTIONS}/s") for client in pair]
    assert [len(answer.json()["streams"]) for answer in shown] == [4_000, 4_000]
    assert shown[0].json() == shown[1].json()
    keys = [await client.ask("GET", "/streams/__ds/jwks.json") for client in pair]
    assert keys[0].json() == keys[1].json()
    assert (await two.ask("DELETE", f"{SUBSCRIPTIONS}/s")).status_code == 204
    assert (await one.ask("GET", f"{SUBSCRIPTIONS}/s")).status_code == 404


async def test_an_append_at_any_node_calls_the_webhook_once(
    pair: list[Client], receiver: Receiver
) -> None:
    webhook = {"url": receiver.url}
    receiver.answers = [DONE] * 100
    await pair[0].create("a/0", "old")
    made = await pair[1].subscribe("s", type="webhook", pattern="a/*", webhook=webhook)
    assert made.status_code == 201
    seen: dict[str, str] = {}
    for number in range(1, 9):
        await pair[number % 2].create(f"a/{number}", "new")
    async with asyncio.timeout(60):
        while len(seen) < 8:
            for stream in (await receiver.next())["streams"]:
                assert seen.get(stream["path"]) != stream["tail_offset"]
                seen[stream["path"]] = stream["tail_offset"]
    assert sorted(seen) == [f"a/{number}" for number in range(1, 9)]
    await pair[0].append("a/0")
    again = await receiver.next()
    assert [stream["path"] for stream in again["streams"]] == ["a/0"]
    assert receiver.requests.empty()


async def test_of_two_workers_at_two_nodes_one_claims(pair: list[Client]) -> None:
    await pair[0].ask("PUT", "/streams/wakes", [])
    config = {"type": "pull-wake", "pattern": "a/*", "wake_stream": "wakes"}
    assert (await pair[0].subscribe("s", **config)).status_code == 201
    await pair[1].create("a/1")
    for turn in range(10):
        end = await pair[turn % 2].append("a/1")
        claims = await asyncio.gather(*(client.claim("s", client.url) for client in pair))
        by_status = {answer.status_code: answer.json() for answer in claims}
        assert sorted(by_status) == [200, 409]
        assert by_status[409]["error"]["code"] == "ALREADY_CLAIMED"
        # What was appended at any node may be acknowledged at each at once.
        later = await pair[turn % 2].append("a/1")
        assert later > end
        done = await pair[(turn + 1) % 2].ack("s", by_status[200], later, done=True)
        assert done.json() == {"ok": True, "next_wake": False}
        assert (await pair[turn % 2].claim("s")).json()["error"]["code"] == "NOTHING_PENDING"


async def test_a_lease_outlives_the_node_that_gave_it(redis: RedisServer) -> None:
    async with (
        doomed(redis.url, redis_node_timeout="2s") as owner,
        clients(owner.url) as (first,),
        node(redis.url, redis_node_timeout=2) as url,
        clients(url) as (second,),
    ):
        held = redis.client.get(OWNER)
        await first.ask("PUT", "/streams/wakes", [])
        config = {"type": "pull-wake", "pattern": "a/*", "wake_stream": "wakes"}
        await second.subscribe("held", **config, lease_ttl_ms=600_000)
        await second.subscribe("free", **config)
        await second.create("a/1", "content")
        claimed = (await second.claim("held")).json()
        await until(lambda: b'"generation":1' in redis.client.hget("{fastsse}:wakes", "s/free"))
        assert redis.client.get(OWNER) == held
        owner.signal(signal.SIGKILL)
        await owner.ended()
        # Appended while no node owns the subscriptions: a new stream too.
        end = await second.append("a/1")
        await second.create("a/2", "content")
        refused = await second.claim("free")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        await served(second, "held")
        other = (await second.claim("held", "other")).json()
        assert other["error"]["code"] == "ALREADY_CLAIMED"
        done = await second.ack("held", claimed, end, done=True)
        assert done.json() == {"ok": True, "next_wake": True}
        late = await second.ack("held", claimed, end, done=True)
        assert (late.status_code, late.json()["error"]["code"]) == (409, "FENCED")
        again = (await second.claim("held")).json()
        assert [stream["path"] for stream in again["streams"]] == ["a/2"]
        assert again["generation"] == claimed["generation"] + 1
        # The wake that no worker held is made again, under another generation.
        free = (await second.claim("free")).json()
        assert free["generation"] == 2
        wakes = json.loads((await second.ask("GET", "/streams/wakes?offset=-1")).content)
        generations = [w["generation"] for w in wakes if w["subscription_id"] == "free"]
        assert generations == [1, 2]
