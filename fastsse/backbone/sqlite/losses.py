"""Where durable streams may have lost content.

A loss of power, of the log of the file, or of the process with `received` takes the end of what was
stored. What was stored before that is whole. So only a reader that has content of that end is
affected: its offset lies within the loss. Readers of earlier content go on behind it. After damage
anything may be missing.

Readers of other topics get a gap event instead, up to `State.lost_through`.
"""

import sqlite3
from typing import Final

from fastsse.backbone.sqlite.values import integer

__all__ = ["ANYTHING", "lost_from", "note_loss"]

#: As the place that a loss begins after: something may be missing anywhere before its end.
ANYTHING: Final = -1
# Older losses are forgotten: no reader comes back after so many.
LOSSES_MAX: Final = 100

_AFTER: Final = f"coalesce({integer('after')}, {ANYTHING})"


def note_loss(connection: sqlite3.Connection, after: int, through: int) -> None:
    """Records that content after a place and up to another may be missing, in a transaction."""
    connection.execute("DELETE FROM loss WHERE after >= ? AND through <= ?", (after, through))
    connection.execute(
        "INSERT INTO loss (through, after) VALUES (?, ?)"
        " ON CONFLICT (through) DO UPDATE SET after = min(after, excluded.after)",
        (through, after),
    )
    connection.execute(
        "DELETE FROM loss WHERE after >= 0 AND through NOT IN"
        " (SELECT through FROM loss ORDER BY through DESC LIMIT ?)",
        (LOSSES_MAX,),
    )


def lost_from(connection: sqlite3.Connection, place: int) -> int:
    """The place up to which content may be missing for a reader that has everything up to a place;
    0: nothing. O(losses)."""
    (through,) = connection.execute(
        f"SELECT max(through) FROM loss WHERE through > ?1 AND {_AFTER} < ?1", (place,)
    ).fetchone()
    return through or 0
