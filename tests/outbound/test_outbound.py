"""Requests to addresses that others chose: guarded, signed, bounded in time and size."""

import asyncio
import base64
import ipaddress
import random
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from fastsse.outbound import (
    AddressGuard,
    AddressRefused,
    InvalidSignature,
    OutboundClient,
    OutboundError,
    OutboundOptions,
    Signer,
)
from tests.loopback import LoopbackServer

LOOPBACK = AddressGuard([ipaddress.ip_network("127.0.0.0/8")])
SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(32))).decode()


class Receiver(LoopbackServer):
    """Answers in turn with what it was given, the last one again and again.

    Attributes:
        answers: those to come.
        heads, bodies: of the requests.
    """

    def __init__(self, *answers: bytes) -> None:
        super().__init__()
        self.answers = list(answers)
        self.heads: list[dict[str, str]] = []
        self.bodies: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
            pairs = (line.split(": ", 1) for line in head)
            fields = {name.lower(): value for name, value in pairs}
            body = await reader.readexactly(int(fields.get("content-length", "0")))
            # Both in one turn: who looks at them sees whole requests.
            self.heads.append(fields)
            self.bodies.append(body)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if not answer:
                await asyncio.sleep(60)
            writer.write(answer)
            await writer.drain()


def answer(status: int, body: bytes = b"", *lines: str) -> bytes:
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "0.0.0.0"),
        *("100.64.0.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1"),
        *("2002:7f00:1::", "::127.0.0.1", "2001:db8::1", "2001:0:7f00:1::", "not an address", ""),
        # Of the site, of a translator of the network, and not given out.
        *("fec0::1", "64:ff9b:1::a", "64:ff9b:1:a00:0:100::", "::ffff:0:8.8.8.8", "::8.8.8.8"),
        *("3fff::1", "5f00::1", "4000::1"),
    ],
)
def test_addresses_of_the_own_network_are_refused(address: str) -> None:
    assert not AddressGuard().allows(address)


_PUBLIC = ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")


def test_public_and_allowed_addresses_are_reached() -> None:
    assert all(map(AddressGuard().allows, _PUBLIC))
    guard = AddressGuard([ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128")])
    assert guard.allows("10.9.9.9")
    assert guard.allows("::1")
    assert not guard.allows("127.0.0.1")


async def test_a_name_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["8.8.8.8", "127.0.0.1"]

    async def resolved(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 80)) for one in given]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved)
    with pytest.raises(AddressRefused):
        await AddressGuard().resolve("example.com", 80)
    del given[1]
    assert await AddressGuard().resolve("example.com", 80) == "8.8.8.8"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f000001", "2130706433", "127.1"])
async def test_no_spelling_of_a_private_address_gets_a_connection(host: str) -> None:
    async with Receiver(answer(200)) as receiver, OutboundClient(AddressGuard()) as client:
        with pytest.raises(OutboundError) as caught:
            await client.post(f"http://{host}:{receiver.port}/", b"{}")
        assert receiver.connections == 0
    if host in ("127.0.0.1", "localhost"):
        assert caught.value.is_final
        assert "not a public address" in str(caught.value)


async def test_a_redirect_is_not_followed() -> None:
    async with (
        Receiver(answer(200)) as inside,
        Receiver(answer(307, b"", f"Location: {inside.url}")) as receiver,
        OutboundClient(LOOPBACK) as client,
    ):
        with pytest.raises(OutboundError, match="307"):
            await client.post(receiver.url, b"{}")
        assert inside.connections == 0


async def test_environment_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver(answer(200)) as proxy, Receiver(answer(204)) as receiver:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        async with OutboundClient(LOOPBACK) as client:
            assert (await client.post(receiver.url, b"{}")).status == 204
        assert proxy.connections == 0


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.com/", "unix:///x", "x", ""])
async def test_other_schemes_are_refused(url: str) -> None:
    async with OutboundClient(LOOPBACK) as client:
        with pytest.raises(OutboundError):
            await client.post_once(url, b"{}")


class Waits:
    """Sleeps that are only noted."""

    def __init__(self) -> None:
        self.waited_s: list[float] = []

    async def sleep(self, time_s: float) -> None:
        self.waited_s.append(time_s)


async def test_a_busy_receiver_is_asked_again_with_the_same_id_and_growing_pauses() -> None:
    waits = Waits()
    busy = [answer(503), answer(429, b"", "Retry-After: 7"), answer(500), answer(200, b"ok")]
    options = OutboundOptions(tries=4)
    async with (
        Receiver(*busy) as receiver,
        OutboundClient(
            LOOPBACK, Signer([SECRET]), options, sleep=waits.sleep, rand=random.Random(1)
        ) as client,
    ):
        got = await client.post(receiver.url, b'{"n":1}', message_id="m1")
        assert (got.status, got.body) == (200, b"ok")
        assert {head["webhook-id"] for head in receiver.heads} == {"m1"}
        assert receiver.bodies == [b'{"n":1}'] * 4
    first, second, third = waits.waited_s
    assert 0.25 <= first <= 0.5
    assert second == 7
    assert 1 <= third <= 2


async def test_tries_end_and_a_final_refusal_is_not_repeated() -> None:
    waits = Waits()
    options = OutboundOptions(tries=3)
    async with (
        Receiver(answer(503)) as receiver,
        OutboundClient(LOOPBACK, None, options, sleep=waits.sleep) as client,
    ):
        with pytest.raises(OutboundError, match="503") as caught:
            await client.post(receiver.url, b"{}")
        assert not caught.value.is_final
        assert len(receiver.bodies) == 3
    async with Receiver(answer(410)) as receiver, OutboundClient(LOOPBACK) as client:
        with pytest.raises(OutboundError, match="410") as caught:
            await client.post(receiver.url, b"{}")
        assert caught.value.is_final
        assert len(receiver.bodies) == 1


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "no answer in 0.3 s"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab", "no answer in 0.3 s"),
        (answer(200, b"x" * 2_000), "too long"),
        (b"rubbish\r\n\r\n", "status line"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000, "too long"),
    ],
)
async def test_a_receiver_that_misbehaves_ends_in_time(sent: bytes, said: str) -> None:
    options = OutboundOptions(timeout_s=0.3, answer_bytes_max=1_000)
    async with Receiver(sent) as receiver, OutboundClient(LOOPBACK, None, options) as client:
        with pytest.raises(OutboundError, match=said):
            await client.post_once(receiver.url, b"{}")


async def test_a_receiver_that_is_away_may_come_later() -> None:
    async with Receiver(answer(200)) as receiver:
        url = receiver.url
    async with OutboundClient(LOOPBACK) as client:
        with pytest.raises(OutboundError) as caught:
            await client.post_once(url, b"{}")
        assert not caught.value.is_final


def test_a_signature_is_that_of_the_specification() -> None:
    """The example of standardwebhooks.com's libraries."""
    signer = Signer(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
    body = b'{"test": 2432232314}'
    headers = signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signer.verify(headers, body, 1614265330.5) == "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_secrets_can_be_replaced_without_a_pause() -> None:
    both, old, new = Signer([OTHER, SECRET]), Signer([SECRET]), Signer([OTHER])
    for one, other in ((old, both), (both, old), (new, both), (both, new)):
        assert other.verify(one.sign("m", 100, b"x"), b"x", 100) == "m"
    with pytest.raises(InvalidSignature):
        new.verify(old.sign("m", 100, b"x"), b"x", 100)


@pytest.mark.parametrize(
    ("changed", "body", "now_s"),
    [
        ({"webhook-signature": ""}, b"x", 100),
        ({"webhook-signature": "v1,"}, b"x", 100),
        ({"webhook-signature": "v2,aaaa"}, b"x", 100),
        ({"webhook-signature": "\u00e9"}, b"x", 100),
        ({"webhook-signature": "v1,x " * 10_000}, b"x", 100),
        ({"webhook-id": "other"}, b"x", 100),
        ({"webhook-id": ""}, b"x", 100),
        ({"webhook-id": "m" * 300}, b"x", 100),
        ({"webhook-timestamp": "101"}, b"x", 100),
        ({"webhook-timestamp": ""}, b"x", 100),
        ({"webhook-timestamp": "-100"}, b"x", 100),
        ({"webhook-timestamp": "1" * 30}, b"x", 100),
        ({}, b"y", 100),
        ({}, b"x", 401),
        ({}, b"x", -201),
    ],
)
def test_a_request_that_was_changed_or_recorded_is_refused(
    changed: dict[str, str], body: bytes, now_s: float
) -> None:
    signer = Signer([SECRET])
    headers = signer.sign("m", 100, b"x") | changed
    with pytest.raises(InvalidSignature) as caught:
        signer.verify(headers, body, now_s)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "secrets",
    [
        [],
        [""],
        ["secret"],
        ["whsec_"],
        ["whsec_AAAA"],
        ["whsec_?"],
        ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    ],
)
def test_a_secret_that_is_none_is_refused_without_being_shown(secrets: Sequence[str]) -> None:
    with pytest.raises(ValueError, match=r"whsec_|secret") as caught:
        Signer(secrets)
    assert "AAAA" not in str(caught.value)
