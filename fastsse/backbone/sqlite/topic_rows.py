"""The rows of topics that the writer used last."""

import json
import sqlite3
from collections.abc import Iterable
from typing import Final

from fastsse.backbone.sqlite.damage import Damage
from fastsse.backbone.sqlite.statements import insert
from fastsse.backbone.sqlite.values import (
    IS_WHOLE_TOPIC,
    TOPIC_BYTES,
    TOPIC_ENDED,
    TOPIC_EVENTS,
    TOPIC_EVICTED,
)

__all__ = ["TopicRow", "TopicRows"]

# About 300 bytes each. Rows that the current batch needs are kept above this number.
KEPT_MAX: Final = 100_000


class TopicRow:
    """One topic: what is kept of it, up to which place its events were evicted, and where it ended
    (0: it is open)."""

    __slots__ = ("bytes", "ended", "events", "evicted_through", "name", "number")

    def __init__(
        self,
        number: int,
        name: str,
        events: int,
        bytes: int,
        evicted_through: int,
        ended: int = 0,
    ) -> None:
        self.number: Final = number
        self.name: Final = name
        self.events = events
        self.bytes = bytes
        self.evicted_through = evicted_through
        self.ended = ended


class TopicRows:
    """The rows, by name. A changed row is stored by the transaction that changed it.

    Arguments:
        damage: notes rows with damaged values. They are read with safe ones, and so stored.
    """

    def __init__(self, damage: Damage) -> None:
        self._damage: Final = damage
        self._kept: dict[str, TopicRow] = {}
        self._changed: dict[str, TopicRow] = {}

    def load(self, connection: sqlite3.Connection, names: Iterable[str]) -> list[str]:
        """Loads the rows of these topics, and returns the names without a row."""
        wanted = list(names)
        if len(self._kept) > KEPT_MAX:
            self._kept = dict(self._changed)
        missing = [name for name in wanted if name not in self._kept]
        if not missing:
            return []
        (found,) = connection.execute(
            f"SELECT json_group_array(json_array({_COLUMNS}))"
            " FROM topic WHERE name IN (SELECT value FROM json_each(?))",
            (json.dumps(missing),),
        ).fetchone()
        for *columns, is_whole in json.loads(found):
            row = self._kept[columns[1]] = TopicRow(*columns)
            if not is_whole:
                self._damage.found_topic(row.number, "its row has a damaged number")
                self.touch(row)
        return [name for name in missing if name not in self._kept]

    def add(self, row: TopicRow) -> None:
        """A topic's first row."""
        self._kept[row.name] = self._changed[row.name] = row

    def __getitem__(self, name: str) -> TopicRow:
        """A row that was loaded or added."""
        return self._kept[name]

    def get(self, name: str) -> TopicRow | None:
        """A row, if it is there."""
        return self._kept.get(name)

    def touch(self, row: TopicRow) -> None:
        """Makes the transaction store a changed row."""
        self._changed[row.name] = row

    def drop(self, name: str) -> None:
        """Forgets a row that is being deleted."""
        self._kept.pop(name, None)
        self._changed.pop(name, None)

    def clear(self) -> None:
        """Forgets all rows, because they may differ from the file."""
        self._kept.clear()
        self._changed.clear()

    def store(self, connection: sqlite3.Connection) -> None:
        """Writes changed rows into the current transaction."""
        if not self._changed:
            return
        values: list[int | str] = []
        for row in self._changed.values():
            values += (row.number, row.name, row.events, row.bytes, row.evicted_through, row.ended)
        insert(connection, _UPSERT, 6, values)
        self._changed.clear()


_COLUMNS: Final = (
    f"number, name, {TOPIC_EVENTS}, {TOPIC_BYTES}, {TOPIC_EVICTED}, {TOPIC_ENDED}, {IS_WHOLE_TOPIC}"
)
_UPSERT: Final = (
    "topic (number, name, events, bytes, evicted_through, ended) ON CONFLICT (number) DO UPDATE SET"
    " events = excluded.events, bytes = excluded.bytes, evicted_through = excluded.evicted_through,"
    " ended = excluded.ended"
)
