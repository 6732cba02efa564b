"""The memory backbone keeps the promises of all backbones, and begins again with each start."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastsse.backbone import Backbone
from fastsse.backbone.memory import MemoryBackbone
from fastsse.positions import position_at
from tests.hub.backbone_contract import BackboneContract


class TestMemoryBackbone(BackboneContract):
    @asynccontextmanager
    async def open(self) -> AsyncIterator[Backbone]:
        backbone = MemoryBackbone(lambda: self.now_ms)
        yield backbone
        await backbone.close()

    async def test_its_order_begins_when_it_is_made(self) -> None:
        async with self.tail() as tail:
            assert tail.backbone.head == tail.backbone.start == position_at(self.now_ms)
            stretch = await tail.read(("*",), 0)
            assert (stretch.entries, stretch.is_last) == ((), True)
            assert stretch.evicted_through == position_at(self.now_ms)
