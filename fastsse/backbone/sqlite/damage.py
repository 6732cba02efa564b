"""Damage of a file: counted, and logged a bounded number of times. Any thread, because reader and
writer both find damage.
"""

from typing import Final

from fastsse.backbone.sqlite.upgrade import LOST_RECORD
from fastsse.log import get_logger

__all__ = ["Damage"]

log = get_logger("history")

# Log lines of one process. The metric counts further.
LINES_MAX: Final = 20
# Places and rows of topics that are remembered so that each counts once; about 60 bytes each.
PLACES_MAX: Final = 10_000


class Damage:
    """The damage of one file.

    Attributes:
        count: how many places and rows of topics were found damaged, each once.
    """

    def __init__(self, path: str) -> None:
        self.count = 0
        self._path: Final = path
        self._places: Final[set[int]] = set()
        self._lines = 0

    def found(self, place: int, why: str, record: bytes | None = None) -> None:
        """The record at a place can't be read. A known loss is not counted again. O(1)."""
        if record != LOST_RECORD:
            self._count(place, why, place=place)

    def found_topic(self, number: int, why: str) -> None:
        """The row of a topic has a damaged value. O(1)."""
        self._count(-number, why, topic_number=number)

    def _count(
        self, known_as: int, why: str, place: int | None = None, topic_number: int | None = None
    ) -> None:
        if known_as in self._places:
            return
        if len(self._places) < PLACES_MAX:
            self._places.add(known_as)
        self.count += 1
        self._lines += 1
        if self._lines <= LINES_MAX:
            log.error(
                "History is damaged; readers get a gap event.",
                path=self._path,
                place=place,
                topic_number=topic_number,
                why=why,
                more_are_not_logged=self._lines == LINES_MAX,
            )
