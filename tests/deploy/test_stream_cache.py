# ruff: noqa: ASYNC110 — it waits for what the server has.
"""A cache of nginx or Varnish in front of durable streams: catch-up reads reach the origin once,
and polls at the same place are one."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.cli.commandline import environment
from tests.deploy.proxies import AS_ROOT, PATH, program
from tests.http.conftest import asked
from tests.loopback import held_port
from tests.streams.test_protocol import TEXT, created

TIMEOUT_S = 60
READERS = 1_000
POLLS = 50
CONFIG = """
daemon off;
pid {folder}/pid;
error_log stderr error;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  proxy_cache_path {folder}/cache keys_zone=streams:1m;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass {origin};
      proxy_http_version 1.1;
      proxy_cache streams;
      proxy_cache_lock on;
      proxy_cache_lock_timeout 60s;
      proxy_cache_lock_age 60s;
    }}
  }}
}}
"""
CACHES = [
    pytest.param(
        name, marks=pytest.mark.skipif(program(command) is None, reason=f"no {command} here")
    )
    for name, command in (("nginx", "nginx"), ("varnish", "varnishd"))
]


def _nginx(folder: Path, port: int, server: Server) -> list[str]:
    path = folder / "nginx.conf"
    path.write_text(CONFIG.format(folder=folder, port=port, origin=server.addresses[0]))
    return [program("nginx") or "", "-e", "stderr", *AS_ROOT, "-c", str(path)]


def _varnish(folder: Path, port: int, server: Server) -> list[str]:
    """With its usual rules. It compiles them, so it needs a C compiler."""
    listens = ["-a", f"127.0.0.1:{port}", "-b", f"127.0.0.1:{server.port}"]
    waits = ["-p", "first_byte_timeout=60", "-p", "between_bytes_timeout=60"]
    kept = ["-n", str(folder / "varnish"), "-s", "malloc,64m", "-j", "none"]
    return [program("varnishd") or "", "-F", *listens, *waits, *kept]


@asynccontextmanager
async def cached(folder: Path, server: Server, cache: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a cache in front of a server."""
    with held_port() as held:
        port = held.getsockname()[1]
        command = (_nginx if cache == "nginx" else _varnish)(folder, port, server)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment(PATH=PATH),
        )
        try:
            limits = httpx.Limits(max_connections=POLLS)
            base = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(
                base_url=base, limits=limits, timeout=TIMEOUT_S, trust_env=False
            ) as client:
                async with asyncio.timeout(TIMEOUT_S):
                    while True:
                        try:
                            if (await client.get("/healthz")).status_code == 200:
                                break
                        except httpx.HTTPError:
                            assert process.returncode is None
                            await asyncio.sleep(0.05)
                yield client
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def reads(server: Server) -> int:
    """Answers with content that the origin gave."""
    text = (await asked(server, "GET", "/metrics")).body.decode()
    found = re.search(r'fastsse_requests_total\{route="/streams/\*",status="200"\} (\d+)', text)
    return 0 if found is None else int(found[1])


@pytest.mark.parametrize("cache", CACHES)
async def test_a_thousand_readers_of_a_sealed_page_reach_the_origin_once(
    tmp_path: Path, cache: str
) -> None:
    async with Server(Config(port=0, drain=0, access_lines=0, max_body="4MiB")) as server:
        ask = partial(asked, server)
        first = await created(ask, "/streams/log")
        await ask("POST", "/streams/log", TEXT, body=b"x" * 1000)
        await ask("POST", "/streams/log", TEXT, body=b"y" * 1_200_000)
        url = f"/streams/log?offset={first.headers['stream-next-offset']}"
        async with cached(tmp_path, server, cache) as client:
            before = await reads(server)
            answers = await asyncio.gather(*(client.get(url) for _ in range(READERS)))
            assert {answer.content for answer in answers} == {b"x" * 1000}
            assert "immutable" in answers[0].headers["cache-control"]
            assert await reads(server) - before == 1


@pytest.mark.parametrize("cache", CACHES)
async def test_long_polls_at_one_place_reach_the_origin_once(tmp_path: Path, cache: str) -> None:
    async with Server(Config(port=0, drain=0, access_lines=0)) as server:
        ask = partial(asked, server)
        first = await created(ask, "/streams/log")
        offset = first.headers["stream-next-offset"]
        url = f"/streams/log?live=long-poll&cursor=1&offset={offset}"
        async with cached(tmp_path, server, cache) as client:
            polls = [asyncio.create_task(client.get(url)) for _ in range(POLLS)]
            async with asyncio.timeout(TIMEOUT_S):
                while server._worker.frontend.counters()["streams_waiting"] == 0:
                    await asyncio.sleep(0.01)
            before = await reads(server)
            await ask("POST", "/streams/log", TEXT, body=b"new")
            answers = await asyncio.gather(*polls)
            assert {answer.content for answer in answers} == {b"new"}
            assert len({answer.headers["stream-cursor"] for answer in answers}) == 1
            assert await reads(server) - before == 1
