"""A server on loopback addresses answers to no name that others can point there."""

from pathlib import Path

import pytest

from fastsse.http.hosts import Hosts
from fastsse.http.problems import Problem
from tests.http.conftest import Start
from tests.http.raw import Answer, opened, until

OURS = (
    "localhost",
    "LOCALHOST:8080",
    "localhost.",
    "app.localhost:3000",
    "127.0.0.1",
    "127.0.0.1:8080",
    "192.0.2.7:80",
    "[::1]",
    "[::1]:8080",
    "[2001:db8::1]:1",
    "",
)
OTHERS = (
    "evil.example",
    "evil.example:8080",
    "notlocalhost",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "localhost:80:evil.example",
    "evil.example:localhost",
    "[evil.example]",
    "[127.0.0.1]",
    "::1",
    "127.1",
    "local",
)


async def told(address: str, host: str, path: str = "/healthz", method: str = "GET") -> Answer:
    """The answer to one request under a name."""
    async with opened(address) as raw:
        body = "Content-Length: 1\r\n\r\nx" if method == "POST" else "\r\n"
        await raw.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{body}".encode())
        return await raw.answer()


def passes(hosts: Hosts, host: str) -> bool:
    try:
        hosts.check(host.encode())
    except Problem as problem:
        told = (problem.status, problem.field, "allowed_hosts" in problem.detail)
    else:
        return True
    assert told == (421, "Host", True)
    return False


@pytest.mark.parametrize("host", OURS)
def test_addresses_and_localhost_are_answered_to(host: str) -> None:
    assert passes(Hosts((), enforced=True), host)


@pytest.mark.parametrize("host", OTHERS)
def test_no_other_name_is_answered_to(host: str) -> None:
    assert not passes(Hosts(("sse.example",), enforced=True), host)
    assert passes(Hosts((), enforced=False), host)


def test_a_listed_name_is_answered_to_in_any_spelling() -> None:
    hosts = Hosts(("Sse.Example",), enforced=True)
    assert all(passes(hosts, host) for host in ("sse.example", "SSE.example.:443", "sse.example:1"))
    assert not passes(hosts, "a.sse.example")


def test_hosts_that_were_right_are_remembered_within_bounds() -> None:
    hosts = Hosts((), enforced=True)
    for number in range(5_000):
        assert passes(hosts, f"{number}.localhost")
    assert passes(hosts, "a" * 400 + ".localhost")
    assert len(hosts._right) <= 1_000
    assert max(map(len, hosts._right)) < 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/events?topic=a"),
        ("POST", "/events?topic=a"),
        ("GET", "/"),
        ("GET", "/healthz"),
        ("GET", "/stats"),
        ("GET", "/nothing"),
        ("OPTIONS", "/events"),
    ],
)
async def test_a_rebound_name_is_refused_for_every_path(
    start: Start, method: str, path: str
) -> None:
    server = await start(cors_origins="*")
    answer = await told(server.addresses[0], "evil.example", path, method)
    assert (answer.status, answer.field) == (421, "Host")
    assert "The Host of the request is evil.example." in answer.json["detail"]
    assert "allowed_hosts (--allowed-hosts, FASTSSE_ALLOWED_HOSTS)" in answer.json["detail"]
    assert server.stream_count == 0


async def test_the_host_in_the_target_is_checked_as_the_header(start: Start) -> None:
    server = await start()
    for target, status in (("http://evil.example/healthz", 421), ("http://localhost/healthz", 200)):
        assert (await told(server.addresses[0], "localhost", target)).status == status
    assert (await told(server.addresses[0], "evil.example", "http://localhost/")).status == 421


async def test_an_earlier_request_under_a_right_name_helps_no_other(start: Start) -> None:
    server = await start()
    async with opened(server.addresses[0]) as raw:
        await raw.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await raw.answer()).status == 200
        await raw.send(b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert (await raw.answer()).status == 421
        assert await raw.is_closed()


async def test_streams_open_under_a_listed_name_only(start: Start) -> None:
    server = await start(allowed_hosts=["sse.example.com"])
    async with opened(server.addresses[0]) as raw:
        await raw.send(b"GET /events?topic=a HTTP/1.1\r\nHost: sse.example.com\r\n\r\n")
        await (await raw.stream()).opening()
        await until(lambda: server.stream_count == 1)
    assert (await told(server.addresses[0], "other.example.com")).status == 421


async def test_a_public_listener_accepts_any_host_until_hosts_are_set(start: Start) -> None:
    server = await start(host="0.0.0.0", publish_token="t")
    address = f"http://127.0.0.1:{server.port}"
    assert (await told(address, "anything.example")).status == 200
    server = await start(host="0.0.0.0", publish_token="t", allowed_hosts="sse.example")
    address = f"http://127.0.0.1:{server.port}"
    assert (await told(address, "anything.example")).status == 421
    assert (await told(address, "sse.example")).status == 200
    assert (await told(address, "10.0.0.7")).status == 200


async def test_a_unix_socket_has_any_name_its_admin_port_has_not(
    start: Start, tmp_path: Path
) -> None:
    server = await start(uds=str(tmp_path / "s"), admin_port=0)
    assert (await told(server.addresses[0], "sse.example", "/events", "OPTIONS")).status == 204
    assert (await told(server.admin_addresses[0], "sse.example")).status == 421
