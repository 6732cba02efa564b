"""The files of `deploy/` as they are, behind a public name: real proxies, real nodes."""

import asyncio
import shutil
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import httpx
import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.cli.commandline import command, environment
from tests.deploy.proxies import proxy_file
from tests.deploy.test_cluster import PATH, PROXIES, ROOT, cluster_behind
from tests.redis.conftest import NO_SERVER
from tests.redis.onelog import TIMEOUT_S
from tests.redis.server import program

NAME = "sse.example.com:8443"
DEPLOY = ROOT / "deploy"
needs_redis = pytest.mark.skipif(program() is None, reason=NO_SERVER)
needs_haproxy = pytest.mark.skipif(
    shutil.which("haproxy", path=PATH) is None, reason="no haproxy here"
)


@pytest.fixture(params=PROXIES)
async def front(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    options = ("--allowed-hosts", "sse.example.com", "--drain", "0s", "--allow-anonymous-publish")
    async with cluster_behind(request.param, *options) as running:
        yield running.url


@needs_redis
async def test_a_proxy_serves_every_path_under_a_public_name(front: str) -> None:
    page = {"Host": NAME, "Origin": f"http://{NAME}"}
    async with httpx.AsyncClient(base_url=front, timeout=TIMEOUT_S) as client:
        # A page of the site itself publishes: its Origin has the port that its Host has.
        for _ in range(2):
            done = await client.post("/events?topic=news", content="hello", headers=page)
            assert done.status_code == 200, done.text
        for path in ("/healthz", "/readyz", "/stats", "/metrics"):
            assert (await client.get(path, headers=page)).status_code == 200, path
        for path in ("/events", "/.well-known/mercure"):
            url = f"{path}?topic=news"
            async with client.stream("GET", url, headers=page) as stream:
                assert stream.status_code == 200
                assert stream.headers["content-type"].startswith("text/event-stream")
                async for piece in stream.aiter_bytes():
                    assert piece
                    break
        foreign = await client.get("/healthz", headers={"Host": "other.example:1"})
        assert foreign.status_code == 421
        assert "The Host of the request is other.example:1." in foreign.json()["detail"]
    await _asks_three_times_on_one_connection(front)


async def _asks_three_times_on_one_connection(front: str) -> None:
    url = httpx.URL(front)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    for _ in range(3):
        writer.write(f"GET /healthz HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT_S)
        assert head.startswith(b"HTTP/1.1 200 ")
        length = next(x for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
    writer.close()
    await writer.wait_closed()


class Names(asyncio.DatagramProtocol):
    """A name server (RFC 1035) that knows one address for every name."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        assert self._transport is not None
        end = data.index(b"\0", 12) + 5
        (kind,) = struct.unpack("!H", data[end - 4 : end - 2])
        answers = 1 if kind == 1 else 0
        head = data[:2] + struct.pack("!HHHHH", 0x8180, 1, answers, 0, 0)
        record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 1, 4) + socket.inet_aton(self.address)
        self._transport.sendto(head + data[12:end] + record * answers, addr)


@needs_haproxy
async def test_haproxy_finds_a_node_that_has_another_address(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(Server(Config(host="127.0.0.2", port=0, drain=0)))
        port = httpx.URL(first.addresses[0]).port
        assert port is not None
        loop = asyncio.get_running_loop()
        transport, names = await loop.create_datagram_endpoint(
            lambda: Names("127.0.0.2"), local_addr=("127.0.0.1", 0)
        )
        stack.callback(transport.close)
        held = stack.enter_context(socket.socket())
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        front = f"127.0.0.1:{held.getsockname()[1]}"
        resolver = "127.0.0.1:{}".format(transport.get_extra_info("sockname")[1])
        path = proxy_file(
            tmp_path,
            *("haproxy", "--plain", "--listen", front, "--resolver", resolver),
            *("--node", f"one.test:{port}", "--node", f"two.test:{port}"),
        )
        haproxy = await asyncio.create_subprocess_exec(
            *("haproxy", "-q", "-db", "-f", str(path)), env=environment(PATH=PATH)
        )
        stack.push_async_callback(_end, haproxy)
        await _answers(front)
        # The node is made again, elsewhere.
        await first.__aexit__(None, None, None)
        second = Server(Config(host="127.0.0.3", port=port, drain=0))
        await stack.enter_async_context(second)
        names.address = "127.0.0.3"
        await _answers(front)


async def _end(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    await process.communicate()


async def _answers(front: str) -> None:
    """Returns once a node answers."""
    async with asyncio.timeout(TIMEOUT_S), httpx.AsyncClient() as client:
        while True:
            try:
                if (await client.get(f"http://{front}/healthz")).status_code == 200:
                    return
            except httpx.HTTPError:
                pass  # The proxy is not there yet.
            await asyncio.sleep(0.05)


def test_the_image_and_the_unit_have_what_their_comments_say() -> None:
    image = (DEPLOY / "Dockerfile").read_text()
    check = image[image.index("HEALTHCHECK") :].split("\n")[0]
    assert "python" not in check
    assert check.endswith('CMD ["/opt/fastsse/bin/health"]')
    assert " -o /opt/fastsse/bin/health /source/deploy/health.c\n" in image
    assert "\n!deploy/health.c\n" in (DEPLOY / "Dockerfile.dockerignore").read_text()
    unit = (DEPLOY / "fastsse.service").read_text()
    assert "\nEnvironmentFile=-/etc/fastsse.env\n" in unit
    assert "--config /etc/fastsse.toml" in unit


async def test_the_sample_configuration_is_right() -> None:
    running = await asyncio.create_subprocess_exec(
        *command(["config", "check", "--config", str(DEPLOY / "fastsse.toml")]),
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await running.communicate()
    assert output.decode() == "The configuration is valid.\n"
