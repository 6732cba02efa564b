"""What is not plainly one HTTP/1.1 request is refused with a problem, and the connection closes:
two readers of the same bytes must never disagree where a request ends."""

import pytest

from tests.http.raw import HOST, connected, get, request

POST = b"POST /events?topic=a HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

MALFORMED = {
    "length and coding": (
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "coding and length": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"
    ),
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "two equal lengths": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of lengths": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "signed length": POST + b"Content-Length: +3\r\n\r\nabc",
    "negative length": POST + b"Content-Length: -3\r\n\r\nabc",
    "underscored length": POST + b"Content-Length: 1_0\r\n\r\nabc",
    "hexadecimal length": POST + b"Content-Length: 0x3\r\n\r\nabc",
    "empty length": POST + b"Content-Length:\r\n\r\nabc",
    "endless length": POST + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "length of other digits": POST + b"Content-Length: \xef\xbc\x93\r\n\r\nabc",
    "blank in length": POST + b"Content-Length: 3 4\r\n\r\nabc",
    "coding gzip": POST + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "coding gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding chunked, gzip": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "coding twice": POST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding identity": POST + b"Transfer-Encoding: identity\r\n\r\nabc",
    "coding behind a no-break space": POST + b"Transfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n",
    "coding in HTTP/1.0": CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n",
    "folding": b"GET /healthz HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    "folding with a tab": b"GET /healthz HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n",
    "folded first line": b"GET /healthz HTTP/1.1\r\n Host: a\r\n\r\n",
    "bare LF after the request line": b"GET /healthz HTTP/1.1\n" + HOST + b"\r\n",
    "bare LF after a header": b"GET /healthz HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "bare LF at the end": b"GET /healthz HTTP/1.1\r\nHost: a\r\n\n",
    "only LF": b"GET /healthz HTTP/1.1\nHost: a\n\n",
    "LF before the request": b"\nGET /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "bare CR": b"GET /healthz HTTP/1.1\r\nHost: a\rb\r\n\r\n",
    "CR CR LF": b"GET /healthz HTTP/1.1\r\nHost: a\r\r\n\r\n",
    "CR and something at the end": b"GET /healthz HTTP/1.1\r\nHost: a\r\n\rX",
    "blank before the colon": b"GET /healthz HTTP/1.1\r\nHost : a\r\n\r\n",
    "tab before the colon": b"GET /healthz HTTP/1.1\r\nHost\t: a\r\n\r\n",
    "no colon": b"GET /healthz HTTP/1.1\r\nHost: a\r\nfoo\r\n\r\n",
    "no name": b"GET /healthz HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "name not ASCII": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX\xc3\xa9: b\r\n\r\n",
    "two Hosts": b"GET /healthz HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "two Hosts, one lower": b"GET /healthz HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
    "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "blank in Host": b"GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n",
    "path in Host": b"GET /healthz HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "NUL in a value": b"GET /healthz HTTP/1.1\r\nHost: a\0b\r\n\r\n",
    "NUL in a name": b"GET /healthz HTTP/1.1\r\nHo\0st: a\r\n\r\n",
    "NUL in the target": b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n",
    "control character in a value": b"GET /healthz HTTP/1.1\r\nHost: a\x01\r\n\r\n",
    "DEL in a value": b"GET /healthz HTTP/1.1\r\nHost: a\x7f\r\n\r\n",
    "target not ASCII": "GET /é HTTP/1.1\r\n".encode() + HOST + b"\r\n",
    "tab in the target": b"GET /a\tb HTTP/1.1\r\n" + HOST + b"\r\n",
    "fragment": b"GET /healthz#x HTTP/1.1\r\n" + HOST + b"\r\n",
    "two blanks before the target": b"GET  /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "two blanks before the version": b"GET /healthz  HTTP/1.1\r\n" + HOST + b"\r\n",
    "blank after the version": b"GET /healthz HTTP/1.1 \r\n" + HOST + b"\r\n",
    "blank before the method": b" GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "two empty lines first": b"\r\n\r\nGET /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/0.9 by name": b"GET /healthz HTTP/0.9\r\n\r\n",
    "HTTP/1.2": b"GET /healthz HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/1.10": b"GET /healthz HTTP/1.10\r\n" + HOST + b"\r\n",
    "HTTP/2.0": b"GET /healthz HTTP/2.0\r\n" + HOST + b"\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http in lower case": b"GET /healthz http/1.1\r\n" + HOST + b"\r\n",
    "RTSP": b"GET /healthz RTSP/1.0\r\n" + HOST + b"\r\n",
    "ICE": b"SOURCE /healthz ICE/1.0\r\n" + HOST + b"\r\n",
    "method in lower case": b"get /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "unknown method": b"FOO /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "relative target": b"GET healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "authority as target": b"GET test:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT": b"CONNECT test:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "other scheme": b"GET ftp://test/healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "PROXY protocol": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n" + get("/healthz"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "signed chunk size": CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n",
    "chunk size with 0x": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "underscored chunk size": CHUNKED + b"0_3\r\nabc\r\n0\r\n\r\n",
    "empty chunk size": CHUNKED + b"\r\nabc\r\n0\r\n\r\n",
    "endless chunk size": CHUNKED + b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "blank before chunk size": CHUNKED + b" 3\r\nabc\r\n0\r\n\r\n",
    "blank after chunk size": CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
    "LF after chunk size": CHUNKED + b"3\nabc\r\n0\r\n\r\n",
    "LF in a chunk extension": CHUNKED + b"3;a\nabc\r\n0\r\n\r\n",
    "LF after a chunk": CHUNKED + b"3\r\nabc\n0\r\n\r\n",
    "chunk that is longer": CHUNKED + b"3\r\nabcXX0\r\n\r\n",
    "LF at the last chunk": CHUNKED + b"3\r\nabc\r\n0\r\n\n",
    "CR and something at the last chunk": CHUNKED + b"3\r\nabc\r\n0\r\n\rX",
    "LF in trailers": CHUNKED + b"3\r\nabc\r\n0\r\nX: y\n\r\n",
    "length in trailers": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
    "body of a GET": b"GET /healthz HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc",
}
FIELDS = {
    "length and coding": "Transfer-Encoding",
    "coding and length": "Content-Length",
    "two lengths": "Content-Length",
    "signed length": "Content-Length",
    "coding gzip": "Transfer-Encoding",
    "coding gzip, chunked": "Transfer-Encoding",
    "coding in HTTP/1.0": "Transfer-Encoding",
    "two Hosts": "Host",
    "no Host": "Host",
    "path in Host": "Host",
    "HTTP/0.9": "request line",
    "HTTP/2.0": "request line",
    "two blanks before the target": "request line",
    "fragment": "target",
    "CONNECT": "target",
    "body of a GET": "Content-Length",
    "signed chunk size": "chunk",
    "TLS": "scheme",
}


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("case", MALFORMED)
async def test_malformed_request_is_refused_and_nothing_changes(server, case, whole) -> None:
    async with connected(server) as raw:
        await (raw.send if whole else raw.trickle)(MALFORMED[case])
        answer = await raw.answer()
        assert answer.status == 400
        assert answer.headers["connection"] == "close"
        assert answer.field
        if case in FIELDS:
            assert answer.field == FIELDS[case]
        assert await raw.is_closed()
    assert server.stream_count == 0
    async with connected(server) as raw:
        await raw.send(get("/stats"))
        assert (await raw.answer()).json["totals"]["events_published"] == 0


@pytest.mark.parametrize("case", ["two lengths", "no Host", "length and coding", "TLS"])
async def test_bytes_after_a_malformed_request_are_not_read_as_one(server, case) -> None:
    async with connected(server) as raw:
        smuggled = request("POST", "/events?topic=a", body=b"smuggled")
        await raw.send(MALFORMED[case] + smuggled)
        assert (await raw.answer()).status == 400
        assert await raw.is_closed()
    async with connected(server) as raw:
        await raw.send(get("/stats"))
        assert (await raw.answer()).json["totals"]["events_published"] == 0


WELL_FORMED = {
    "empty line first": b"\r\n" + get("/healthz"),
    "absolute form": b"GET http://localhost/healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute form of another host": b"GET HTTP://[::1]/healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "escaped path": b"GET /%68ealthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "empty Host": b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n",
    "IPv6 Host": b"GET /healthz HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    "HTTP/1.0 without Host": b"GET /healthz HTTP/1.0\r\n\r\n",
    "Upgrade": get("/healthz", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"),
    "names in any case": b"GET /healthz HTTP/1.1\r\nhOsT: LocalHost\r\n\r\n",
    "no length of nothing": get("/healthz", "Content-Length: 0"),
    "Latin-1 in a value": get("/healthz").replace(b"\r\n\r\n", b"\r\nX: \xe9\r\n\r\n"),
}


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("case", WELL_FORMED)
async def test_unusual_but_valid_request_is_answered(server, case, whole) -> None:
    async with connected(server) as raw:
        await (raw.send if whole else raw.trickle)(WELL_FORMED[case])
        assert (await raw.answer()).status == 200


async def test_absolute_form_without_a_path_is_the_root(server) -> None:
    async with connected(server) as raw:
        await raw.send(b"GET http://localhost?x=1 HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (await raw.answer()).headers["content-type"].startswith("text/html")


async def test_body_of_a_publish_that_wants_an_upgrade_is_its_body(server) -> None:
    upgrade = ("Connection: Upgrade", "Upgrade: h2c")
    async with connected(server) as raw:
        await raw.send(request("POST", "/events?topic=a", *upgrade, body=b"data"))
        assert (await raw.answer()).status == 200
        await raw.send(get("/events?topic=a&last=1"))
        assert (await (await raw.stream()).next()).data == "data"


@pytest.mark.parametrize(
    "path", ["/events?topic=%", "/events?topic=%zz", "/events?topic=%f", "/%2"]
)
async def test_bad_escape_is_refused(ask, path) -> None:
    answer = await ask("GET", path)
    assert (answer.status, answer.field) == (400, "topic" if "topic" in path else "target")


@pytest.mark.parametrize(
    "path", ["/events?topic=%ff", "/events?topic=a&%c3=x", "/%ff", "/%ed%a0%80"]
)
async def test_escaped_bytes_that_are_not_utf8_are_refused(ask, path) -> None:
    assert (await ask("GET", path)).status == 400
