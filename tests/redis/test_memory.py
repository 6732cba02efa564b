"""Operators are warned before Redis is full."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from fastsse.redis import memory
from tests.redis import cluster
from tests.redis.server import RedisServer
from tests.sources.flows import metric

LOW = "fastsse_store_memory_low"


async def until_low(url: str, value: int) -> None:
    async with asyncio.timeout(30):
        while await metric(url, LOW) != value:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_redis_that_is_nearly_full_is_named_until_it_has_memory_again(
    make_redis: Callable[..., RedisServer],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(memory, "LOOK_S", 0.05)
    redis = make_redis(maxmemory="30mb", maxmemory_policy="noeviction")
    caplog.set_level(logging.INFO)
    async with cluster.node(redis.url) as url:
        assert await metric(url, LOW) == 0
        for number in range(27):
            redis.client.set(f"other-{number}", b"x" * 1_020_000)
        await until_low(url, 1)
        assert (await cluster.get(url, "/readyz")).text.strip() == "ready; Redis is nearly full"
        assert await metric(url, "fastsse_store_memory_limit_bytes") == 30 * 1024 * 1024
        assert await metric(url, "fastsse_store_memory_bytes") > 26_500_000
        redis.client.delete(*(f"other-{number}" for number in range(27)))
        await until_low(url, 0)
        assert (await cluster.get(url, "/readyz")).text.strip() == "ready"
    said = [record.message for record in caplog.records]
    assert said.count("Redis is nearly full; it will refuse events.") == 1
    assert said.count("Redis has memory again.") == 1
