"""A part of the fault simulation that `make soak` runs for long: some seeds, always the same."""

import pytest

from tests.backbone.simulation.world import run_seed


@pytest.mark.parametrize("first", range(0, 24, 6))
def test_no_seed_of_faults_breaks_a_promise(first: int) -> None:
    for seed in range(first, first + 6):
        _, report = run_seed(seed)
        assert report is None, f"python -m tests.backbone.simulation --first {seed} --seeds 1"
