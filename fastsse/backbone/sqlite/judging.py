"""Judging batches within the transaction that stores them; see `fastsse.backbone.judge`."""

from collections.abc import Iterable
from typing import Final

from fastsse.backbone.judge import is_plain, judge
from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.places import position_of
from fastsse.backbone.sqlite.write_batch import StoreBatch
from fastsse.directives import Control, read_control
from fastsse.errors import FastsseError

__all__ = ["judge_batches"]


class _States:
    """What the file says of topics, with what the batches of this transaction change."""

    def __init__(self, file: HistoryFile) -> None:
        self._file: Final = file
        self._ended: Final[dict[str, int]] = {}

    @property
    def ended_count(self) -> int:
        """As `TopicStates`; not exact above 0."""
        return int(self._file.has_ended) + len(self._ended)

    def ended_at(self, topic: str) -> int:
        """As `TopicStates`."""
        if topic in self._ended:
            return self._ended[topic]
        if not self._file.has_ended:
            return 0
        self._file.topics.load(self._file.connection, (topic,))
        row = self._file.topics.get(topic)
        return 0 if row is None or not row.ended else position_of(row.ended)

    def note(self, batch: StoreBatch) -> None:
        """A batch that will be stored."""
        for entry in batch.stored:
            if entry.extras is not None and entry.extras.control is not None:
                control = read_control(entry.extras.control)
                if control == Control("end"):
                    self._ended.update(dict.fromkeys(entry.topics, entry.position))


def judge_batches(file: HistoryFile, batches: Iterable[StoreBatch]) -> None:
    """Notes of each batch whether it may be stored, or which of it was before. In their order, so
    that each sees what those before it change."""
    states = _States(file)
    for batch in batches:
        if not states.ended_count and is_plain(batch.events):
            continue
        judged = judge(batch.events, states)
        if isinstance(judged, FastsseError):
            batch.refusal = judged
            continue
        batch.known = judged
        states.note(batch)
