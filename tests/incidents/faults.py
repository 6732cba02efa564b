"""What goes wrong: each fault starts a service, and goes on until the incident ends."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.auth.minting import SECRET, mint
from tests.certificates import issue
from tests.doctor.badproxy import BadProxy, Manners
from tests.incidents.scene import Scene
from tests.redis.server import running
from tests.wallclock import WallClock


@dataclass(frozen=True, slots=True)
class Asked:
    """What an operator asks: arguments and variables of `fastsse why`, and what else to look at."""

    arguments: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    look: Callable[[], Awaitable[str]] | None = None


async def opened(url: str, query: str, *lines: str, receive_bytes: int = 0) -> socket.socket:
    """A socket on which a stream was asked for; its answer is not read."""
    host, _, port = url.partition("://")[2].partition(":")
    sock = socket.socket()
    if receive_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (host, int(port)))
    head = "\r\n".join([f"GET /events?{query} HTTP/1.1", "Host: localhost", *lines, "", ""])
    await loop.sock_sendall(sock, head.encode())
    return sock


async def opens_for_ever(
    url: str, query: str, *lines: str, every_s: float, held_s: float, receive_bytes: int = 0
) -> None:
    """Opens a stream again and again, and leaves each after a while."""
    loop = asyncio.get_running_loop()
    while True:
        with contextlib.suppress(OSError):
            sock = await opened(url, query, *lines, receive_bytes=receive_bytes)
            loop.call_later(held_s, sock.close)
        await asyncio.sleep(every_s)


async def publishes(scene: Scene, topic: str, size: int, every_s: float) -> None:
    """Publishes for ever, whatever the answer is."""
    while True:
        with contextlib.suppress(httpx.HTTPError):
            await scene.publish(topic, "x" * size)
        await asyncio.sleep(every_s)


async def slow_clients(scene: Scene) -> Asked:
    """Clients that return, and do not read."""
    await scene.serve("--max-lag", "64KiB", "--max-lag-time", "1s", "--history-bytes", "256KiB")
    scene.go_on(publishes(scene, "news", 60_000, 0.02))
    scene.go_on(opens_for_ever(scene.url, "topic=news", every_s=0.2, held_s=20, receive_bytes=4096))
    return Asked(("--topic", "news"))


async def blocked_proxy(scene: Scene) -> Asked:
    """A proxy that holds events back, and pages that answer the pings that reach them."""
    await scene.serve("--ping", "200ms", "--pong-timeout", "1s")
    proxy = await scene.enter(BadProxy(Manners(holds_bytes=10**7), scene.url))
    scene.go_on(publishes(scene, "news", 10, 0.5))
    for _ in range(20):
        scene.go_on(_answers_pings(scene, proxy.url))
    url = f"{proxy.url}/events"
    return Asked(("--topic", "news", "--url", url, "--patience", "1s"))


async def wrong_token(scene: Scene) -> Asked:
    """Clients whose tokens have another key."""
    await scene.serve("--jwt-key", SECRET)
    token = mint(
        {"mercure": {"subscribe": ["news"]}}, key="another key of at least 32 bytes"
    ).decode()
    bearer = f"Authorization: Bearer {token}"
    scene.go_on(opens_for_ever(scene.url, "topic=news", bearer, every_s=0.05, held_s=1))
    return Asked(("--topic", "news", "--token", token))


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of two MiB."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def store_full(scene: Scene) -> Asked:
    """A file whose disk is full."""
    disk = await scene.enter(small_disk(scene.folder / "disk"))
    await scene.serve("--store", f"sqlite:{disk}/history.db")
    scene.go_on(_reads(scene, "news"))
    scene.go_on(publishes(scene, "news", 50_000, 0.02))
    return Asked(("--topic", "news"))


async def redis_gone(scene: Scene) -> Asked:
    """A Redis that was killed."""
    redis = await scene.enter(running(scene.folder / "redis"))
    await scene.serve("--store", redis.url)
    scene.go_on(_reads(scene, "news"))
    assert await scene.publish("news", "x") == 200
    redis.kill()
    return Asked(("--topic", "news"))


async def clock_jump(scene: Scene) -> Asked:
    """The machine's clock is set back by an hour."""
    clock = WallClock(scene.folder / "clock")
    await scene.serve(**clock.variables)
    scene.go_on(_reads(scene, "news"))
    assert await scene.publish("news", "x") == 200
    await asyncio.sleep(2.5)  # Two readings of its clock.
    clock.set(-3600)
    return Asked(("--topic", "news"))


async def descriptor_limit(scene: Scene) -> Asked:
    """A process that may have few descriptors, and clients that want more."""
    await scene.serve(prefix=("prlimit", "--nofile=160:160"))
    for _ in range(160):
        sock = await opened(scene.url, "topic=news")
        await scene.enter(contextlib.closing(sock))
    scene.go_on(opens_for_ever(scene.url, "topic=news", every_s=0.2, held_s=0.5))
    return Asked(("--topic", "news"))


async def workers_killed(scene: Scene) -> Asked:
    """A worker that is killed as soon as it is there."""
    service = await scene.serve("--workers", "2")
    scene.go_on(_reads(scene, "news"))
    scene.go_on(publishes(scene, "news", 10, 0.5))

    async def kill() -> None:
        while True:
            await asyncio.sleep(1.5)
            workers = service.children()["worker"]
            if len(workers) > 1:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(workers[-1], signal.SIGKILL)

    scene.go_on(kill())
    return Asked(("--topic", "news"))


async def no_publisher(scene: Scene) -> Asked:
    """A topic whose publisher is silent, until nothing of it is kept."""
    await scene.serve("--history-age", "5s")
    scene.go_on(_reads(scene, "news"))
    for _ in range(30):
        assert await scene.publish("news", "x") == 200
        await asyncio.sleep(0.2)

    async def look() -> str:
        while True:
            (row,) = (await scene.ask("/admin/topics?topic=news"))["topics"]
            if not row["events"]:
                return f"Topics: {row['subscribers']} streams, {row['events']} events kept."
            await asyncio.sleep(0.2)

    return Asked(("--topic", "news"), look=look)


async def flood(scene: Scene) -> Asked:
    """A publisher that sends far more than it may."""
    await scene.serve("--address-publishes", "20")
    scene.go_on(_reads(scene, "news"))
    scene.go_on(publishes(scene, "news", 10, 0.01))
    return Asked(("--topic", "news"))


async def memory_limit(scene: Scene) -> Asked:
    """More events than memory may have: history, and what a client has not read."""
    await scene.serve(
        "--memory-limit", "8MiB", "--history-total", "1MiB", "--history-bytes", "1MiB",
        "--lag-policy", "skip", "--max-lag", "64MiB", "--max-lag-time", "9m",
        "--user-timeout", "10m",
    )  # fmt: skip
    sock = await opened(scene.url, "topic=news", receive_bytes=4096)
    await scene.enter(contextlib.closing(sock))
    scene.go_on(publishes(scene, "news", 60_000, 0.02))
    return Asked(("--topic", "news"))


async def certificate(scene: Scene) -> Asked:
    """A certificate of which three days are left."""
    path, key = issue(scene.folder, "localhost", days=3)
    await scene.serve("--host", "127.0.0.1", "--tls-cert", path, "--tls-key", key)
    scene.go_on(_reads(scene, "news"))
    assert await scene.publish("news", "x") == 200
    url = scene.url.replace("127.0.0.1", "localhost")
    return Asked(("--topic", "news", "--url", url), {"SSL_CERT_FILE": path})


async def _reads(scene: Scene, topic: str) -> None:
    """A client that reads, and returns."""
    while True:
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(trust_env=False, timeout=None, verify=False) as client:
                url = f"{scene.url}/events"
                async with client.stream("GET", url, params={"topic": topic}) as answer:
                    async for _ in answer.aiter_bytes():
                        pass
        await asyncio.sleep(0.1)


async def _answers_pings(scene: Scene, url: str) -> None:
    """A page that answers each ping that reaches it, and returns."""
    while True:
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(trust_env=False, timeout=3) as client:
                params = {"topic": "news", "ping": "true"}
                async with client.stream("GET", f"{url}/events", params=params) as answer:
                    async for line in answer.aiter_lines():
                        if line.startswith('data: {"stream"'):
                            name = json.loads(line.removeprefix("data: "))["stream"]
                            await client.post(f"{scene.url}/pong", params={"stream": name})
        await asyncio.sleep(0.1)
