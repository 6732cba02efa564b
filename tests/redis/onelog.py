"""A node's side of the log, watched: what it delivered, acknowledged, refused and reported."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from fastsse.backbone import Stretch
from fastsse.backbone.redis import RedisBackbone
from fastsse.cluster.store import RedisControlStore
from fastsse.config import Config
from fastsse.entries import Entry
from fastsse.errors import FastsseError
from fastsse.events import Event
from fastsse.stores import open_stores
from fastsse.subscriptions import Cursor

# Everything here is quick; a busy machine is not.
TIMEOUT_S = 60


async def until(is_so: Callable[[], bool]) -> None:
    """Waits for something that another process makes true."""
    async with asyncio.timeout(TIMEOUT_S):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class Node:
    """Records what a backbone calls back.

    Attributes:
        backbone, control_store: of the node.
        seen: data of what was delivered, in order.
        positions: theirs.
        acknowledged: position by data, of this node's own publishes.
        refused: data of its own publishes that were refused.
        broken: reasons and places.
    """

    def __init__(self, backbone: RedisBackbone, control_store: RedisControlStore) -> None:
        self.backbone = backbone
        self.control_store = control_store
        self.seen: list[str] = []
        self.positions: list[int] = []
        self.acknowledged: dict[str, int] = {}
        self.refused: list[str] = []
        self.broken: list[tuple[str, int]] = []
        self._changed = asyncio.Event()
        backbone.tail(backbone.start, self._deliver, self._note_broken)

    def publish(
        self, *data: str, topic: str = "t", key: tuple[bytes, int] | None = None, **fields: Any
    ) -> None:
        """Appends a batch; what comes of it is noted."""

        def done(outcome: Sequence[int] | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                self.refused += data
            else:
                # A publisher that is answered could see it already, or before we came.
                seen = {*self.positions, *(p for p in outcome if p <= self.backbone.start)}
                assert set(outcome) <= seen
                self.acknowledged |= dict(zip(data, outcome, strict=True))
            self._changed.set()

        self.backbone.append([Event(topic, text, **fields) for text in data], done, key)

    async def answered(self, *data: str, **fields: Any) -> None:
        """Appends a batch and waits until it is acknowledged or refused."""
        self.publish(*data, **fields)
        await self.until(lambda: all(d in self.acknowledged or d in self.refused for d in data))

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Waits for something that a call-back, or time, makes true."""
        async with asyncio.timeout(TIMEOUT_S):
            while not is_so():
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), 0.02)
                except TimeoutError:
                    continue

    async def saw(self, *data: str) -> None:
        await self.until(lambda: set(data) <= set(self.seen))

    async def well(self) -> None:
        """Waits until publishing and following work."""
        await self.until(lambda: self.backbone.trouble is None)

    async def troubled(self, word: str) -> None:
        """Waits until the trouble has a name."""
        await self.until(lambda: word in (self.backbone.trouble or ""))

    async def published_again(self, text: str) -> None:
        """Publishes until it is acknowledged: what was refused is published under a new name."""
        for attempt in range(TIMEOUT_S * 10):
            name = f"{text}.{attempt}"
            await self.answered(name)
            if name in self.acknowledged:
                return
            await asyncio.sleep(0.1)
        raise AssertionError("it never worked again")

    async def read(self, *selectors: str, after: int = 0, limit_bytes: int = 1 << 20) -> Stretch:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.backbone.read(selectors, after, limit_bytes, answer.set_result)
        async with asyncio.timeout(TIMEOUT_S):
            outcome = await answer
        if isinstance(outcome, FastsseError):
            raise outcome
        return outcome  # type: ignore[no-any-return]

    async def seek(self, cursor: Cursor, *selectors: str) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.backbone.seek(selectors, cursor, answer.set_result)
        async with asyncio.timeout(TIMEOUT_S):
            return await answer

    def check(self) -> None:
        """What holds whatever happened: order, no repeats, and what was acknowledged was seen."""
        assert self.positions == sorted(set(self.positions))
        assert len(self.seen) == len(set(self.seen)), "an event was delivered twice"
        for text, position in self.acknowledged.items():
            if position <= self.backbone.start:
                continue
            assert self.seen[self.positions.index(position)] == text

    def _deliver(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            assert not self.positions or entry.position > self.positions[-1]
            assert not self.broken or entry.position > self.broken[-1][1]
            self.positions.append(entry.position)
            self.seen.append(data_of(entry))
        self._changed.set()

    def _note_broken(self, why: str, place: int) -> None:
        assert not self.positions or place >= self.positions[-1]
        self.broken.append((why, place))
        self._changed.set()


def data_of(entry: Entry) -> str:
    """The data of an entry's frame."""
    lines = entry.frame.body.decode().split("\n")
    return "\n".join(line[6:] for line in lines if line.startswith("data: "))


@asynccontextmanager
async def node_on(url: str, **options: Any) -> AsyncIterator[Node]:
    """A node on a log, closed at the end and checked."""
    defaults = {"redis_timeout": "5s", "redis_start": "20s"}
    opened = await open_stores(Config(port=0, store=url, **defaults | options))
    backbone = cast("RedisBackbone", opened.backbone)
    node = Node(backbone, cast("RedisControlStore", opened.control_store))
    try:
        yield node
        node.check()
    finally:
        await backbone.close()
