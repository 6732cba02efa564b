"""The other routes, what every answer carries, and which pages may read and publish."""

import json
import re

import pytest

from tests.http.raw import Raw, connected, get, opened, request, until

SECURED = {"x-content-type-options": "nosniff", "cache-control": "no-store"}


async def test_health_and_readiness_and_statistics(server) -> None:
    async with connected(server) as raw:
        for path, body in (("/healthz", b"alive\n"), ("/readyz", b"ready\n")):
            await raw.send(get(path))
            answer = await raw.answer()
            assert (answer.status, answer.body) == (200, body)
            assert answer.headers.items() >= SECURED.items()


async def test_statistics_are_json(server) -> None:
    async with connected(server) as stream, connected(server) as raw:
        await stream.send(get("/events?topic=a"))
        await (await stream.stream()).opening()
        server.publish("a", "x")
        await raw.send(get("/stats"))
        answer = await raw.answer()
        assert answer.headers["content-type"] == "application/json"
        stats = answer.json
        assert (stats["connections"], stats["channels"], stats["topics"]) == (1, 1, 1)
        assert stats["max_connections"] == server.max_connections
        assert stats["totals"]["events_published"] == 1
        assert "events_published" in json.dumps(stats["rates_per_s"])


async def test_metrics_are_prometheus_text(server) -> None:
    server.publish("a", "x")
    async with connected(server) as raw:
        await raw.send(get("/metrics"))
        answer = await raw.answer()
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        for name in (
            "connections",
            "connections_total",
            "turned_away_total",
            "delivery_latency_seconds_bucket",
            "lag_bytes",
            "blocked_connections",
            "history_bytes",
            "ring_bytes",
            "replays",
            "missed_edges_total",
            "sends_total",
            "bytes_sent_total",
            "deliveries_total",
            "build_info",
        ):
            assert f"\nfastsse_{name}".encode() in answer.body
        assert b"\nfastsse_events_published_total 1.0\n" in answer.body
        for family in ("disconnects_total", "gaps_total", "publish_refused_total"):
            assert f'\nfastsse_{family}{{reason="'.encode() in answer.body


@pytest.mark.parametrize(
    "path", ["/nothing", "/events/", "/Events", "//events", "/events/..", "/%2e"]
)
async def test_unknown_path_is_404(ask, path) -> None:
    answer = await ask("GET", path)
    assert (answer.status, answer.field) == (404, None)
    assert answer.headers.items() >= SECURED.items()


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("/events/?topic=a", "/events"),
        ("/Events?topic=a", "/events"),
        ("/.well-known/mercure/?topic=a", "/.well-known/mercure"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_path_that_is_nearly_one_of_ours_names_it(ask, method, path, near) -> None:
    answer = await ask(method, path)
    assert answer.status == 404
    assert answer.json["detail"].endswith(f"Did you mean {near}?")


async def test_other_versions_of_mercure_are_answered_with_the_one_spoken(ask) -> None:
    for method, query, status in (("QUERY", "", 405), ("GET", "?match=a", 400)):
        answer = await ask(method, "/.well-known/mercure" + query)
        assert answer.status == status
        assert "speaks Mercure 0.x: GET with topic=" in answer.json["detail"]


@pytest.mark.parametrize(
    ("path", "option"),
    [
        ("/tickets", "jwt_key"),
        ("/renew?stream=a", "jwt_key"),
        ("/revoke", "jwt_key"),
        ("/presence?topic=a", "subscriptions"),
        ("/.well-known/mercure/subscriptions", "subscriptions"),
        ("/pong?stream=a", "ping"),
    ],
)
async def test_path_that_an_option_brings_names_it(ask, path: str, option: str) -> None:
    answer = await ask("GET", path)
    assert answer.status == 404
    assert f"the option {option} enables it." in answer.body.decode()


@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "PURGE"])
@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/events?topic=a", {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}),
        ("/healthz", {"GET", "HEAD", "OPTIONS"}),
    ],
)
async def test_wrong_method_is_405_with_allow(ask, method, path, allow) -> None:
    answer = await ask(method, path)
    assert (answer.status, answer.field) == (405, None)
    assert set(answer.headers["allow"].split(", ")) == allow


@pytest.mark.parametrize("target", ["/events", "*"])
async def test_options_tells_what_is_allowed(ask, target) -> None:
    answer = await ask("OPTIONS", target)
    assert answer.status == 204
    assert "POST" in answer.headers["allow"]
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_star_is_only_for_options(ask) -> None:
    assert (await ask("GET", "*")).status == 405


# ── The page, and admin_port ──────────────────────────────────────────────────────────────────


async def test_page_runs_nothing_but_itself(ask) -> None:
    answer = await ask("GET", "/")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    todo = set(re.findall(rb'(?:src|href)="/console/([^"]+)"', answer.body))
    seen: dict[bytes, bytes] = {b"": answer.body}
    while todo - seen.keys():
        name = min(todo - seen.keys())
        part = await ask("GET", f"/console/{name.decode()}")
        assert (part.status, "unsafe" in part.headers["content-security-policy"]) == (200, False)
        seen[name] = part.body
        todo |= set(re.findall(rb'from "\./([a-z]+\.js)"', part.body))
    assert len(seen) == 12
    whole = b" ".join(seen.values())
    # Names that are no addresses: of SVG, and of a claim.
    for name in (b"http://www.w3.org/2000/svg", b"https://mercure.rocks/"):
        whole = whole.replace(name, b"")
    for outside in (b"http://", b"https://", b"//cdn", b"@import", b"innerHTML", b" style="):
        assert outside not in whole
    assert len(whole) < 64 * 1024
    for path in ("/console/none.js", "/console/../app.js", "/console/%2e%2e/console.py"):
        assert (await ask("GET", path)).status == 404


async def test_page_can_be_off(start) -> None:
    server = await start(page="off")
    async with connected(server) as raw:
        await raw.send(get("/"))
        assert (await raw.answer()).status == 404


async def test_page_is_off_on_a_public_address_unless_asked_for(start) -> None:
    for page, status in (("auto", 404), ("on", 200)):
        server = await start(host="0.0.0.0", allow_anonymous_publish=True, page=page)
        async with opened(f"http://127.0.0.1:{server.port}") as raw:
            await raw.send(get("/"))
            assert (await raw.answer()).status == status


async def test_admin_port_has_probes_and_page_alone(start) -> None:
    server = await start(admin_port=0)
    assert server.addresses != server.admin_addresses
    for address, status in ((server.addresses[0], 404), (server.admin_addresses[0], 200)):
        async with opened(address) as raw:
            for path in ("/healthz", "/readyz", "/metrics", "/stats", "/"):
                await raw.send(get(path))
                assert (await raw.answer()).status == status


async def test_page_on_the_admin_port_reaches_events(start) -> None:
    server = await start(admin_port=0)
    async with opened(server.admin_addresses[0]) as raw, connected(server) as main:
        await main.send(get("/events?topic=a"))
        stream = await main.stream()
        await stream.opening()
        await raw.send(request("POST", "/events?topic=a", body=b"x"))
        assert (await raw.answer()).status == 200
        assert (await stream.next()).data == "x"


# ── Pages of other origins ────────────────────────────────────────────────────────────────────

PAGE = "https://app.example"


async def asked(raw: Raw, method: str, path: str, *headers: str, body: bytes | None = None):
    await raw.send(request(method, path, *headers, body=body))
    return await raw.answer()


def cors_of(headers: dict[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in headers.items()
        if name.startswith("access-control") or name == "vary"
    }


async def test_no_origin_is_allowed_by_default(server) -> None:
    async with connected(server) as raw:
        answer = await asked(raw, "GET", "/healthz", f"Origin: {PAGE}")
        assert cors_of(answer.headers) == {}
        await raw.send(get("/events?topic=a", f"Origin: {PAGE}"))
        assert cors_of((await raw.stream()).headers) == {}


@pytest.mark.parametrize("whole", [True, False])
async def test_allowed_origin_may_read_streams_and_errors(start, whole) -> None:
    server = await start(cors_origins=[PAGE, "http://localhost:3000"])
    allowed = {
        "access-control-allow-origin": PAGE,
        "access-control-allow-credentials": "true",
        "access-control-expose-headers": (
            "Last-Event-ID, Link, ETag, Location, Retry-After, Fastsse-Warning, Stream-Next-Offset,"
            " Stream-Cursor, Stream-Up-To-Date, Stream-Closed, Stream-TTL, Stream-Expires-At,"
            " Stream-SSE-Data-Encoding, Producer-Epoch, Producer-Seq, Producer-Expected-Seq,"
            " Producer-Received-Seq"
        ),
        "vary": "Origin",
    }
    async with connected(server) as raw:
        answer = await asked(raw, "GET", "/events", f"Origin: {PAGE}")
        assert (answer.status, cors_of(answer.headers)) == (400, allowed)
    async with connected(server) as raw:
        await (raw.send if whole else raw.trickle)(get("/events?topic=a", f"Origin: {PAGE}"))
        assert cors_of((await raw.stream()).headers) == allowed


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil-app.example",
        "https://app.example.evil",
        "https://evil.app.example",
        "http://app.example",
        "https://app.example:8443",
        "null",
        "*",
        "",
    ],
)
async def test_other_origins_are_not_allowed_by_likeness(start, origin) -> None:
    server = await start(cors_origins=[PAGE])
    async with connected(server) as raw:
        answer = await asked(raw, "GET", "/healthz", f"Origin: {origin}")
        assert cors_of(answer.headers) == {"vary": "Origin"}
        preflight = ["Access-Control-Request-Method: POST", f"Origin: {origin}"]
        answer = await asked(raw, "OPTIONS", "/events", *preflight)
        assert cors_of(answer.headers) == {"vary": "Origin"}


async def test_preflight_allows_what_streams_and_publishes_need(start) -> None:
    server = await start(cors_origins=[PAGE])
    async with connected(server) as raw:
        preflight = ["Access-Control-Request-Method: POST", f"Origin: {PAGE}"]
        answer = await asked(raw, "OPTIONS", "/events?topic=a", *preflight)
    headers = cors_of(answer.headers)
    assert answer.status == 204
    assert headers["access-control-allow-origin"] == PAGE
    allowed = set(headers["access-control-allow-headers"].split(", "))
    assert {"Last-Event-ID", "Authorization", "Cache-Control", "Content-Type"} <= allowed
    assert "POST" in headers["access-control-allow-methods"]
    assert headers["vary"] == "Origin"


async def test_any_origin_when_that_is_asked_for(start) -> None:
    server = await start(cors_origins="*")
    async with connected(server) as raw:
        answer = await asked(raw, "GET", "/healthz", f"Origin: {PAGE}")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


async def test_foreign_page_may_not_publish_unasked(server) -> None:
    """Such a request needs no preflight, so a browser sends it for any page."""
    async with connected(server) as raw:
        headers = [f"Origin: {PAGE}", "Content-Type: text/plain"]
        answer = await asked(raw, "POST", "/events?topic=a", *headers, body=b"x")
        assert (answer.status, answer.field) == (403, "Origin")
        assert "cors_origins" in answer.json["detail"]
    async with connected(server) as raw:
        await raw.send(get("/stats"))
        assert (await raw.answer()).json["totals"]["events_published"] == 0


@pytest.mark.parametrize("origin", ["http://localhost", "https://localhost", "HTTP://LOCALHOST"])
async def test_own_page_may_publish(ask, origin) -> None:
    answer = await ask("POST", "/events?topic=a", f"Origin: {origin}", body=b"x")
    assert answer.status == 200


@pytest.mark.parametrize("options", [{"cors_origins": [PAGE]}, {"publish_token": "t"}])
async def test_allowed_page_or_token_may_publish(start, options) -> None:
    server = await start(**options)
    async with connected(server) as raw:
        headers = [f"Origin: {PAGE}", "Authorization: Bearer t"]
        answer = await asked(raw, "POST", "/events?topic=a", *headers, body=b"x")
        assert answer.status == 200
    await until(lambda: not server.stream_count)
