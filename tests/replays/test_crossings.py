"""Features crossed with kills of a worker and of the hub, and with a reload; more seeds:
`make soak-crossings`."""

from pathlib import Path

from tests.replays.crossing import options, run_seed
from tests.supervisor.conftest import serve

__all__ = ["serve"]

STEPS = 10


async def test_streams_are_exact_over_kills_and_reloads(serve, tmp_path: Path) -> None:
    service = await serve(*options(tmp_path))
    await run_seed(service, 1, str(tmp_path / "pid"), STEPS)
