"""Publishes with keys are stored once, whatever is cut or killed: a short run of the command."""

import pytest

from tests.supervisor.exactly_once import Plan, run


@pytest.mark.timeout(240)
async def test_keyed_publishes_are_stored_once_on_sqlite_with_two_workers() -> None:
    figures = await run(Plan(publishes=240, kills=3, pause_s=0.1, seed=1))
    assert figures.faults == []
    assert figures.cut > 10
    assert figures.kills > 0
