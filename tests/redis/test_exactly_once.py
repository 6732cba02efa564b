"""Publishes with keys are stored once by two nodes: a short run of the command."""

import pytest

from tests.redis.server import RedisServer
from tests.supervisor.exactly_once import Plan, run


@pytest.mark.timeout(240)
async def test_keyed_publishes_are_stored_once_on_redis_with_two_nodes(redis: RedisServer) -> None:
    figures = await run(
        Plan(publishes=1200, store="redis", redis_url=redis.url, kills=3, pause_s=0.1, seed=2)
    )
    assert figures.faults == []
    assert figures.cut > 10
    assert figures.kills > 0
