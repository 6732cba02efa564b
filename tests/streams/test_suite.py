"""The suite of the protocol's authors passes, with every store and with several processes."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.redis.server import running
from tests.streams.suite import in_front_of, run_suite, serving

TESTS = 338


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", ["memory", "sqlite", "two workers", "two nodes on Redis"])
async def test_the_suite_of_the_protocol_passes(
    way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with AsyncExitStack() as stack:
        options = [] if way == "memory" else ["--store", f"sqlite:{tmp_path}/h.db"]
        if way == "two workers":
            options += ["--workers", "2"]
        if way == "two nodes on Redis":
            (tmp_path / "redis").mkdir()
            redis = stack.enter_context(running(tmp_path / "redis"))
            options = ["--store", redis.url]
            nodes = [await stack.enter_async_context(serving(*options)) for _ in "12"]
            url = await stack.enter_async_context(in_front_of(nodes))
        else:
            url = (await stack.enter_async_context(serving(*options))).url
        (tmp_path / "suite").mkdir()
        result = await run_suite(tmp_path / "suite", url)
    with capsys.disabled():
        print(f"\n{way}: {result.passed} of {TESTS} passed, {result.skipped} skipped")
    assert result.failed == []
    assert (result.passed, result.skipped) == (TESTS, 0)
