"""Promises of a server with certificates: everything works over TLS as without, and what is wrong
is said."""

import asyncio
import json
import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from fastsse import _door
from fastsse.client import Publisher, Unreachable
from fastsse.config import Config, ConfigError
from tests.certificates import issue
from tests.http.conftest import Start
from tests.http.raw import TIMEOUT_S, Answer, Raw, request, secure

try:
    _door.library_version()
except _door.TlsError:
    pytest.skip("OpenSSL 3 is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate and its key."""
    return issue(tmp_path_factory.mktemp("tls"), "localhost")


async def plain(port: int, data: bytes) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await Raw(reader, writer).answer()
    finally:
        writer.transport.abort()


def options(pair: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"tls_cert": pair[0], "tls_key": pair[1], **more}


async def read_until(raw: Raw, ending: bytes) -> bytes:
    async with asyncio.timeout(TIMEOUT_S):
        return await raw.reader.readuntil(ending)


async def test_stream_gets_each_event_and_resumes(start: Start, pair: tuple[str, str]) -> None:
    server = await start(**options(pair))
    assert server.addresses == [f"https://127.0.0.1:{server.port}"]
    async with secure(server.port, pair[0]) as publisher, secure(server.port, pair[0]) as raw:
        await raw.send(request("GET", "/events?topic=t"))
        await read_until(raw, b"\n\n")
        ids = []
        for number in range(3):
            await publisher.send(request("POST", "/events?topic=t", body=b"event %d" % number))
            ids.append(json.loads((await publisher.answer()).body)["id"])
            assert b"data: event %d\n" % number in await read_until(raw, b"\n\n")
    async with secure(server.port, pair[0]) as again:
        await again.send(request("GET", "/events?topic=t", f"Last-Event-ID: {ids[0]}"))
        got = await read_until(again, b"event 2\n\n")
        assert b"event 0" not in got
        assert got.index(b"event 1") < got.index(b"event 2")


async def test_large_bodies_and_answers_cross_whole(start: Start, pair: tuple[str, str]) -> None:
    server = await start(**options(pair, max_body="2MiB"))
    data = os.urandom(500_000).hex().encode()
    async with secure(server.port, pair[0]) as stream, secure(server.port, pair[0]) as publisher:
        await stream.send(request("GET", "/events?topic=t", "Connection: close"))
        await read_until(stream, b"\n\n")
        await publisher.send(request("POST", "/events?topic=t", body=data))
        async with asyncio.timeout(TIMEOUT_S):
            got = b""
            while not got.endswith(b"\n\n\r\n"):
                got += await stream.reader.read(1 << 20)
            answer = await publisher.answer()
        assert answer.status == 200
        assert data in got


async def test_client_has_its_own_address(start: Start, pair: tuple[str, str]) -> None:
    server = await start(**options(pair, address_streams=1))
    async with secure(server.port, pair[0]) as first, secure(server.port, pair[0]) as second:
        await first.send(request("GET", "/events?topic=t"))
        await read_until(first, b"\n\n")
        await second.send(request("GET", "/events?topic=t&refuse=status"))
        assert (await second.answer()).status == 429
    async with secure(server.port, pair[0], local_addr=("127.0.0.2", 0)) as other:
        await other.send(request("GET", "/events?topic=t"))
        assert b"200 OK" in await read_until(other, b"\n\n")


async def test_answers_have_hsts_and_those_without_tls_have_not(
    start: Start, pair: tuple[str, str]
) -> None:
    server = await start(**options(pair, hsts="1d"))
    async with secure(server.port, pair[0]) as raw:
        for method, path, body in [
            ("GET", "/healthz", None),
            ("POST", "/events?topic=t", b"1"),
            ("GET", "/nowhere", None),
        ]:
            await raw.send(request(method, path, body=body))
            answer = await raw.answer()
            assert answer.headers["strict-transport-security"] == "max-age=86400"
        await raw.send(request("GET", "/events?topic=t"))
        assert b"Strict-Transport-Security: max-age=86400\r\n" in await read_until(raw, b"\n\n")
    answer = await plain(server.port, request("GET", "/healthz"))
    assert "strict-transport-security" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_http_on_the_tls_port_is_refused_with_the_reason(
    start: Start, pair: tuple[str, str], method: str
) -> None:
    server = await start(**options(pair))
    body = b"1" if method == "POST" else None
    answer = await plain(server.port, request(method, "/events?topic=t", body=body))
    assert answer.status == 400
    assert "https://" in answer.json["detail"]
    async with secure(server.port, pair[0]) as raw:
        await raw.send(request("GET", "/metrics"))
        metrics = (await raw.answer()).body.decode()
    assert 'fastsse_tls_handshakes_total{result="plain"} 1.0' in metrics
    assert 'fastsse_requests_total{route="other",status="400"} 1.0' in metrics


async def test_redirect_port_sends_get_to_https_and_refuses_the_rest(
    start: Start, pair: tuple[str, str]
) -> None:
    server = await start(**options(pair, redirect_port=0))
    redirect = server._worker.frontend._redirect
    assert redirect is not None
    for target, host, place in [
        ("/events?topic=a%20b&x=1", "localhost:80", f"https://localhost:{server.port}"),
        ("/", "[::1]", f"https://[::1]:{server.port}"),
    ]:
        head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        answer = await plain(redirect.port, head)
        assert (answer.status, answer.headers["location"]) == (308, place + target)
    answer = await plain(redirect.port, request("POST", "/events?topic=t", body=b"1"))
    assert answer.status == 400
    answer = await plain(redirect.port, b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
    assert answer.status == 421
    answer = await plain(redirect.port, b"GET / HTTP/1.0\r\n\r\n")
    assert answer.status == 400


async def test_drain_ends_streams_with_close_notify(start: Start, pair: tuple[str, str]) -> None:
    server = await start(**options(pair))
    async with secure(server.port, pair[0]) as raw:
        await raw.send(request("GET", "/events?topic=t"))
        await read_until(raw, b"\n\n")
        async with asyncio.TaskGroup() as group:
            group.create_task(server.drain(0))
            async with asyncio.timeout(TIMEOUT_S):
                rest = await raw.reader.read()  # an SSLError without close_notify
        assert b"retry:" in rest


async def test_reload_changes_the_certificate_and_no_stream_ends(
    start: Start, pair: tuple[str, str], tmp_path: Path
) -> None:
    server = await start(**options(pair))
    newer = issue(tmp_path, "localhost")
    async with secure(server.port, pair[0]) as raw:
        await raw.send(request("GET", "/events?topic=t"))
        await read_until(raw, b"\n\n")
        server._worker.apply(Config(**options(newer)))
        async with secure(server.port, newer[0]) as publisher:
            await publisher.send(request("POST", "/events?topic=t", body=b"on"))
            assert (await publisher.answer()).status == 200
        assert b"data: on" in await read_until(raw, b"\n\n")
        (tmp_path / "localhost.key").write_text("not a key")
        with pytest.raises(ConfigError, match="tls_key"):
            server._worker.apply(Config(**options(newer)))
    async with secure(server.port, newer[0]) as raw:
        await raw.send(request("GET", "/healthz"))
        assert (await raw.answer()).status == 200


async def test_streams_take_three_descriptors(start: Start, pair: tuple[str, str]) -> None:
    with_tls, without = await start(**options(pair)), await start()
    assert abs(without.max_connections - 3 * with_tls.max_connections) < 100


async def test_expired_certificate_is_served_and_logged(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = issue(tmp_path, "localhost", days=-1)
    server = await start(**options(old))
    assert "A certificate has expired" in caplog.text
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        async with secure(server.port, old[0]):
            pass


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tls_cert": "{none}"}, "tls_cert.*can read.*No such file"),
        ({"tls_cert": "{text}", "tls_key": "{key}"}, "tls_cert.*with a certificate"),
        ({"tls_cert": "{cert}", "tls_key": "{text}"}, "tls_key.*without a passphrase"),
        ({"tls_cert": "{cert}", "tls_key": "{sealed}"}, "tls_key.*without a passphrase"),
        ({"tls_cert": "{cert}", "tls_key": "{other}"}, "tls_key.*belongs to another"),
        ({"tls_cert": "{cert}"}, "tls_cert.*without a passphrase; or name.*tls_key"),
    ],
)
async def test_wrong_file_is_refused_at_the_start(
    start: Start,
    pair: tuple[str, str],
    tmp_path: Path,
    given: dict[str, str],
    said: str,
) -> None:
    text = tmp_path / "text.pem"
    text.write_text("hello")
    names = {
        "none": str(tmp_path / "none.pem"),
        "text": str(text),
        "cert": pair[0],
        "key": pair[1],
        "sealed": issue(tmp_path, "localhost", passphrase=b"1")[1],
        "other": issue(tmp_path, "other.test")[1],
    }
    with pytest.raises(ConfigError, match=said):
        await start(**{name: value.format(**names) for name, value in given.items()})


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"tls_cert": "a,b", "tls_key": "a"}, "tls_key"),
        ({"tls_key": "a"}, "tls_key"),
        ({"tls_cert": "a,a"}, "tls_cert"),
        ({"hsts": "1d"}, "hsts"),
        ({"redirect_port": 1}, "redirect_port"),
        ({"tls_cert": "a", "uds": "/tmp/x"}, "tls_cert"),
        ({"tls_cert": "a", "proxy_protocol": True, "trusted_proxies": "::1"}, "proxy_protocol"),
        ({"tls_min": "1.1"}, "tls_min"),
    ],
)
def test_options_that_contradict_are_refused(given: dict[str, Any], option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        Config(**given)


async def test_the_client_says_that_a_certificate_is_not_accepted(
    start: Start, pair: tuple[str, str]
) -> None:
    server = await start(**options(pair))
    async with Publisher(f"https://localhost:{server.port}", patience_s=0) as publisher:
        with pytest.raises(Unreachable, match="the certificate is not accepted: self"):
            await publisher.publish("t", "x")
