"""The Redis backbone keeps the promises of all backbones."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fastsse.backbone import Backbone
from fastsse.backbone.redis import open_redis
from fastsse.config import Config
from fastsse.redis.keys import Keys
from tests.hub.backbone_contract import BackboneContract, Tail
from tests.redis.server import RedisServer
from tests.redis.test_format import written_in


class TestRedisBackbone(BackboneContract):
    @pytest.fixture(autouse=True)
    def on_a_real_server(self, redis: RedisServer) -> None:
        self.redis = redis
        # As in a cluster whose nodes all read format 2: format 1 has no kind of data.
        redis.client.set(Keys("fastsse").format, b"2")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Backbone]:
        backbone = await open_redis(self.redis.url, Config(port=0))
        try:
            yield backbone
        finally:
            await backbone.close()

    async def is_ready(self, tail: Tail) -> None:
        await written_in(self.redis, 2)
