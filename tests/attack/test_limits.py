"""Nothing that a client may ask for is outside of its limits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import orjson
import pytest

from fastsse.server import Server
from tests.attack.conftest import Start
from tests.auth.minting import jwk, mint, rsa_key
from tests.http.raw import Answer, connected, request
from tests.mercure.client import KEY, ask, bearer


async def answers(hub: Server, *requests: bytes) -> list[Answer]:
    """To requests that come all at once, so that no time passes between them."""
    async with connected(hub) as raw:
        await raw.send(b"".join(requests))
        return [await raw.answer() for _ in requests]


@pytest.mark.parametrize("side", ["address", "subject"])
async def test_tickets_renewals_revocations_and_questions_count(start: Start, side: str) -> None:
    hub = await start(jwt_key=KEY, subscriptions=True, **{f"{side}_requests": 1})
    everything = bearer(["*"], ["*"], sub="ann")
    asked = [
        request("POST", "/tickets", everything),
        request("POST", f"/renew?stream={'0' * 32}", everything),
        request("POST", "/revoke", everything, body=b'{"jti":"none"}'),
        request("GET", "/presence?topic=a", everything),
        request("GET", "/.well-known/mercure/subscriptions", everything),
    ]
    for index in range(len(asked)):
        told = await answers(hub, *([asked[index]] * 4))
        assert [one.status for one in told][-1] == 429
        assert int(told[-1].headers["retry-after"]) >= 1
    metrics = (await ask(hub, "GET", "/metrics")).body
    assert b'limit="%b_requests"' % side.encode() in metrics
    if side == "subject":
        bob = bearer(subscribe=[], sub="bob")
        assert (await ask(hub, "POST", "/tickets", bob)).status == 200


async def test_pongs_count_for_the_address(start: Start) -> None:
    hub = await start(ping="1s", address_requests=1)
    pong = request("POST", f"/pong?stream={'0' * 32}", body=b"")
    statuses = [one.status for one in await answers(hub, *([pong] * 4))]
    assert statuses == [404, 404, 429, 429]


@pytest.fixture
async def keys() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """The address of a key set that does not answer before the event."""
    told = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await told.wait()
        body = orjson.dumps({"keys": [jwk(rsa_key(), "first")]})
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys", told
    server.close()


async def test_publishes_that_wait_for_keys_count_for_their_subject(
    start: Start, keys: tuple[str, asyncio.Event]
) -> None:
    url, told = keys
    hub = await start(jwks_url=url, subject_publishes=1)
    claims = {"mercure": {"publish": ["*"]}, "sub": "ann"}
    token = mint(claims, key=rsa_key(), alg="RS256", header={"kid": "first"}).decode()
    async with AsyncExitStack() as stack:
        raws = [await stack.enter_async_context(connected(hub)) for _ in range(6)]
        for raw in raws:
            by = f"Authorization: Bearer {token}"
            await raw.send(request("POST", "/events?topic=a", by, body=b"x"))
        told.set()
        statuses = [(await raw.answer()).status for raw in raws]
    assert 429 in statuses


@pytest.mark.parametrize("path", ["/pong?stream=x", "/tickets", "/renew?stream=x"])
async def test_a_large_body_without_a_token_is_not_stored(start: Start, path: str) -> None:
    hub = await start(jwt_key=KEY, ping="1s")
    for framing, status in ((b"Content-Length: 5000", 413), (b"Transfer-Encoding: chunked", 411)):
        async with connected(hub) as raw:
            await raw.send(b"POST %b HTTP/1.1\r\nHost: localhost\r\n" % path.encode())
            await raw.send(framing + b"\r\n\r\n")
            assert (await raw.answer()).status == status
    # What a browser's beacon sends is taken.
    assert (await ask(hub, "POST", path, body=b"x" * 100)).status in (401, 404)
