"""Durable streams through kills and losses of power: a part of what `make soak` runs for long."""

import pytest

from fastsse.backbone.sqlite.file import HistoryFile
from tests.backbone.simulation.streams_world import run_streams_seed


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_no_seed_with_streams_breaks_a_promise(first: int) -> None:
    for seed in range(first, first + 10):
        _, report = run_streams_seed(seed)
        again = f"python -m tests.backbone.simulation --of streams --first {seed} --seeds 1"
        assert report is None, f"{report}\n{again}"


def violations(most: int) -> int:
    """Seeds that find something, up to the first."""
    return next(
        (seed for seed in range(most) if "Violation" in (run_streams_seed(seed)[1] or "")), most
    )


def test_an_answer_before_the_sync_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    transaction = HistoryFile.transaction
    monkeypatch.setattr(
        HistoryFile, "transaction", lambda file, synced: transaction(file, synced=False)
    )
    assert violations(60) < 60
