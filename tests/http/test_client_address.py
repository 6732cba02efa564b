"""Who a client is behind proxies, whatever it says of itself."""

import asyncio
import gc
import ipaddress
import struct
import weakref

import pytest

from fastsse.http.client_address import ClientAddresses, account_name, host_of, peer_of
from fastsse.http.problems import Problem
from fastsse.http.proxy_protocol import SIGNATURE, read_proxy_header
from tests.http.conftest import Start
from tests.http.raw import get, opened, request, until

PROXIES = ClientAddresses(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "unix"])


@pytest.mark.parametrize(
    ("host", "forwarded", "client"),
    [
        ("10.1.2.3", b"203.0.113.5", "203.0.113.5"),
        ("10.1.2.3", b"6.6.6.6, 203.0.113.5", "203.0.113.5"),
        ("10.1.2.3", b"6.6.6.6,203.0.113.5, 10.9.9.9,192.0.2.7", "203.0.113.5"),
        ("10.1.2.3", b"203.0.113.5:4711", "203.0.113.5"),
        ("10.1.2.3", b"2001:470::1", "2001:470::1"),
        ("10.1.2.3", b"[2001:470::1]:443", "2001:470::1"),
        ("10.1.2.3", b"::ffff:203.0.113.5", "203.0.113.5"),
        ("2001:db8::7", b"203.0.113.5", "203.0.113.5"),
        ("unix", b"203.0.113.5", "203.0.113.5"),
        ("10.1.2.3", b"10.4.4.4, 10.5.5.5", "10.4.4.4"),
        ("10.1.2.3", None, "10.1.2.3"),
    ],
)
def test_the_client_is_the_last_address_that_is_no_trusted_proxy(
    host: str, forwarded: bytes | None, client: str
) -> None:
    assert PROXIES.address(host, forwarded) == client


@pytest.mark.parametrize(
    "forwarded",
    [
        b"",
        b",",
        b"unknown",
        b"_hidden",
        b"6.6.6.6, unknown",
        b"6.6.6.6,",
        b"203.0.113",
        b"0xcb.0.113.5",
        b"203.0.113.5.evil.example",
        b"203.0.113.5:port",
        b"203.0.113.5:123456",
        b"[203.0.113.5]",
        b"[2001:470::1",
        b"[2001:470::1]x",
        b"fe80::1%eth0",
        b"\xff203.0.113.5",
        b"203.0.113.5 6.6.6.6",
        b'for="203.0.113.5"',
    ],
)
def test_an_invalid_forwarded_address_is_ignored(forwarded: bytes) -> None:
    assert PROXIES.address("10.1.2.3", forwarded) == "10.1.2.3"


def test_forwarded_for_is_believed_only_of_trusted_proxies() -> None:
    assert PROXIES.address("203.0.113.9", b"127.0.0.1") == "203.0.113.9"
    nobody = ClientAddresses(())
    assert not nobody.active
    assert nobody.address("127.0.0.1", b"203.0.113.5") == "127.0.0.1"


def test_a_long_list_of_hops_costs_little() -> None:
    assert PROXIES.address("10.1.2.3", b"10.0.0.1," * 2_000 + b"10.0.0.2") == "10.0.0.1"


def test_one_owner_of_many_addresses_has_one_account() -> None:
    assert account_name("2001:470::1") == account_name("2001:470::ffff:1:2:3")
    assert account_name("2001:470::1") != account_name("2001:470:0:1::1")
    assert account_name("203.0.113.5") == "203.0.113.5"
    assert host_of(("::ffff:203.0.113.5", 1, 0, 0)) == "203.0.113.5"
    assert host_of("") == "unix"


# ── PROXY protocol ────────────────────────────────────────────────────────────────────────────


def announcing(source: str, command: int = 0x21, more: bytes = b"") -> bytes:
    """A header as a proxy sends it for a client at `source`."""
    address = ipaddress.ip_address(source)
    family = 0x11 if address.version == 4 else 0x21
    body = address.packed * 2 + struct.pack(">HH", 4711, 80) + more
    return SIGNATURE + bytes([command, family]) + struct.pack(">H", len(body)) + body


@pytest.mark.parametrize("source", ["203.0.113.5", "2001:470::1"])
def test_an_announced_client_is_read_with_what_follows(source: str) -> None:
    header = announcing(source, more=b"\x04\x00\x02ab")
    announced = read_proxy_header(header + b"GET / HTTP/1.1")
    assert announced == (source, len(header))
    for size in range(len(header)):
        assert read_proxy_header(header[:size]) is None


def test_a_proxys_own_connection_is_the_proxys() -> None:
    assert read_proxy_header(announcing("203.0.113.5", command=0x20)) == (None, 28)


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 203.0.113.5 10.0.0.1 4711 80\r\n",
        SIGNATURE[:-1] + b"x",
        SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),
        SIGNATURE + b"\x21\x12\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x00\x00\x00",
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_anything_else_before_a_request_is_refused(header: bytes) -> None:
    with pytest.raises(Problem) as raised:
        read_proxy_header(header)
    assert raised.value.status == 400


@pytest.mark.parametrize("way", ["whole", "apart", "trickled"])
async def test_announced_clients_have_limits_of_their_own(start: Start, way: str) -> None:
    server = await start(trusted_proxies="127.0.0.1", proxy_protocol=True, address_streams=1)
    ask = get("/events?topic=a")

    async def opens(source: str) -> tuple[object, bool]:
        raw = opened(server.addresses[0])
        connection = await raw.__aenter__()
        header = announcing(source)
        if way == "whole":
            await connection.send(header + ask)
        elif way == "apart":
            await connection.send(header)
            await connection.send(ask)
        else:
            await connection.trickle(header + ask)
        stream = await connection.stream()
        return raw, b"id:" in await stream.opening()

    first, second, third = [await opens(f"203.0.113.{n}") for n in (5, 5, 6)]
    assert (first[1], second[1], third[1]) == (True, False, True)
    assert server.stream_count == 2
    for raw, _ in (first, second, third):
        await raw.__aexit__(None, None, None)  # type: ignore[attr-defined]
    await until(lambda: server.stream_count == 0)


async def test_announced_publishers_are_served_and_named_once(start: Start) -> None:
    server = await start(trusted_proxies="127.0.0.1", proxy_protocol=True)
    async with opened(server.addresses[0]) as raw:
        publish = request("POST", "/events?topic=a", body=b"x")
        await raw.send(announcing("203.0.113.5") + publish)
        assert (await raw.answer()).status == 200
        await raw.send(publish)
        assert (await raw.answer()).status == 200
    async with opened(server.addresses[0]) as raw:
        await raw.send(announcing("203.0.113.5") * 2 + publish)
        assert (await raw.answer()).status == 400


async def test_a_request_without_the_header_that_a_proxy_owes_is_refused(start: Start) -> None:
    server = await start(trusted_proxies="127.0.0.1", proxy_protocol=True)
    async with opened(server.addresses[0]) as raw:
        await raw.send(get("/events?topic=a"))
        answer = await raw.answer()
        assert (answer.status, answer.field) == (400, "proxy_protocol")


async def test_a_header_is_no_request_where_none_is_expected(start: Start) -> None:
    for options in ({}, {"trusted_proxies": "192.0.2.7", "proxy_protocol": True}):
        server = await start(**options)
        async with opened(server.addresses[0]) as raw:
            await raw.send(announcing("203.0.113.5") + get("/events?topic=a"))
            assert (await raw.answer()).status == 400
        assert server.stream_count == 0


class _Transport(asyncio.BaseTransport):
    """Of a connection from an address."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 4321)})


def test_a_transport_whose_address_was_looked_up_is_not_kept() -> None:
    transport = _Transport()
    kept = weakref.ref(transport)
    assert peer_of(transport) == "192.0.2.1:4321"
    del transport
    gc.collect()
    assert kept() is None
