"""Authorisation: statements A1 to A9, and C1."""

from urllib.parse import quote, urlencode

import pytest

from fastsse.server import Server
from tests.http.conftest import Start
from tests.http.raw import connected, request
from tests.mercure.client import (
    FORM,
    HUB,
    KEY,
    ask,
    bearer,
    in_a_while,
    publish,
    subscribed,
    texts,
    token,
    update,
)

DAY_S = 86_400
READER = token(subscribe=["a"])
BAD = token(subscribe=["a"], key="another secret, which is also 32 bytes long")
PAGE = "https://app.example"


async def reads_private(hub: Server, query: str, *headers: str) -> bool | int:
    """Whether a stream opened so gets a private update; or the status of its refusal."""
    async with connected(hub) as raw:
        await raw.send(request("GET", f"{HUB}?topic=a{query}", *headers))
        status, _ = await raw.head()
    if status != 200:
        return status
    async with subscribed(hub, f"topic=a&topic=end{query}", *headers) as stream:
        await publish(hub, ("topic", "a"), ("data", "it"), ("private", "on"))
        await update(hub, "end", "end")
        return await texts(stream, 1) == ["it"]


@pytest.mark.parametrize(
    ("header", "query", "cookie", "reads"),
    [
        (READER, None, None, True),
        (None, READER, None, True),
        (None, None, READER, True),
        (READER, BAD, BAD, True),
        (None, READER, BAD, True),
        (BAD, READER, READER, 401),
        (None, BAD, READER, 401),
        (None, None, BAD, 401),
        (None, None, None, False),
    ],
)
async def test_A1_the_highest_credential_decides_even_when_it_is_bad(
    hub: Server, header: str | None, query: str | None, cookie: str | None, reads: bool | int
) -> None:
    headers = [f"Authorization: Bearer {header}"] if header else []
    if cookie:
        headers.append(f"Cookie: other=1; mercureAuthorization={cookie}; x=y")
    assert await reads_private(hub, f"&authorization={query}" if query else "", *headers) == reads


@pytest.mark.parametrize(
    "headers",
    [
        [f"Authorization: bearer {READER}"],
        ["Authorization: Bearer short"],
        [f"Authorization: Basic {READER}, Bearer {READER}"],
        [f"Authorization: {READER}"],
        [f"Authorization: Bearer {READER}"] * 2,
        ["Authorization: "],
    ],
)
async def test_A2_a_header_must_be_one_bearer_token(hub: Server, headers: list[str]) -> None:
    assert await reads_private(hub, "", *headers) == 401


async def test_A2_a_header_of_another_scheme_is_no_token(hub: Server) -> None:
    basic = "Authorization: Basic dXNlcjpwYXNz"
    assert await reads_private(hub, "", basic) is False
    cookie = f"Cookie: mercureAuthorization={READER}"
    assert await reads_private(hub, "", basic, cookie) is True


async def test_A2_the_query_holds_one_token(hub: Server) -> None:
    assert await reads_private(hub, "&authorization=short") == 401
    assert await reads_private(hub, f"&authorization={READER}&authorization={READER}") == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([f"Origin: {PAGE}"], 200),
        ([f"Referer: {PAGE}/page?x"], 200),
        ([f"Origin: {PAGE}", "Referer: https://evil.example/"], 200),
        (["Origin: https://evil.example"], 401),
        (["Origin: https://evil.example", f"Referer: {PAGE}/"], 401),
        (["Referer: https://evil.example/"], 401),
        ([f"Referer: https://evil.example/{PAGE}"], 401),
        (["Origin: null"], 401),
        ([], 401),
    ],
)
async def test_A3_a_publish_by_cookie_needs_an_allowed_page(
    start: Start, headers: list[str], status: int
) -> None:
    hub = await start(jwt_key=KEY, publish_origins=[PAGE])
    cookie = f"Cookie: mercureAuthorization={token(['*'])}"
    body = urlencode({"topic": "a"}).encode()
    assert (await ask(hub, "POST", HUB, FORM, cookie, *headers, body=body)).status == status


async def test_A3_without_publish_origins_no_cookie_publishes(hub: Server) -> None:
    cookie = f"Cookie: mercureAuthorization={token(['*'])}"
    answer = await ask(hub, "POST", HUB, FORM, cookie, "Origin: http://localhost", body=b"topic=a")
    assert answer.status == 401


async def test_A4_each_side_has_its_own_key(start: Start) -> None:
    other = "the key of the other side, 32 bytes and more"
    hub = await start(publisher_jwt_key=KEY, subscriber_jwt_key=other)
    assert (await publish(hub, ("topic", "a"))).status == 200
    assert (await publish(hub, ("topic", "a"), by=bearer(["*"], key=other))).status == 401
    by = bearer(subscribe=["*"], key=other)
    async with subscribed(hub, "topic=a", by):
        pass
    assert await reads_private(hub, "", bearer(subscribe=["*"])) == 401


@pytest.mark.parametrize(
    "claims",
    [{"exp": in_a_while(-10)}, {"nbf": in_a_while(DAY_S)}, {"exp": "soon"}, {"exp": None}],
)
async def test_A4_a_token_out_of_its_time_is_401(hub: Server, claims: dict[str, object]) -> None:
    if claims == {"exp": None}:
        claims = {"exp": []}
    assert await reads_private(hub, "", bearer(subscribe=["a"], **claims)) == 401


async def test_A5_without_a_token_only_where_that_is_allowed(start: Start, hub: Server) -> None:
    assert await reads_private(hub, "") is False
    closed = await start(jwt_key=KEY)
    assert await reads_private(closed, "") == 401


async def test_A5_a_bad_token_is_401_where_none_is_needed(hub: Server) -> None:
    assert await reads_private(hub, "", f"Authorization: Bearer {BAD}") == 401


async def test_A6_grants_stand_in_the_mercure_claim_or_the_namespaced_one(hub: Server) -> None:
    import jwt

    def by(**claims: object) -> str:
        return f"Authorization: Bearer {jwt.encode(claims, KEY, 'HS256')}"

    yes: dict[str, object] = {"subscribe": ["a"]}
    no: dict[str, object] = {"subscribe": ["b"]}
    assert await reads_private(hub, "", by(mercure=yes)) is True
    assert await reads_private(hub, "", by(**{"https://mercure.rocks/": yes})) is True
    assert await reads_private(hub, "", by(**{"mercure": no, "https://mercure.rocks/": yes}))
    assert not await reads_private(hub, "", by(**{"mercure": yes, "https://mercure.rocks/": no}))
    assert await reads_private(hub, "", by(mercure={"subscribe": ["a"] * 1001})) == 401
    assert await reads_private(hub, "", by(mercure={"subscribe": "a"})) == 401


async def test_A9_a_stream_ends_with_its_token(hub: Server) -> None:
    by = bearer(subscribe=["a"], exp=in_a_while(DAY_S))
    async with subscribed(hub, "topic=a", by) as stream:
        hub._worker._sender.advance_clock(1000 * DAY_S)
        await stream.to_end()
        assert stream.body.startswith(b":\n")


async def test_an_expired_token_is_401_with_and_without_a_cursor(hub: Server) -> None:
    """Some clients return for ever after a 204."""
    by = bearer(subscribe=["a"], exp=in_a_while(-10))
    for path in (f"{HUB}?topic=a", "/events?topic=a"):
        assert (await ask(hub, "GET", path, by)).status == 401
        assert (await ask(hub, "GET", path, by, "Last-Event-ID: 1-1")).status == 401
        assert (await ask(hub, "GET", path + "&lastEventID=1-1", by)).status == 401
        bad = f"Authorization: Bearer {BAD}"
        assert (await ask(hub, "GET", path, bad, "Last-Event-ID: 1-1")).status == 401
    assert hub.stream_count == 0


async def test_C1_pages_of_listed_origins_may_read_with_credentials(start: Start) -> None:
    hub = await start(jwt_key=KEY, anonymous=True, cors_origins=[PAGE])
    await update(hub, "a")
    async with subscribed(hub, "topic=a&lastEventID=earliest", f"Origin: {PAGE}") as stream:
        assert stream.headers["access-control-allow-origin"] == PAGE
        assert stream.headers["access-control-allow-credentials"] == "true"
        assert "Last-Event-ID" in stream.headers["access-control-expose-headers"]
        assert stream.headers["vary"] == "Origin"
        assert stream.headers["last-event-id"] == "earliest"
    async with subscribed(hub, "topic=a", "Origin: https://evil.example") as stream:
        assert not [name for name in stream.headers if name.startswith("access-control")]
    preflight = [f"Origin: {PAGE}", "Access-Control-Request-Method: POST"]
    answer = await ask(hub, "OPTIONS", HUB, *preflight)
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert answer.status == 204
    assert all(name in allowed for name in ("authorization", "cache-control", "last-event-id"))
    assert "POST" in answer.headers["access-control-allow-methods"]


async def test_the_same_rights_hold_on_our_own_path(hub: Server) -> None:
    by = f"Authorization: Bearer {READER}"
    async with connected(hub) as raw:
        topic = quote("{x}")
        await raw.send(request("GET", f"/events?topic={topic}&topic=end", by))
        stream = await raw.stream()
        for name, private in (("b", True), ("a", True), ("b", False)):
            body = b'{"topic":"%b","data":"%b","private":%b}' % (
                name.encode(),
                name.encode(),
                b"true" if private else b"false",
            )
            kind = "Content-Type: application/json"
            answer = await ask(hub, "POST", "/events", kind, bearer(["*"]), body=body)
            assert answer.status == 200
        assert (await ask(hub, "POST", "/events?topic=b", bearer(["a"]), body=b"x")).status == 403
        assert (await ask(hub, "POST", "/events?topic=a", body=b"x")).status == 401
        answer = await ask(
            hub, "POST", "/events?topic=end&private=false", bearer(["*"]), body=b"end"
        )
        assert answer.status == 200
        assert await texts(stream, 3) == ["a", "b", "end"]
