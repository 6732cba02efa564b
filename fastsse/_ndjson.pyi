"""NDJSON to a batch of events. Loop thread only."""

from collections.abc import Callable
from typing import Any

from fastsse._batch import EventBatch
from fastsse.events import Event

def read_lines(
    lines: list[bytes], event_of: Callable[[dict[str, Any]], Event], escapes_colons: bool
) -> EventBatch | None:
    """The events of NDJSON lines, in order; empty lines are skipped. O(bytes).

    None where a line is no object, or a reader would lose a part of one (a name that stands twice,
    a whole number over 64 bits). What is wrong with it is not said here.

    Arguments:
        lines: without their line ends.
        event_of: makes the event of a line that has more than a topic, data and an event type.
        escapes_colons: whether a string may hold an escaped colon; each line is looked at closely
            then.

    Raises:
        orjson.JSONDecodeError: a line is not JSON.
        InvalidEvent: a line describes an event that can't be.
        TypeError: data are nested too deep to be written.
    """
