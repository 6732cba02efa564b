"""Whole nodes on one Redis: servers in this process, and one as users start it, with workers."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from fastsse.client.errors import ClientError
from fastsse.client.listener import Listener, StreamState
from fastsse.client.publisher import Publisher
from fastsse.config import Config
from fastsse.server import Server
from tests.redis.onelog import TIMEOUT_S
from tests.supervisor.service import Service

OPTIONS = {"drain": "0s", "retry": "10ms", "redis_timeout": "5s", "access_lines": 0}


@asynccontextmanager
async def node(store: str, **options: Any) -> AsyncIterator[str]:
    """The address of a server in this process."""
    async with Server(Config(port=0, store=store, **OPTIONS | options)) as server:
        yield server.addresses[0]


@asynccontextmanager
async def process(store: str, *flags: str, **options: Any) -> AsyncIterator[str]:
    """The address of a service in processes of its own; ended as an operator would."""
    async with doomed(store, *flags, **options) as service:
        yield service.url
        service.signal(signal.SIGTERM)
        await service.ended()


@asynccontextmanager
async def doomed(store: str, *flags: str, **options: Any) -> AsyncIterator[Service]:
    """A service in processes of its own, for a test that stops or kills it."""
    given = {key: str(value).lower() if value is True else value for key, value in options.items()}
    variables = {f"FASTSSE_{key.upper()}": str(value) for key, value in (OPTIONS | given).items()}
    service = await Service.start("--port", "0", "--store", store, *flags, **variables)
    try:
        yield await service.wait()
    finally:
        await service.stop()


class Subscriber:
    """A client that reconnects as browsers do, and all that it saw.

    Attributes:
        seen, ids: data of events in order, and their ids.
        gaps: reasons of the gaps that it received.
    """

    def __init__(self, url: str, topic: str, **cursor: Any) -> None:
        self.seen: list[str] = []
        self.ids: list[str] = []
        self.gaps: list[str] = []
        self.opened = asyncio.Event()
        self.connections = 0
        self.listener = Listener(url, topic, on_state=self._on_state, **cursor)
        self._reading = asyncio.create_task(self._read())

    async def saw(self, *data: str) -> None:
        await until(lambda: set(data) <= set(self.seen), self)

    def ended(self) -> bool:
        """Whether it received a 204."""
        return self._reading.done()

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self.listener.aclose()

    async def _read(self) -> None:
        async for event in self.listener:
            if event.gap is not None:
                self.gaps.append(event.gap.reason)
            else:
                self.seen.append(event.data)
                self.ids.append(event.id)

    def _on_state(self, state: StreamState) -> None:
        if state.kind == "open":
            self.connections += 1
            self.opened.set()


async def until(is_so: Callable[[], bool], about: object = None) -> None:
    """Waits until something is so."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while not is_so():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"it never was so: {vars(about) if about else ''}") from None


@asynccontextmanager
async def subscribers(urls: list[str], topic: str = "t", **cursor: Any) -> AsyncIterator[Any]:
    """One at each node, all open."""
    async with AsyncExitStack() as stack:
        opened = [Subscriber(url, topic, **cursor) for url in urls]
        for one in opened:
            stack.push_async_callback(one.close)
        for one in opened:
            async with asyncio.timeout(TIMEOUT_S):
                await one.opened.wait()
        yield opened


async def saw_the_same(readers: list[Subscriber], *data: str) -> None:
    """All saw these, each event once, in one order, with no gap."""
    for reader in readers:
        await reader.saw(*data)
    most = max(len(reader.seen) for reader in readers)
    for reader in readers:
        await until(lambda reader=reader: len(reader.seen) == most)  # type: ignore[misc]
        assert reader.seen == readers[0].seen
        assert len(set(reader.seen)) == len(reader.seen)
        assert reader.gaps == []


class Publishing:
    """Publishes to several nodes in turn, and keeps what each answered."""

    def __init__(self, urls: list[str]) -> None:
        self.acknowledged: list[str] = []
        self.refused: list[str] = []
        self._urls = urls

    async def publish(self, *data: str, topic: str = "t") -> None:
        """Each to the next node, one after the other."""
        for index, text in enumerate(data):
            async with Publisher(self._urls[index % len(self._urls)], patience_s=0) as publisher:
                try:
                    await publisher.publish(topic, text)
                except ClientError:
                    self.refused.append(text)
                else:
                    self.acknowledged.append(text)

    async def keep_on(self, name: str, ended: asyncio.Event) -> None:
        """Publishes all the time, to every node at once, until it is ended."""

        async def to(url: str, number: int) -> None:
            async with Publisher(url, patience_s=0) as publisher:
                index = 0
                while not ended.is_set():
                    index += 1
                    text = f"{name} {number} {index}"
                    try:
                        await publisher.publish("t", text)
                    except ClientError:
                        self.refused.append(text)
                        await asyncio.sleep(0.02)
                    else:
                        self.acknowledged.append(text)

        await asyncio.gather(*(to(url, number) for number, url in enumerate(self._urls)))


async def get(url: str, path: str, **params: str) -> httpx.Response:
    """One request."""
    async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_S) as client:
        return await client.get(url + path, params=params)


async def post(url: str, data: str, topic: str = "t") -> httpx.Response:
    """One publish, whatever the answer is."""
    async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_S) as client:
        return await client.post(url + "/events", params={"topic": topic}, content=data)
