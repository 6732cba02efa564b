"""Proxies and balancers in the way of a stream, found by `fastsse why`."""

import asyncio
import itertools
import json
import subprocess
from contextlib import AsyncExitStack

import pytest

from fastsse.checks import NOTE, OK
from fastsse.server import Server
from tests.cli.commandline import command, environment
from tests.doctor.asking import asked, config, first_wrong, found, held
from tests.loopback import LoopbackServer
from tests.streamserver import STREAM_HEAD, Answer, Exchange, StreamServer, answering, forever

# ── 4: proxies ────────────────────────────────────────────────────────────────────────────────


def streaming_once(*head_lines: str, body: bytes = b": fastsse\nretry: 3000\n\n") -> Answer:
    lines = "".join(f"{line}\r\n" for line in head_lines).encode()

    async def answer(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD[:-2] + lines + b"\r\n" + body)
        await forever(exchange)

    return answer


async def silent(exchange: Exchange) -> None:
    await forever(exchange)


PROXIES: list[tuple[str, Answer, str, str]] = [
    (
        "redirect",
        answering("301 Moved Permanently", b"", b"Location: https://a.example/events\r\n"),
        "redirect",
        "https://a.example/events",
    ),
    (
        "another host",
        answering(
            "421 Misdirected Request",
            b'{"status":421,"detail":"x"}',
            b"Content-Type: application/problem+json\r\n",
        ),
        "host",
        "--allowed-hosts 127.0.0.1",
    ),
    (
        "no right to it",
        answering(
            "403 Forbidden",
            b'{"status":403,"detail":"x"}',
            b"Content-Type: application/problem+json\r\n",
        ),
        "rights",
        "--cors-origins",
    ),
    (
        "a limit, with a status",
        answering(
            "429 Too Many Requests",
            b'{"status":429,"detail":"x"}',
            b"Content-Type: application/problem+json\r\n",
        ),
        "limits",
        "address_streams",
    ),
    ("bad gateway", answering("502 Bad Gateway", b"<html>"), "proxy", "error log"),
    ("time-out", answering("504 Gateway Timeout", b"<html>"), "proxy", "time-outs"),
    (
        "a login page",
        answering("200 OK", b"<html>", b"Content-Type: text/html\r\n"),
        "content type",
        "/events",
    ),
    ("a head that is held back", silent, "buffering", "proxy_buffering off"),
    ("a body that is held back", streaming_once(body=b""), "buffering", "proxy_buffering off"),
]


@pytest.mark.parametrize(
    ("answer", "name", "do"), [case[1:] for case in PROXIES], ids=[case[0] for case in PROXIES]
)
async def test_a_proxy_in_the_way(answer: Answer, name: str, do: str) -> None:
    async with StreamServer(answer) as server:
        wrong = first_wrong(await asked(f"{server.url}/events", patience_s=0.4))
    assert wrong.name == name
    assert do in wrong.do


async def test_a_proxy_that_compresses_is_noted_and_named() -> None:
    answer = streaming_once("Content-Encoding: identity", "Via: 1.1 cache")
    async with StreamServer(answer) as server:
        checks = await asked(f"{server.url}/events")
    assert "via: 1.1 cache" in found(checks, "opens").says
    assert found(checks, "compression").verdict == NOTE


async def test_the_path_is_tried_by_publishing_to_topics_of_its_own() -> None:
    async with Server(config()) as server:
        url = f"{server.addresses[0]}/events"
        server.publish("news", "x")
        checks = await asked(url, tries_path=True)
        assert found(checks, "buffering").verdict == "ok"
        assert found(checks, "resume").verdict == "ok"
    async with Server(config(publish_token="secret-of-publishers")) as server:
        checks = await asked(f"{server.addresses[0]}/events", tries_path=True)
        assert found(checks, "path").verdict == "unknown"


# ── Several nodes behind an address ───────────────────────────────────────────────────────────


class Balancer(LoopbackServer):
    """Gives connections to servers in turn, as balancers do."""

    def __init__(self, *servers: Server) -> None:
        super().__init__()
        self._ports = itertools.cycle(server.port for server in servers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", next(self._ports))
        self.writers.add(forth)
        await asyncio.gather(_copy(reader, forth), _copy(back, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
    writer.close()


async def test_nodes_behind_a_balancer_that_do_not_share_a_store() -> None:
    async with Server(config()) as one, Server(config()) as two, AsyncExitStack() as stack:
        for server in (one, two):
            await held(stack, server.addresses[0], "news")
            server.publish("news", "x")
        async with Balancer(one, two) as balancer:
            wrong = first_wrong(await asked(f"{balancer.url}/events", tries_path=True))
            assert wrong.name == "nodes"
            assert "redis_stream" in wrong.do
        async with Balancer(one, one) as balancer:
            checks = await asked(f"{balancer.url}/events", tries_path=True)
            assert found(checks, "nodes").verdict == OK


async def test_a_publisher_at_another_node() -> None:
    async with (
        Server(config()) as here,
        Server(config()) as there,
        AsyncExitStack() as stack,
    ):
        url, elsewhere = (f"{server.addresses[0]}/events" for server in (here, there))
        await held(stack, here.addresses[0], "news")
        here.publish("news", "x")
        wrong = first_wrong(await asked(url, tries_path=True, publish_url=elsewhere))
        assert (wrong.name, elsewhere in wrong.says) == ("nodes", True)
        checks = await asked(url, tries_path=True, publish_url=url)
        assert found(checks, "nodes").verdict == OK
        told = await asyncio.to_thread(
            subprocess.run,
            command(("why", "--url", url, "--topic", "news", "--publish-url", elsewhere, "--json")),
            capture_output=True, text=True, timeout=60, check=False, env=environment(),
        )  # fmt: skip
        assert json.loads(told.stdout)["cause"] == "nodes"
        bad = await asyncio.to_thread(
            subprocess.run,
            command(("why", "--topic", "news", "--publish-url", "ftp://x")),
            capture_output=True, text=True, timeout=60, check=False, env=environment(),
        )  # fmt: skip
        assert (bad.returncode, "--publish-url" in bad.stderr) == (2, True)
