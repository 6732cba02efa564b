"""Features crossed with kills of a worker and of the hub, and with a reload; more seeds:
`make soak-crossings`."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.redis.server import program
from tests.replays.crossing import run_once

STEPS = 10


async def test_streams_are_exact_over_kills_and_reloads(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        await run_once(tmp_path, 1, STEPS, stack, redis=False)


@pytest.mark.skipif(program() is None, reason="needs redis-server")
async def test_streams_are_exact_at_two_nodes_of_a_redis(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        await run_once(tmp_path, 1, STEPS, stack, redis=True)
