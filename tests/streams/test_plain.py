"""Topics that were not created as streams are readable only if an option says so."""

import json
from functools import partial
from pathlib import Path

import pytest

from tests.auth.minting import SECRET, grants, mint
from tests.http.conftest import Start, asked
from tests.http.raw import connected
from tests.streams.test_protocol import TEXT, content, created, tail


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_plain_topic_is_read_tailed_and_ended(
    start: Start, tmp_path: Path, store: str
) -> None:
    kept = {} if store == "memory" else {"store": f"sqlite:{tmp_path}/h.db"}
    server = await start(streams_plain=True, **kept)
    ask = partial(asked, server)
    for data in (b"a", b"b\nc", b""):
        await ask("POST", "/events?topic=plain", body=data or b"d")
    assert await content(ask, "/streams/plain") == b"ab\ncd"
    head = await ask("HEAD", "/streams/plain")
    assert head.headers["content-type"] == "text/plain; charset=utf-8"
    offset = head.headers["stream-next-offset"]
    assert await content(ask, "/streams/plain", offset) == b""
    async with connected(server) as raw:
        live = await tail(raw, f"/streams/plain?offset={offset}&live=sse")
        assert json.loads((await live.next()).data)["upToDate"] is True
        await ask("POST", "/events?topic=plain", body=b"e")
        data, control = await live.next(), await live.next()
        assert data.data == "e"
        await ask("POST", "/topics/end?topic=plain")
        assert json.loads((await live.next()).data)["streamClosed"] is True
    after = json.loads(control.data)["streamNextOffset"]
    polled = await ask("GET", f"/streams/plain?offset={after}&live=long-poll")
    assert (polled.status, polled.headers["stream-closed"]) == (204, "true")
    assert await content(ask, "/streams/plain", offset) == b"e"
    await server.drain(0)


async def test_plain_topic_begins_where_its_history_does(start: Start) -> None:
    server = await start(streams_plain=True, history_events=3)
    ask = partial(asked, server)
    for n in range(5):
        await ask("POST", "/events?topic=plain", body=b"%d" % n)
    assert await content(ask, "/streams/plain") == b"234"
    await ask("POST", "/events?topic=plain&ttl=1ms", body=b"gone")
    while await content(ask, "/streams/plain") != b"34":  # Until it has expired.
        pass


async def test_plain_topic_takes_no_appends_and_others_are_missing(start: Start) -> None:
    ask = partial(asked, await start(streams_plain=True))
    await ask("POST", "/events?topic=plain", body=b"x")
    assert (await ask("POST", "/streams/plain", TEXT, body=b"y")).status == 404
    assert (await ask("DELETE", "/streams/plain")).status == 404
    for path in ("/streams/none", "/streams//.well-known/mercure/x"):
        assert (await ask("GET", path)).status in (400, 404)
    await created(ask, "/streams/plain")
    assert await content(ask, "/streams/plain") == b""


async def test_plain_topic_needs_a_grant_where_tokens_are_configured(start: Start) -> None:
    server = await start(streams_plain=True, jwt_key=SECRET, anonymous=True)
    ask = partial(asked, server)

    def bearer(**claims: object) -> str:
        return f"Authorization: Bearer {mint(grants(**claims)).decode()}"

    writer = bearer(publish=["*"])
    sent = await ask("POST", "/events?topic=plain&private=true", writer, body=b"secret")
    assert sent.status == 200
    assert (await ask("GET", "/streams/plain")).status == 401
    other, reader = bearer(subscribe=["x"]), bearer(subscribe=["plain"])
    assert (await ask("GET", "/streams/plain", other)).status == 403
    answer = await ask("GET", "/streams/plain", reader)
    assert (answer.body, answer.headers["cache-control"]) == (b"secret", "private, no-store")
