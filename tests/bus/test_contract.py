"""A worker's end keeps the promises of all backbones, whatever the hub's store is."""

import pathlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fastsse.backbone import Backbone
from fastsse.events import Event
from fastsse.subscriptions import Cursor
from tests.bus.onebus import a_bus
from tests.hub.backbone_contract import BackboneContract


class TestBusWithMemory(BackboneContract):
    @asynccontextmanager
    async def open(self) -> AsyncIterator[Backbone]:
        async with a_bus() as bus:
            await bus.start(now_ms=lambda: self.now_ms)
            backbone = (await bus.connected())[0]
            yield backbone

    async def test_an_own_id_is_found_at_its_earliest_event(self) -> None:
        """Although there is nothing to read that a worker does not have: it may be behind."""
        async with self.tail() as tail:
            first, *_ = await tail.append(Event("a", id="x y"), Event("b"), Event("b", id="x y"))
            assert await tail.seek(("a",), Cursor("after", "x y")) == first
            assert await tail.seek(("b",), Cursor("after", " x y\t")) == first
            assert await tail.seek(("a",), Cursor("after", "unknown")) is None


class TestBusWithSqlite(BackboneContract):
    @pytest.fixture(autouse=True)
    def _path(self, tmp_path: pathlib.Path) -> None:
        self.path = tmp_path / "history.db"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Backbone]:
        async with a_bus(store=f"sqlite:{self.path}") as bus:
            await bus.start(now_ms=lambda: self.now_ms)
            backbone = (await bus.connected())[0]
            yield backbone
