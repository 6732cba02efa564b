"""What nodes share in addition to the log: tickets that open a stream on any node, revocations
that hold on all."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.auth.minting import SECRET, grants, mint
from tests.redis import cluster
from tests.redis.cluster import Subscriber, until
from tests.redis.proxy import Proxy
from tests.redis.server import RedisServer

REVOKER = mint(grants(publish=["$fastsse/revoke"])).decode()


def token(subject: str, token_id: str) -> str:
    claims = grants(subscribe=["*"], publish=["*"])
    return mint({"sub": subject, "jti": token_id, "iat": 1_700_000_000, **claims}).decode()


async def ask(method: str, url: str, bearer: str = "", **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    headers |= more.pop("headers", {})
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        return await client.request(method, url, headers=headers, **more)


async def opens(url: str, query: str, bearer: str = "", agent: str = "Chrome") -> int:
    """The status of a subscription, which is ended again."""
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    headers["User-Agent"] = agent
    async with (
        httpx.AsyncClient(trust_env=False, timeout=20) as client,
        client.stream("GET", f"{url}/events?topic=t{query}", headers=headers) as stream,
    ):
        return stream.status_code


@pytest.fixture
async def pair(redis: RedisServer) -> AsyncIterator[tuple[str, str]]:
    """A node with workers and one without, which want tokens."""
    async with (
        cluster.process(redis.url, "--workers", "2", "--jwt-key", SECRET) as one,
        cluster.node(redis.url, jwt_key=SECRET) as two,
    ):
        yield one, two


async def test_a_ticket_belongs_to_its_first_client_at_whatever_node(pair: tuple[str, str]) -> None:
    for issuer in pair:
        for taker in pair:
            answer = await ask("POST", issuer + "/tickets", token("alice", "1"))
            ticket = answer.json()["ticket"]
            query = f"&ticket={ticket}"
            agents = ("Chrome", "curl", "wget")
            statuses = await asyncio.gather(
                *(opens(url, query, agent=who) for url, who in zip(pair * 2, agents, strict=False))
            )
            assert sorted(statuses) == [200, 401, 401]
            winner = agents[statuses.index(200)]
            for url in (taker, *pair):
                assert await opens(url, query, agent=winner) == 200
                assert await opens(url, query, agent="thief") == 401


async def test_a_ticket_has_one_stream_at_all_nodes(pair: tuple[str, str]) -> None:
    ticket = (await ask("POST", pair[0] + "/tickets", token("alice", "9"))).json()["ticket"]
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        for first, second in (pair, pair[::-1]):
            paths = [f"{url}/events?topic=t&ticket={ticket}" for url in (first, second)]
            async with client.stream("GET", paths[0]) as older:
                assert older.status_code == 200
                async with client.stream("GET", paths[1]) as newer:
                    assert newer.status_code == 200
                    with contextlib.suppress(httpx.RemoteProtocolError):
                        async for _ in older.aiter_bytes():
                            pass


@pytest.mark.parametrize("workers", [1, 2])
async def test_while_redis_is_away_a_return_with_a_ticket_gets_a_retry_time(
    redis: RedisServer, workers: int
) -> None:
    options = ("--workers", str(workers), "--jwt-key", SECRET)
    async with Proxy(redis.port) as proxy, cluster.process(proxy.url, *options) as url:
        ticket = (await ask("POST", url + "/tickets", token("alice", "6"))).json()["ticket"]
        query = f"&ticket={ticket}"
        assert await opens(url, query) == 200
        proxy.target = 1
        proxy.cut()
        # Another status would end an EventSource for good.
        headers = {"User-Agent": "Chrome"}
        answer = await ask("GET", f"{url}/events?topic=t{query}", headers=headers)
        assert answer.status_code == 200
        assert re.fullmatch(
            r"retry: \d+\nevent: fastsse.refused\n"
            r'data: {"reason":"access","retry_ms":\d+}\n\n',
            answer.text,
        )
        refusal = await ask("GET", f"{url}/events?topic=t{query}&refuse=status", headers=headers)
        assert (refusal.status_code, refusal.json()["reason"]) == (503, "access")
        assert await opens(url, query + "&refuse=status", agent="thief") == 503
        proxy.target = redis.port
        async with asyncio.timeout(60):
            while await opens(url, query + "&refuse=status") == 503:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert await opens(url, query) == 200
        assert await opens(url, query, agent="thief") == 401


async def test_a_revocation_ends_streams_at_every_node_and_outlives_them(
    pair: tuple[str, str], redis: RedisServer
) -> None:
    bad, good = token("mallory", "2"), token("alice", "3")
    readers = [Subscriber(url, "t", token=bad) for url in pair]
    others = [Subscriber(url, "t", token=good) for url in pair]
    for reader in (*readers, *others):
        await asyncio.wait_for(reader.opened.wait(), 60)
    revoked = await ask("POST", pair[0] + "/revoke", REVOKER, json={"sub": "mallory"})
    assert revoked.status_code == 204
    for url in pair:
        await _until_refused(url, bad)
        assert await opens(url, "", good) == 200
    # What was open ended, and did not come back.
    for reader in readers:
        await until(reader.ended, reader)
    assert [other.connections for other in others] == [1, 1]
    for reader in (*readers, *others):
        await reader.close()
    # A node that starts later knows it.
    async with cluster.node(redis.url, jwt_key=SECRET) as later:
        assert await opens(later, "", bad) == 401
        assert await opens(later, "", good) == 200


async def test_a_revocation_ends_polls_that_wait_at_every_node(pair: tuple[str, str]) -> None:
    bad, good = token("mallory", "6"), token("alice", "7")
    for url in pair:
        head = {"Content-Type": "text/plain", "Stream-Private": "true"}
        assert (await ask("PUT", url + "/streams/s", bad, headers=head)).status_code in (200, 201)
    paths = ("/events?topic=t&wait=60s", "/streams/s?offset=now&live=long-poll")
    polls, kept = (
        [asyncio.create_task(ask("GET", url + path, one)) for url in pair for path in paths * 3]
        for one in (bad, good)
    )
    await _until_waiting(pair, 24)
    began_s = time.monotonic()
    revoked = await ask("POST", pair[0] + "/revoke", REVOKER, json={"sub": "mallory"})
    assert revoked.status_code == 204
    assert {answer.status_code for answer in await asyncio.gather(*polls)} == {401}
    assert time.monotonic() - began_s < 15
    assert not any(one.done() for one in kept)
    for one in kept:
        one.cancel()
    await asyncio.gather(*kept, return_exceptions=True)


async def _until_waiting(pair: tuple[str, str], count: int) -> None:
    names = ("polls_waiting", "durable_streams_waiting")
    async with asyncio.timeout(60):
        while True:
            texts = [(await ask("GET", url + "/metrics")).text for url in pair]
            found = re.findall(rf"^fastsse_(?:{'|'.join(names)}) (\S+)$", "".join(texts), re.M)
            if sum(map(float, found)) == count:
                return
            await asyncio.sleep(0.05)


async def test_a_node_that_was_away_learns_what_was_revoked(redis: RedisServer) -> None:
    async with (
        Proxy(redis.port) as proxy,
        cluster.node(proxy.url, jwt_key=SECRET) as away,
        cluster.node(redis.url, jwt_key=SECRET) as here,
    ):
        bad = token("mallory", "4")
        proxy.target = 1
        proxy.cut()
        assert await opens(away, "", bad) == 200
        revoked = await ask("POST", here + "/revoke", REVOKER, json={"jti": "4"})
        assert revoked.status_code == 204
        await _until_refused(here, bad)
        # And what is revoked there reaches the others when it is back.
        other = token("eve", "5")
        assert (await ask("POST", away + "/revoke", REVOKER, json={"jti": "5"})).status_code == 204
        proxy.target = redis.port
        await _until_refused(away, bad)
        await _until_refused(here, other)


async def _until_refused(url: str, bearer: str) -> None:
    for _ in range(400):
        if await opens(url, "", bearer) == 401:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("a revoked token opens streams")
