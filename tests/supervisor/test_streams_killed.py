"""Appends of producers are stored once, whatever is cut or killed: a short run of the command."""

import pytest

from tests.supervisor.streams_killed import Plan, run


@pytest.mark.timeout(240)
@pytest.mark.parametrize("store", ["sqlite", "sqlite synced", "memory", "redis"])
async def test_appends_are_stored_once_and_in_order_when_processes_are_killed(store: str) -> None:
    name, _, ack = store.partition(" ")
    plan = Plan(
        appends=800, store=name, ack=ack or "written", kills=2, pause_s=0.2, producers=8, seed=1
    )
    figures = await run(plan)
    assert figures.faults == []
    assert figures.read == [800] * len(figures.read)
    assert len(figures.read) == (3 if name == "redis" else 2)
    assert figures.cut > 10
    assert figures.kills > 0
