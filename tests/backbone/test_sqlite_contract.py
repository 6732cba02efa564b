"""The sqlite backbone keeps the promises of all backbones, whatever an acknowledgement means."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fastsse.backbone import Backbone
from fastsse.backbone.sqlite import Ack, SqliteBackbone
from fastsse.config import Config
from tests.hub.backbone_contract import BackboneContract


class SqliteContract(BackboneContract):
    ack: Ack

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "history.db"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Backbone]:
        backbone = SqliteBackbone(
            str(self.path), Config(), ack=self.ack, now_ms=lambda: self.now_ms
        )
        try:
            yield backbone
        finally:
            await backbone.close()


class TestWritten(SqliteContract):
    ack = "written"


class TestReceived(SqliteContract):
    ack = "received"


class TestSynced(SqliteContract):
    ack = "synced"
