"""Tokens, tickets and cookies stay out of whatever the server writes or answers."""

import asyncio
import json
from pathlib import Path

import pytest
from redis import Redis

from fastsse.config import Config, ConfigError, catalogue
from tests.http.raw import Raw, opened, request
from tests.mercure.client import FORM, HUB, KEY, token
from tests.redis.server import START_S, RedisServer, program
from tests.supervisor.conftest import Serve, serve

__all__ = ["serve"]

MARK = "keep-secret"
FORGED = f"eyJhbGciOiJIUzI1NiJ9.{MARK}-forged-token-that-is-long-enough.{MARK}"


def requests(good: str, ticket: str) -> list[bytes]:
    """Right and wrong ones, each with a secret in it somewhere."""
    cookie = f"Cookie: session={MARK}; mercureAuthorization={good}"
    bad_cookie = f"Cookie: mercureAuthorization={FORGED}"
    bearer, bad = f"Authorization: Bearer {good}", f"Authorization: Bearer {FORGED}"
    odd = [
        f"Authorization: {MARK}",
        f"Authorization: Basic {MARK}",
        f"Authorization: Bearer {MARK}",
    ]
    made = [
        request("GET", f"{path}?topic=a&authorization={secret}", *headers)
        for path in ("/events", HUB, "/presence", f"{HUB}/subscriptions", "/nothing", "/stats", "/")
        for secret in (good, FORGED, MARK)
        for headers in ([], [bad], [cookie, bad_cookie])
    ]
    made += [
        request("GET", f"{path}?topic=a", header) for path in ("/events", HUB) for header in odd
    ]
    made += [
        request("POST", f"{path}?topic=a&authorization={secret}", FORM, header, body=b"topic=a")
        for path in ("/events", HUB, "/tickets", "/renew", "/revoke")
        for secret in (good, FORGED)
        for header in (bearer, bad, cookie, bad_cookie)
    ]
    made += [
        request("GET", f"/events?topic=a&ticket={MARK}"),
        request("GET", f"/events?topic=a&ticket={ticket}"),
        request("GET", f"/events?topic=a&ticket={ticket}"),
        request("GET", f"/events?{MARK}={MARK}&topic=%zz"),
        request("GET", f"/events?topic=a&since={MARK}"),
        request("DELETE", f"/events?authorization={good}"),
        request("GET", f"/events?topic=a&authorization={good}&authorization={good}"),
        f"GET /events?authorization={good} HTTP/1.0\r\n\r\n".encode(),
        f"GET /events?authorization={good} HTTP/3.9\r\n\r\n".encode(),
        f"GET /events?authorization={good}\r\n\r\n".encode(),
        f"GET /events?topic=a HTTP/1.1\r\nHost: x\r\n {MARK}\r\n\r\n".encode(),
        b"GET /events?authorization=%b&x=%b HTTP/1.1\r\n\r\n" % (good.encode(), b"y" * 20_000),
    ]
    return made


async def told(raw: Raw) -> bytes:
    """Whatever comes back; streams are left after their opening."""
    try:
        async with asyncio.timeout(1):
            return await raw.reader.read(65_536)
    except (TimeoutError, ConnectionError):
        return b""


async def test_no_secret_is_written_or_answered(serve: Serve) -> None:
    service = await serve(
        *("--workers", "2", "--jwt-key", KEY, "--subscriptions", "--log-level", "debug"),
        *("--access-lines", "100000", "--publish-origins", "https://app.example"),
    )
    good = token(["*"], ["*"], payload={"name": MARK + "-payload"}, sub="ann", jti="one")
    async with opened(service.url) as raw:
        await raw.send(request("POST", "/tickets", f"Authorization: Bearer {good}", body=b""))
        ticket = json.loads((await raw.answer()).body)["ticket"]
    answers = []
    for one in requests(good, ticket):
        async with opened(service.url) as raw:
            await raw.send(one)
            answers.append(await told(raw))
    for path in ("/metrics", "/stats"):
        async with opened(service.url) as raw:
            await raw.send(request("GET", path))
            answers.append((await raw.answer()).body)
    service.signal(15)
    assert await service.ended() == 0
    written = json.dumps(service.log)
    assert len(service.log) > 10
    signature = good.rpartition(".")[2]
    for secret in (good, signature, ticket, FORGED, KEY, "session="):
        assert secret not in written
        assert secret.encode() not in b"".join(answers)
    assert MARK not in written


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{MARK}@host/0",
        f"redis://host/0?password={MARK}",
        f"redis://:{MARK}/more@host",
        f"unix:///socket?db=0&password={MARK}",
        f"redis:/user:{MARK}@host",
        f"redis://user:{MARK}@host:port?{MARK}",
    ],
)
def test_a_password_to_redis_is_never_shown(url: str) -> None:
    assert MARK not in catalogue()["store"].show(url)
    assert MARK not in catalogue()["store"].show_raw(url)
    with pytest.raises(ConfigError) as caught:
        Config(store=url, port=-1)
    assert MARK not in str(caught.value)


def test_names_of_stores_are_shown_whole() -> None:
    for store in ("memory", "sqlite:/a@b?c.db", "redis://host:1/0", "unix:///socket"):
        assert catalogue()["store"].show(store) == store


async def test_a_service_does_not_tell_its_log_the_password_to_redis(
    serve: Serve, tmp_path: Path
) -> None:
    if program() is None:
        pytest.skip("no redis-server")
    server = RedisServer(tmp_path, requirepass=MARK)
    server.client = Redis(port=server.port, password=MARK, socket_timeout=START_S)
    server.start()
    try:
        store = f"redis://:{MARK}@127.0.0.1:{server.port}/0"
        service = await serve("--workers", "2", "--store", store)
        assert MARK not in json.dumps(service.log)
    finally:
        server.close()
