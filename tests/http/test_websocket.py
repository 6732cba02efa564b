"""Promises of `GET /ws`: the stream of `GET /events`, one message for each block."""

import asyncio
import contextlib
import struct
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fastsse.server import Server
from tests.auth.minting import SECRET, grants, mint
from tests.eventstream import EventStream
from tests.http.conftest import Ask, Start, asked
from tests.http.raw import TIMEOUT_S, connected
from tests.loopback import Relay

KEY = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY)


def ws(server: Server, query: str, **more: Any) -> connect:
    return connect(f"ws://127.0.0.1:{server.port}/ws?{query}", **more)


async def receive(socket: Any) -> str:
    async with asyncio.timeout(TIMEOUT_S):
        return str(await socket.recv())


async def code_of(socket: Any) -> int:
    """The status code with which it is closed."""
    try:
        while True:
            await receive(socket)
    except ConnectionClosed as closed:
        return 0 if closed.rcvd is None else closed.rcvd.code


async def test_each_message_is_one_block_with_its_id(server: Server) -> None:
    async with ws(server, "topic=t") as socket:
        opening = await receive(socket)
        assert "retry:" in opening
        assert "id:" in opening
        ids = [server.publish("t", f"line 1\nline {number}", event="e") for number in range(3)]
        for number, known in enumerate(ids):
            text = await receive(socket)
            lines = ["data: line 1", f"data: line {number}", "event: e", f"id: {known}"]
            assert sorted(text.split("\n")) == sorted(lines)
            (message,) = EventStream().feed(text.encode() + b"\n\n")
            assert message.data == f"line 1\nline {number}"


async def test_it_resumes_after_an_id_exactly_and_in_pages(start: Start) -> None:
    server = await start()
    ids = [server.publish("t", f"{number} " + "x" * 500) for number in range(500)]
    async with ws(server, f"topic=t&last_event_id={ids[99]}") as socket:
        got: list[str] = []
        while len(got) < 400:
            text = await receive(socket)
            if "data:" in text:
                got += [line for line in text.split("\n") if line.startswith("id: ")]
    assert got == [f"id: {known}" for known in ids[100:]]


async def test_large_event_arrives_whole(start: Start) -> None:
    server = await start()
    async with ws(server, "topic=t", max_size=1 << 22) as socket:
        await receive(socket)
        server.publish("t", "é" * 500_000)
        assert (await receive(socket)).endswith("é" * 500_000)


async def test_heartbeat_is_a_ping(start: Start) -> None:
    server = await start(heartbeat="50ms")
    async with connected(server) as raw:
        head = "\r\n".join(("GET /ws?topic=t HTTP/1.1", "Host: localhost", *UPGRADE, "", ""))
        await raw.send(head.encode())
        async with asyncio.timeout(TIMEOUT_S):
            assert (await raw.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            opening = await raw.reader.readexactly(2)
            await raw.reader.readexactly(opening[1])
            assert await raw.reader.readexactly(2) == b"\x89\x00"


async def test_end_of_its_topics_closes_it_with_1000_and_a_drain_with_1012(start: Start) -> None:
    server = await start()
    async with ws(server, "topic=ends") as over, ws(server, "topic=t") as drained:
        await receive(over)
        await receive(drained)
        await server.end_topic("ends")
        assert await code_of(over) == 1000
        draining = asyncio.ensure_future(server.drain(0))
        assert await code_of(drained) == 1012
        await draining


@pytest.mark.parametrize("query", ["topic=ends", "topic=t&until=done"])
async def test_client_that_returns_after_the_end_is_closed_with_1000(
    server: Server, query: str
) -> None:
    server.publish("t", "x", event="done")
    server.publish("ends", "x", end=True)
    async with ws(server, f"{query}&last_event_id=earliest") as first:
        last = ""
        with contextlib.suppress(ConnectionClosed):
            while True:
                lines = (await receive(first)).split("\n")
                last = next((one[4:] for one in lines if one.startswith("id: ")), last)
    for _ in range(2):
        async with ws(server, f"{query}&last_event_id={last}") as again:
            assert await code_of(again) == 1000
    assert server.stream_count == 0


async def test_its_stream_ends_with_the_client(server: Server) -> None:
    async with ws(server, "topic=t") as socket:
        await receive(socket)
        assert server.stream_count == 1
    async with asyncio.timeout(TIMEOUT_S):
        while server.stream_count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_client_that_does_not_read_is_a_slow_client_like_any_other(start: Start) -> None:
    server = await start(max_lag="64KiB", max_lag_time="30s", lag_policy="disconnect")
    async with connected(server) as raw:
        head = "\r\n".join(("GET /ws?topic=t HTTP/1.1", "Host: localhost", *UPGRADE, "", ""))
        await raw.send(head.encode())
        async with asyncio.timeout(TIMEOUT_S):
            await raw.reader.readuntil(b"\r\n\r\n")
            while server.stream_count:
                server.publish("t", "x" * 60_000)
                await asyncio.sleep(0.002)
    answer = await asked(server, "GET", "/metrics")
    assert b'fastsse_disconnects_total{reason="lagged"} 1.0' in answer.body


def frame(opcode: int, payload: bytes, *, masked: bool = True, length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    bit = 0x80 if masked else 0
    head = bytes([opcode])
    if size < 126:
        head += bytes([bit | size])
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", size)
    return head + (bytes(4) if masked else b"") + payload


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(0x81, b"hello"), 1003),
        (frame(0x82, b"x" * 50, length=1 << 31), 1003),
        (frame(0x81, b"hello", masked=False), 1002),
        (frame(0x09, b"a"), 1002),  # a ping in fragments
        (frame(0x89, b"x" * 126), 1002),  # a ping that is too long
        (frame(0x83, b""), 1002),  # an opcode that is reserved
        (frame(0xC1, b"x"), 1002),  # an extension that was not agreed
        (frame(0x82, b"", length=1 << 63), 1002),
        (frame(0x88, struct.pack(">H", 1000)), 1000),
        (frame(0x88, struct.pack(">H", 1005)), 1002),
    ],
)
async def test_bad_frames_close_it_with_the_code(server: Server, sent: bytes, code: int) -> None:
    async with connected(server) as raw:
        head = "\r\n".join(("GET /ws?topic=t HTTP/1.1", "Host: localhost", *UPGRADE, "", ""))
        await raw.send(head.encode())
        async with asyncio.timeout(TIMEOUT_S):
            await raw.reader.readuntil(b"\r\n\r\n")
            opening = await raw.reader.readexactly(2)
            await raw.reader.readexactly(opening[1])
            await raw.send(sent)
            closing = await raw.reader.readexactly(4)
        assert closing[0] == 0x88
        assert struct.unpack(">H", closing[2:])[0] == code
    async with asyncio.timeout(TIMEOUT_S):
        while server.stream_count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_pings_are_answered(server: Server) -> None:
    async with ws(server, "topic=t") as socket:
        async with asyncio.timeout(TIMEOUT_S):
            await (await socket.ping(b"hello"))


@pytest.mark.parametrize(
    ("headers", "status", "field"),
    [
        ((), 426, "Upgrade"),
        (("Connection: Upgrade", "Upgrade: h2c"), 426, "Upgrade"),
        (UPGRADE[:2], 426, "Sec-WebSocket-Version"),
        ((*UPGRADE[:2], "Sec-WebSocket-Version: 8", KEY), 426, "Sec-WebSocket-Version"),
        (UPGRADE[:3], 400, "Sec-WebSocket-Key"),
        ((*UPGRADE[:3], "Sec-WebSocket-Key: short"), 400, "Sec-WebSocket-Key"),
        ((*UPGRADE, "Origin: https://evil.example"), 403, "Origin"),
    ],
)
async def test_request_that_is_no_handshake_is_refused(
    ask: Ask, headers: tuple[str, ...], status: int, field: str
) -> None:
    answer = await ask("GET", "/ws?topic=t", *headers)
    assert (answer.status, answer.field) == (status, field)


async def test_pages_of_its_own_and_of_allowed_origins_open_it(start: Start) -> None:
    server = await start(cors_origins="https://www.example.com")
    for origin in ("https://www.example.com", f"http://127.0.0.1:{server.port}"):
        async with ws(server, "topic=t", origin=origin) as socket:
            await receive(socket)


async def test_bad_parameters_and_full_servers_are_statuses(start: Start) -> None:
    server = await start(max_connections=1)
    with pytest.raises(InvalidStatus) as refused:
        async with ws(server, "since=x"):
            pass
    assert refused.value.response.status_code == 400
    with pytest.raises(InvalidStatus) as polled:
        await connect(f"ws://127.0.0.1:{server.port}/ws?topic=t&wait=1s")
    assert polled.value.response.status_code == 400
    async with ws(server, "topic=t") as socket:
        await receive(socket)
        with pytest.raises(InvalidStatus) as refused:
            async with ws(server, "topic=t"):
                pass
        assert refused.value.response.status_code == 503


async def test_cuts_lose_nothing_and_repeat_nothing(start: Start) -> None:
    server = await start()
    sent: list[str] = []
    got: list[str] = []

    async def read_one(socket: Any) -> None:
        text = await receive(socket)
        got.extend(message.last_event_id for message in EventStream().feed(text.encode() + b"\n\n"))

    async with Relay(server.addresses[0]) as relay:
        for cut in range(7):
            sent.append(server.publish("t", f"away {cut}"))
            place = got[-1] if got else "earliest"
            url = f"{relay.url.replace('http', 'ws', 1)}/ws?topic=t&last_event_id={place}"
            # What was not read hides the cut from the library until its time-out.
            async with connect(url, close_timeout=0.1) as socket:
                while len(got) < len(sent):
                    await read_one(socket)
                if cut < 6:
                    sent += [server.publish("t", f"live {cut} {n}") for n in range(20)]
                    for _ in range(3 * cut):
                        await read_one(socket)
                    relay.cut()
    assert got == sent


async def test_token_decides_as_for_every_stream(start: Start) -> None:
    server = await start(jwt_key=SECRET)
    token = mint(grants(subscribe=["t"])).decode()
    async with ws(server, f"topic=t&authorization={token}") as socket:
        await receive(socket)
        server.publish("t", "for the granted", private=True)
        assert "for the granted" in await receive(socket)
    header = {"Authorization": f"Bearer {token}"}
    async with ws(server, "topic=t", additional_headers=header) as socket:
        await receive(socket)
        server.publish("t", "by the header", private=True)
        assert "by the header" in await receive(socket)
    with pytest.raises(InvalidStatus) as refused:
        async with ws(server, "topic=t"):
            pass
    assert refused.value.response.status_code == 401
    with contextlib.suppress(InvalidStatus):
        async with ws(server, "topic=t&authorization=wrong"):
            pytest.fail("A wrong token opened a stream.")
