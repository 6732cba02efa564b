"""Tickets, renewal, revocation and pongs, by HTTP."""

import asyncio
import contextlib
import json
import logging
import socket
import time

import pytest

from fastsse.hub import ended_rights
from fastsse.server import Server
from tests.auth.minting import mint, rsa_key
from tests.http.conftest import Start
from tests.http.raw import Stream, connected, request, until
from tests.mercure.client import HUB, KEY, ask, bearer, in_a_while, publish, subscribed, texts


@pytest.fixture
async def guarded(start: Start) -> Server:
    """A server that wants tokens."""
    return await start(jwt_key=KEY, expiry_notice="30s")


async def private(server: Server, topic: str, data: str) -> None:
    assert (await publish(server, ("topic", topic), ("data", data), ("private", "1"))).status == 200


# ── Tickets ───────────────────────────────────────────────────────────────────────────────────


async def test_a_ticket_opens_streams_with_its_tokens_rights(guarded: Server) -> None:
    answer = await ask(guarded, "POST", "/tickets", bearer(subscribe=["a"]))
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.json["expires_in_s"] == 30
    ticket = answer.json["ticket"]
    async with connected(guarded) as raw:
        await raw.send(request("GET", f"/events?topic=a&ticket={ticket}"))
        stream = await raw.stream()
        await stream.opening()
        await private(guarded, "a", "for the holder")
        assert await texts(stream, 1) == ["for the holder"]
    for path in ("/events", HUB):
        async with connected(guarded) as raw:
            await raw.send(request("GET", f"{path}?topic=a&ticket={ticket}"))
            assert (await raw.head())[0] == 200
        curl = await ask(guarded, "GET", f"{path}?topic=a&ticket={ticket}", "User-Agent: curl")
        assert curl.status == 401


@pytest.mark.parametrize("path", ["/events", HUB])
async def test_a_subscriber_whose_keys_can_not_be_fetched_gets_a_retry_time(
    start: Start, path: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = f"http://127.0.0.1:{listener.getsockname()[1]}/keys"
    server = await start(jwks_url=closed)
    token = f"Authorization: Bearer {mint(key=rsa_key(), alg='RS256').decode()}"
    answer = await ask(server, "GET", f"{path}?topic=a", token)
    # An error status would end an EventSource for good.
    assert answer.status == 200
    assert answer.body.startswith(b"retry: ")
    status = await ask(server, "GET", f"{path}?topic=a&refuse=status", token)
    assert (status.status, status.json["reason"]) == (503, "access")
    assert (await ask(server, "HEAD", f"{path}?topic=a", token)).status == 503


async def ticket_of(server: Server, **claims: object) -> str:
    answer = await ask(server, "POST", "/tickets", bearer(subscribe=["a"], **claims))
    ticket: str = answer.json["ticket"]
    return ticket


async def test_a_ticket_gives_its_first_client_a_cookie(guarded: Server) -> None:
    ticket = await ticket_of(guarded, exp=int(time.time()) + 900)
    chrome = "User-Agent: Chrome"
    for page, secure in (("http://a.example/", False), ("https://a.example/", True)):
        async with connected(guarded) as raw:
            await raw.send(
                request("GET", f"/events?topic=a&ticket={ticket}", chrome, f"Referer: {page}")
            )
            _, headers = await raw.head()
        cookie, *attributes = headers["set-cookie"].split("; ")
        assert ("Secure" in attributes) == secure
        assert {"HttpOnly", "SameSite=Strict"} <= set(attributes)
        (age,) = [int(one[8:]) for one in attributes if one.startswith("Max-Age=")]
        assert 800 < age <= 900
        async with connected(guarded) as raw:
            again = f"/events?topic=a&ticket={ticket}"
            await raw.send(request("GET", again, "User-Agent: other", f"Cookie: {cookie}"))
            status, headers = await raw.head()
            assert (status, "set-cookie" in headers) == (200, False)
        ticket = await ticket_of(guarded, exp=int(time.time()) + 900)


async def test_a_stolen_url_opens_nothing_from_elsewhere(start: Start) -> None:
    server = await start(jwt_key=KEY, trusted_proxies=["127.0.0.1"])
    ticket = await ticket_of(server)
    path = f"/events?topic=a&ticket={ticket}"
    chrome, home = "User-Agent: Chrome", "X-Forwarded-For: 192.0.2.7"
    async with connected(server) as raw:
        await raw.send(request("GET", path, chrome, home))
        stream = await raw.stream()
        await stream.opening()
        for stolen in (
            (chrome, "X-Forwarded-For: 198.51.100.7"),
            ("User-Agent: curl", home),
            (chrome, home, "Origin: https://evil.example"),
            ("User-Agent: curl", home, "Cookie: fastsse-ticket-0=x; fastsse-ticket-1=x"),
        ):
            assert (await ask(server, "GET", path, *stolen)).status == 401
        await private(server, "a", "still here")
        assert await texts(stream, 1) == ["still here"]
    async with connected(server) as raw:
        # Another address of the same network, as after a phone's short loss of it.
        await raw.send(request("GET", path, chrome, "X-Forwarded-For: 192.0.2.200"))
        assert (await raw.head())[0] == 200


async def test_a_ticket_ends_at_its_tokens_exp(guarded: Server) -> None:
    ticket = await ticket_of(guarded, exp=int(time.time()) + 2)
    async with connected(guarded) as raw:
        await raw.send(request("GET", f"/events?topic=a&ticket={ticket}"))
        await (await raw.stream()).to_end()
    assert (await ask(guarded, "GET", f"/events?topic=a&ticket={ticket}")).status == 401


async def test_of_many_opens_at_once_one_stream_stays(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = await start(jwt_key=KEY, access_lines=10_000)
    tickets = [await ticket_of(server) for _ in range(10)]
    async with contextlib.AsyncExitStack() as stack:
        raws = [await stack.enter_async_context(connected(server)) for _ in range(100)]
        for index, raw in enumerate(raws):
            await raw.send(request("GET", f"/events?topic=a&ticket={tickets[index % 10]}"))
        for raw in raws:
            assert (await raw.head())[0] == 200
        await until(lambda: server.stream_count == 10)
        await private(server, "a", "one each")
        held: list[int] = []
        for index, raw in enumerate(raws):
            with contextlib.suppress(asyncio.IncompleteReadError):
                await raw.reader.readuntil(b"one each")
                held.append(index % 10)
        assert sorted(held) == list(range(10))
    ended = [r for r in caplog.records if r.message == "The earlier stream of a ticket was ended."]
    assert len(ended) == 90


async def test_a_ticket_opens_a_stream_on_mercures_path_too(guarded: Server) -> None:
    ticket = (await ask(guarded, "POST", "/tickets", bearer(subscribe=["a"]))).json["ticket"]
    async with subscribed(guarded, f"topic=a&ticket={ticket}") as stream:
        await private(guarded, "a", "x")
        assert await texts(stream, 1) == ["x"]


async def test_a_ticket_is_for_streams_only(guarded: Server) -> None:
    ticket = (await ask(guarded, "POST", "/tickets", bearer(["*"], ["*"]))).json["ticket"]
    assert (await ask(guarded, "POST", f"/tickets?ticket={ticket}")).status == 401
    assert (await ask(guarded, "POST", f"/renew?stream=x&ticket={ticket}")).status == 401
    assert (await ask(guarded, "POST", f"/events?topic=a&ticket={ticket}", body=b"x")).status == 401
    cookie = "Cookie: mercureAuthorization=" + bearer(subscribe=["a"]).split()[-1]
    assert (await ask(guarded, "POST", "/tickets", cookie)).status == 401
    basic = "Authorization: Basic dXNlcjpwYXNz"
    assert (await ask(guarded, "POST", "/tickets", basic, cookie)).status == 401
    async with connected(guarded) as raw:
        await raw.send(request("GET", f"/events?topic=a&ticket={ticket}"))
        await (await raw.stream()).opening()


@pytest.mark.parametrize("ticket", ["", "x", "A" * 32, "A" * 5000, "%00" * 32, "é" * 32])
async def test_no_other_text_is_a_ticket(guarded: Server, ticket: str) -> None:
    path = "/events?topic=a&ticket=" + "".join(f"%{byte:02x}" for byte in ticket.encode())
    assert (await ask(guarded, "GET", path)).status in (400, 401)


# ── Renewal ───────────────────────────────────────────────────────────────────────────────────


async def expiring(stream: Stream) -> dict[str, object]:
    event = await stream.next()
    assert event.type == "fastsse.expiring"
    data: dict[str, object] = json.loads(event.data)
    return data


async def test_a_stream_receives_a_notice_before_its_token_ends_and_is_renewed(
    guarded: Server,
) -> None:
    async with connected(guarded) as raw:
        by = bearer(subscribe=["a"], sub="ann", exp=in_a_while(20))
        await raw.send(request("GET", "/events?topic=a", by))
        stream = await raw.stream()
        fields = await expiring(stream)
        assert 0 < float(str(fields["expires_in_s"])) <= 20
        fresh = bearer(subscribe=["a"], sub="ann", exp=in_a_while(29))
        path = f"/renew?stream={fields['stream']}"
        assert (await ask(guarded, "POST", path, fresh)).status == 204
        again = await expiring(stream)
        assert float(str(again["expires_in_s"])) > float(str(fields["expires_in_s"])) - 9
        await private(guarded, "a", "still here")
        assert await texts(stream, 1) == ["still here"]


@pytest.mark.parametrize(
    ("fresh", "status"),
    [
        (bearer(subscribe=["a"], sub="bob"), 403),
        (bearer(subscribe=["a"]), 403),
        (bearer(subscribe=["b"], sub="ann"), 403),
        (bearer(subscribe=["*"], sub="ann"), 204),
        (bearer(subscribe=["a"], sub="ann", exp=1), 401),
    ],
)
async def test_only_the_same_subject_with_the_same_grants_renews(
    guarded: Server, fresh: str, status: int
) -> None:
    async with connected(guarded) as raw:
        by = bearer(subscribe=["a"], sub="ann", exp=in_a_while(29))
        await raw.send(request("GET", "/events?topic=a", by))
        stream_id = (await expiring(await raw.stream()))["stream"]
        answer = await ask(guarded, "POST", f"/renew?stream={stream_id}", fresh)
        assert answer.status == status


async def test_a_stream_that_is_not_there_is_not_renewed(guarded: Server) -> None:
    by = bearer(subscribe=["a"])
    for stream_id in ("x", "0" * 32, "f" * 255):
        assert (await ask(guarded, "POST", f"/renew?stream={stream_id}", by)).status == 404
    for query in ("", "stream=", "stream=a&stream=b", "stream=" + "f" * 256):
        assert (await ask(guarded, "POST", f"/renew?{query}", by)).status == 400


# ── Revocation ────────────────────────────────────────────────────────────────────────────────

REVOKER = bearer(["*"])
JSON = "Content-Type: application/json"


@pytest.mark.parametrize(
    "what", [b'{"jti":"t1"}', b'{"sub":"ann"}', b'{"sub":"ann","issued_before":4000000000}']
)
async def test_a_revoked_tokens_streams_end_and_it_opens_no_other(
    guarded: Server, what: bytes
) -> None:
    gone = bearer(subscribe=["a"], sub="ann", jti="t1", iat=in_a_while(-5))
    kept = bearer(subscribe=["a"], sub="bob", jti="t2", iat=in_a_while(-5))
    async with connected(guarded) as one, connected(guarded) as other:
        await one.send(request("GET", "/events?topic=a", gone))
        stream = await one.stream()
        await other.send(request("GET", "/events?topic=a", kept))
        lives = await other.stream()
        assert (await ask(guarded, "POST", "/revoke", REVOKER, JSON, body=what)).status == 204
        await stream.to_end()
        assert stream.was_cut
        await private(guarded, "a", "for bob")
        assert await texts(lives, 1) == ["for bob"]
    assert (await ask(guarded, "GET", "/events?topic=a", gone)).status == 401


# Long-polls of both interfaces; the stream is made private first.
POLLS = ("/events?topic=a&wait=30s", "/streams/a?offset=now&live=long-poll")


async def private_stream(server: Server) -> str:
    """Creates it; returns a path that appends to it."""
    headers = (REVOKER, "Content-Type: text/plain", "Stream-Private: true")
    assert (await ask(server, "PUT", "/streams/a", *headers, body=b"")).status == 201
    return "/streams/a"


@pytest.mark.parametrize("path", POLLS)
async def test_a_poll_whose_token_is_revoked_while_it_waits_reads_nothing(
    guarded: Server, path: str
) -> None:
    appends = await private_stream(guarded)
    gone, kept = (bearer(subscribe=["a"], sub=name, iat=in_a_while(-5)) for name in ("ann", "bob"))
    async with connected(guarded) as one, connected(guarded) as other:
        await one.send(request("GET", path, gone))
        await other.send(request("GET", path, kept))
        await until(lambda: waiting(guarded) == 2)
        body = b'{"sub":"ann"}'
        assert (await ask(guarded, "POST", "/revoke", REVOKER, JSON, body=body)).status == 204
        by = (REVOKER, "Content-Type: text/plain")
        assert (await ask(guarded, "POST", appends, *by, body=b"secret")).status == 204
        refused, read = await one.answer(), await other.answer()
        assert (refused.status, b"secret" in refused.body) == (401, False)
        assert (read.status, b"secret" in read.body) == (200, True)


# One waits until its span is over.
WAITING = (*POLLS, "/events?topic=a&wait=30s&max_rate=0.1&last_event_id={now}")


@pytest.mark.parametrize("path", WAITING)
@pytest.mark.parametrize("what", ['{"sub":"ann"}', '{"jti":"1"}', '{"issued_before":%d}'])
async def test_a_poll_that_waits_is_answered_when_its_token_is_revoked(
    guarded: Server, path: str, what: str
) -> None:
    await private_stream(guarded)
    last = guarded.publish("a", "one")
    path = path.format(now=last)
    now_s = in_a_while(0)
    gone = bearer(subscribe=["a"], sub="ann", jti="1", iat=now_s - 20)
    kept = bearer(subscribe=["a"], sub="bob", jti="2", iat=now_s)
    async with connected(guarded) as one, connected(guarded) as other:
        await one.send(request("GET", path, gone))
        await other.send(request("GET", path, kept))
        await until(lambda: waiting(guarded) == 2)
        body = (what % (now_s - 10) if "%" in what else what).encode()
        assert (await ask(guarded, "POST", "/revoke", REVOKER, JSON, body=body)).status == 204
        answer = await one.answer()
        assert (answer.status, b"revoked" in answer.body) == (401, True)
        assert waiting(guarded) == 1


async def test_very_many_polls_that_wait_are_answered_when_their_tokens_are_revoked(
    guarded: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ended_rights, "LOOKED_AT_A_TURN", 3)
    async with contextlib.AsyncExitStack() as stack:
        raws = [await stack.enter_async_context(connected(guarded)) for _ in range(20)]
        for number, raw in enumerate(raws):
            await raw.send(request("GET", POLLS[0], bearer(subscribe=["a"], sub=str(number % 2))))
        await until(lambda: waiting(guarded) == 20)
        for subject in (b"0", b"1"):
            body = b'{"sub":"%b"}' % subject
            assert (await ask(guarded, "POST", "/revoke", REVOKER, JSON, body=body)).status == 204
        assert [(await raw.answer()).status for raw in raws] == [401] * 20


@pytest.mark.parametrize("path", POLLS)
async def test_a_poll_whose_token_expires_while_it_waits_reads_nothing(
    guarded: Server, path: str
) -> None:
    appends = await private_stream(guarded)
    async with connected(guarded) as raw:
        await raw.send(request("GET", path, bearer(subscribe=["a"], exp=time.time() + 0.7)))
        await until(lambda: waiting(guarded) == 1)
        await asyncio.sleep(0.8)
        by = (REVOKER, "Content-Type: text/plain")
        assert (await ask(guarded, "POST", appends, *by, body=b"secret")).status == 204
        assert (await raw.answer()).status == 401


@pytest.mark.parametrize("path", POLLS)
async def test_a_poll_is_answered_when_its_token_expires(start: Start, path: str) -> None:
    guarded = await start(jwt_key=KEY, streams_poll="60s")
    await private_stream(guarded)
    began_s = time.monotonic()
    by = bearer(subscribe=["a"], exp=time.time() + 0.7)
    assert (await ask(guarded, "GET", path, by)).status == 401
    assert time.monotonic() - began_s < 20


def waiting(server: Server) -> int:
    worker = server._worker
    return worker._hub.streams.polls.waiting + worker.frontend.counters()["streams_waiting"]


async def test_revoking_needs_its_own_grant(guarded: Server) -> None:
    body = b'{"sub":"ann"}'
    for by, status in ((bearer(["a", "/{x}"]), 403), (bearer(["$fastsse/revoke"]), 204)):
        assert (await ask(guarded, "POST", "/revoke", by, JSON, body=body)).status == status
    assert (await ask(guarded, "POST", "/revoke", JSON, body=body)).status == 401
    twice = b'{"sub":"ann","sub":"bob"}', b'{"jti":"a", "\\u006ati":"b"}'
    for bad in (b"", b"{}", b"[]", b'{"sub":1}', b'{"who":"x"}', b"nothing", *twice):
        assert (await ask(guarded, "POST", "/revoke", REVOKER, JSON, body=bad)).status == 400


# ── Pings ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_page_that_answers_its_pings_stays_and_one_that_does_not_goes(
    start: Start,
) -> None:
    server = await start(ping="10s", pong_timeout="20s")
    sender = server._worker._sender
    async with connected(server) as one, connected(server) as other, connected(server) as raw:
        await one.send(request("GET", "/events?topic=a&ping=true"))
        await other.send(request("GET", "/events?topic=a&ping=true"))
        answers, silent = await one.stream(), await other.stream()
        async with connected(server) as plain:
            await plain.send(request("GET", "/events?topic=a"))
            unpinged = await plain.stream()
            for stream in (answers, silent, unpinged):
                await stream.opening()
            while server.stream_count > 2:
                sender.advance_clock(10_000)
                event = await answers.next()
                assert event.type == "fastsse.ping"
                stream_id = json.loads(event.data)["stream"]
                await raw.send(request("POST", f"/pong?stream={stream_id}", body=b""))
                assert (await raw.answer()).status == 204
            await silent.to_end()
            assert [event.type for event in silent.parsed.events][:2] == ["fastsse.ping"] * 2
            assert not unpinged.parsed.events
    await until(lambda: server.stream_count == 0)


async def test_a_pong_for_no_stream_is_404_and_off_it_is_no_route(start: Start) -> None:
    server = await start(ping="1s")
    assert (await ask(server, "POST", "/pong?stream=abc", body=b"x")).status == 404
    assert (await ask(server, "POST", "/pong", body=b"x")).status == 400
    without = await start()
    assert (await ask(without, "POST", "/pong?stream=abc", body=b"")).status == 404
    answer = await ask(without, "GET", "/events?topic=a&ping=true")
    assert (answer.status, answer.field) == (400, "ping")


@pytest.mark.parametrize("path", ["/events", "/.well-known/mercure"])
async def test_both_subscribe_paths_read_ping_in_the_same_way(start: Start, path: str) -> None:
    server = await start(ping="10s", anonymous=True)
    for query in ("ping=true&ping=true", "ping=maybe", "ping=true&fastsse=false"):
        answer = await ask(server, "GET", f"{path}?topic=a&{query}")
        assert (answer.status, answer.field) == (400, "ping")
    async with connected(server) as raw:
        await raw.send(request("GET", f"{path}?topic=a&ping=true&fastsse=true"))
        stream = Stream(raw.reader, (await raw.head())[1])
        await stream.opening()
        server._worker._sender.advance_clock(10_000)
        assert (await stream.next()).type == "fastsse.ping"


async def test_without_keys_there_are_no_tokens_to_speak_of(start: Start) -> None:
    server = await start()
    for path in ("/tickets", "/renew?stream=x", "/revoke"):
        assert (await ask(server, "POST", path)).status == 404
