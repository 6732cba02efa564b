"""Pages of other origins: whom CORS lets in, and what can't pass for them."""

import re
from collections.abc import Sequence

import pytest

from fastsse.config import Config, ConfigError
from fastsse.http.cors import Cors
from fastsse.http.origins import Origins, origin_of

BELOW = Origins(["https://*.example.com", "http://*.dev.test:3000", "https://app.example"])


@pytest.mark.parametrize(
    "origin",
    [
        b"https://a.example.com",
        b"https://b.a.example.com",
        b"HTTPS://A.Example.com",
        b" https://a-b.example.com ",
        b"https://xn--bcher-kva.example.com",
        b"http://x.dev.test:3000",
        b"https://app.example",
    ],
)
def test_names_below_a_domain_are_allowed_by_its_pattern(origin: bytes) -> None:
    assert origin in BELOW


@pytest.mark.parametrize(
    "origin",
    [
        b"https://example.com",
        b"https://.example.com",
        b"https://evil-example.com",
        b"https://evilexample.com",
        b"https://a.example.com.evil.net",
        b"https://a.example.com@evil.net",
        b"https://evil.net/.example.com",
        b"https://evil.net#.example.com",
        b"https://evil.net?.example.com",
        b"https://evil.net\\.example.com",
        b"https://user:x@a.example.com",
        b"https://a..example.com",
        b"https://-a.example.com",
        b"https://a-.example.com",
        b"https://a.example.com.",
        b"https://a.example.com:8443",
        b"https://a.example.com:443",
        b"http://a.example.com",
        b"https://a.exampleXcom",
        b"https://a%2eexample.com",
        b"https://evil.net\n.example.com",
        b"https://a.example.com\x00",
        "https://evil.net\u2044.example.com".encode(),
        b"https://*.example.com",
        b"https://a.example.com, https://b.example.com",
        b"https://" + b"a." * 200 + b"example.com",
        b"http://x.dev.test",
        b"null",
        b"*",
        b"",
    ],
)
def test_nothing_passes_for_a_name_below_a_domain(origin: bytes) -> None:
    assert origin not in BELOW


def test_a_pattern_is_matched_in_linear_time() -> None:
    assert b"https://" + b"a" * 100_000 not in BELOW
    assert b"https://" + b"a-" * 140 + b".example.com" not in BELOW


def test_credentials_are_allowed_to_listed_origins_and_never_to_any() -> None:
    headers = {b"origin": b"https://a.example.com"}
    listed = Cors(["https://*.example.com"], cross_publish=False).lines(headers)
    assert b"Access-Control-Allow-Origin: https://a.example.com\r\n" in listed
    assert b"Access-Control-Allow-Credentials: true\r\n" in listed
    assert b"Vary: Origin\r\n" in listed
    anyone = Cors(["*"], cross_publish=False).lines(headers)
    assert b"Access-Control-Allow-Origin: *\r\n" in anyone
    assert b"Credentials" not in anyone


@pytest.mark.parametrize("origin", [b"https://evil.net", b"null", b"*"])
def test_an_origin_is_never_reflected_because_it_asked(origin: bytes) -> None:
    cors = Cors(["https://*.example.com"], cross_publish=False)
    assert cors.lines({b"origin": origin}) == b"Vary: Origin\r\n"
    preflight = {b"origin": origin, b"access-control-request-method": b"POST"}
    assert cors.preflight_lines(preflight) == b""


PREFLIGHT = {b"origin": b"https://a.example", b"access-control-request-method": b"POST"}
ALLOWED = re.compile(rb"Access-Control-Allow-Headers: ([^\r\n]*)\r\n")


def allowed_headers(headers: Sequence[str]) -> set[bytes]:
    cors = Cors(["https://a.example"], headers, cross_publish=False)
    (listed,) = ALLOWED.findall(cors.preflight_lines(PREFLIGHT))
    return set(listed.lower().split(b", "))


def test_a_preflight_allows_what_tracing_and_ajax_libraries_add() -> None:
    assert allowed_headers(Config().cors_headers) == {
        *(b"authorization", b"cache-control", b"content-type", b"last-event-id"),
        *(b"idempotency-key", b"if-match", b"x-requested-with"),
        *(b"traceparent", b"tracestate", b"baggage"),
        *(b"producer-epoch", b"producer-id", b"producer-seq", b"if-none-match"),
        *(b"stream-closed", b"stream-expires-at", b"stream-fork-offset", b"stream-private"),
        *(b"stream-fork-sub-offset", b"stream-forked-from", b"stream-seq", b"stream-ttl"),
    }


def test_the_option_replaces_them_and_leaves_our_own() -> None:
    listed = allowed_headers(Config(cors_headers="X-Tenant,last-event-id").cors_headers)
    assert {b"x-tenant", b"authorization", b"last-event-id"} <= listed
    assert b"traceparent" not in listed
    for wrong in ("*", "a b", "X:y", "a\r\nb"):
        with pytest.raises(ConfigError):
            Config(cors_headers=[wrong])


def test_origins_that_a_pattern_allowed_are_remembered_within_bounds() -> None:
    cors = Cors(["https://*.example.com"], cross_publish=False)
    for number in range(3_000):
        assert cors.lines({b"origin": b"https://n%d.example.com" % number})
        cors.lines({b"origin": b"https://n%d.evil.net" % number})
    assert len(cors._lines) <= 1_000


@pytest.mark.parametrize(
    ("referer", "origin"),
    [
        (b"https://App.example/page?x#y", b"https://app.example"),
        (b"https://app.example", b"https://app.example"),
        (b"https://app.example:8443/", b"https://app.example:8443"),
        (b"https://user@app.example/", None),
        (b"https://app.example\\@evil.net/", None),
        (b"//app.example/", None),
        (b"about:blank", None),
        (b"", None),
    ],
)
def test_a_referer_says_an_origin_or_nothing(referer: bytes, origin: bytes | None) -> None:
    assert origin_of(referer) == origin


@pytest.mark.parametrize("origins", [["*"], ["https://a.example"]])
def test_pages_may_read_what_the_server_warns_of(origins: list[str]) -> None:
    lines = Cors(origins, cross_publish=False).lines({b"origin": b"https://a.example"})
    (exposed,) = re.findall(rb"Access-Control-Expose-Headers: ([^\r\n]*)\r\n", lines)
    assert b"Fastsse-Warning" in exposed.split(b", ")
