"""What a page of another origin can do with its reader's browser: nothing."""

from urllib.parse import urlencode

import pytest

from tests.attack.conftest import Start
from tests.http.raw import Answer, connected, opened, request
from tests.mercure.client import FORM, HUB, KEY, ask, bearer, token

EVIL = "https://evil.example"
ORIGINS = [
    EVIL,
    "null",
    "https://app.example.evil.example",
    "https://evil-app.example",
    "https://app.example@evil.example",
    "https://app.example.",
    "http://app.example",
    "https://app.example:444",
    "https://app.examplé",
    "file://",
    "https://app.example, https://evil.example",
    "*",
]
PATHS = {"/events?topic=a": "Content-Type: text/plain", HUB: FORM}
BODY = urlencode({"topic": "a", "data": "x"}).encode()


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("path", PATHS)
async def test_a_foreign_page_can_not_publish_with_its_readers_cookie(
    start: Start, path: str, origin: str
) -> None:
    server = await start(
        jwt_key=KEY, cors_origins="https://app.example", publish_origins="https://app.example"
    )
    cookie = f"Cookie: mercureAuthorization={token(['*'])}"
    answer = await ask(server, "POST", path, PATHS[path], cookie, f"Origin: {origin}", body=BODY)
    assert answer.status == 401
    referer = f"Referer: {origin}/page"
    answer = await ask(server, "POST", path, PATHS[path], cookie, referer, body=BODY)
    assert answer.status == 401


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("path", PATHS)
async def test_a_foreign_page_can_not_publish_where_anyone_may(
    start: Start, path: str, origin: str
) -> None:
    """Such a request needs no preflight: a browser sends it to a server on its own machine."""
    server = await start(cors_origins="https://app.example")
    answer = await ask(server, "POST", path, PATHS[path], f"Origin: {origin}", body=BODY)
    assert answer.status == 403


@pytest.mark.parametrize("origin", ORIGINS)
async def test_a_foreign_page_can_not_read(start: Start, origin: str) -> None:
    server = await start(jwt_key=KEY, anonymous=True, cors_origins="https://app.example")
    for path in ("/events?topic=a", f"{HUB}?topic=a", "/stats"):
        async with connected(server) as raw:
            await raw.send(request("GET", path, f"Origin: {origin}"))
            _, headers = await raw.head()
            assert not [name for name in headers if name.startswith("access-control")]
            assert headers["vary"] == "Origin"


async def test_any_origin_never_comes_with_credentials(start: Start) -> None:
    server = await start(jwt_key=KEY, anonymous=True, cors_origins="*", publish_origins="*")
    for method, path in (("GET", "/stats"), ("OPTIONS", HUB), ("HEAD", f"{HUB}?topic=a")):
        preflight = ["Access-Control-Request-Method: GET"]
        answer = await ask(server, method, path, f"Origin: {EVIL}", *preflight)
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("path", [HUB, f"{HUB}?topic=a", f"{HUB}/subscriptions", "/tickets"])
async def test_a_rebound_name_reaches_no_path(start: Start, path: str) -> None:
    server = await start(jwt_key=KEY, anonymous=True, subscriptions=True)
    for method in ("GET", "POST", "OPTIONS"):
        async with opened(server.addresses[0]) as raw:
            await raw.send(f"{method} {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode())
            answer: Answer = await raw.answer()
            assert answer.status == 421
            assert "allowed_hosts" in answer.json["detail"]


async def test_answers_are_not_stored_not_guessed_and_not_embedded(start: Start) -> None:
    server = await start(jwt_key=KEY, subscriptions=True, ping="1s")
    by = bearer(["*"], ["*"])
    for method, path in (
        ("GET", "/stats"),
        ("GET", "/healthz"),
        ("GET", "/nothing"),
        ("GET", "/presence?topic=a"),
        ("GET", f"{HUB}/subscriptions"),
        ("POST", "/tickets"),
        ("POST", "/events?topic=a"),
        ("POST", "/pong?stream=x"),
        ("HEAD", f"{HUB}?topic=a"),
        ("HEAD", "/events?topic=a"),
    ):
        headers = (await ask(server, method, path, by, body=b"")).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["cross-origin-resource-policy"] == "same-origin", path
        assert "no-store" in headers["cache-control"] or path == "/events?topic=a"


async def test_a_flood_of_preflights_keeps_nothing(start: Start) -> None:
    server = await start(cors_origins="https://*.app.example")
    async with connected(server) as raw:
        for number in range(2_000):
            origin = f"Origin: https://n{number}.app.example"
            await raw.send(
                request("OPTIONS", "/events", origin, "Access-Control-Request-Method: POST")
            )
            assert (await raw.answer()).status == 204
    (site,) = {arrivals.context for arrivals in server._worker.frontend._acceptors}
    assert len(site.cors._lines) <= 1_000
    assert server.stream_count == 0
