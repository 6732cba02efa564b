"""The table of producers is bounded, outlives a kill with a file, and forgets after its window."""

import pytest

from tests.supervisor.many_producers import Figures, Plan, run


def check_first(figures: Figures) -> None:
    kept = len(figures.known)
    assert 200 < kept < 500  # A row counts for 280 bytes and its key.
    assert figures.answers["first"] == {200: kept, 503: 1_000 - kept}


@pytest.mark.timeout(120)
async def test_producers_above_the_bound_are_refused_and_known_ones_outlive_a_kill() -> None:
    figures = await run(Plan(1_000, "sqlite", total="96KiB", kills=True))
    check_first(figures)
    for step in ("again", "after the kill"):
        assert set(figures.answers[step]) == {204}
        assert set(figures.answers[f"next {step}"]) == {200}
        assert set(figures.answers[f"refused {step}"]) == {503}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_producers_are_forgotten_after_their_window_and_make_room(store: str) -> None:
    figures = await run(Plan(1_000, store, total="96KiB", window_s=5))
    check_first(figures)
    answers = figures.answers
    # One that goes on has a gap. One that begins is new.
    assert set(answers["forgotten goes on"]) == {409}
    assert set(answers["new after"]) == {200}
    assert answers["forgotten begins"][200] > 100
