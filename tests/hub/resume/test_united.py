"""A page of the store and of memory: in order, each event once, bounded in bytes."""

from typing import Any, NamedTuple

import pytest

from fastsse.hub.resume.pages import _united


class Piece(NamedTuple):
    position: int
    size: int


STORED: Any = [Piece(1, 90), Piece(3, 90)]


@pytest.mark.parametrize(
    ("limit_bytes", "places", "through"),
    [
        (100, [1, 2, 3, 4, 6], 9),
        (99, [1, 2, 3, 4], 4),
        (40, [1, 2, 3], 3),
        (39, [1], 1),
    ],
)
def test_what_only_memory_has_counts_against_the_bound(
    limit_bytes: int, places: list[int], through: int
) -> None:
    kept: Any = [Piece(2, 40), Piece(3, 90), Piece(4, 40), Piece(6, 20)]
    frames, complete = _united(STORED, kept, 9, limit_bytes)
    assert [frame.position for frame in frames] == places
    assert complete == through


def test_at_least_one_event_of_memory_is_taken() -> None:
    kept: Any = [Piece(2, 500), Piece(4, 1)]
    frames, complete = _united([], kept, 9, 100)
    assert [frame.position for frame in frames] == [2]
    assert complete == 2
