"""NDJSON to a batch of events. Loop thread only."""

from collections.abc import Callable
from typing import Any

from fastsse._batch import EventBatch
from fastsse.events import Event

def read_lines(
    body: bytes | bytearray, event_of: Callable[[dict[str, Any]], Event]
) -> EventBatch | None:
    """The events of an NDJSON body, in order; empty lines are skipped. O(bytes).

    A line of a topic, data and perhaps an event type costs no Python object but its data. Lines
    with other members, and data that orjson might write in another way, are read by orjson.

    None where a line is no object, or a reader would lose a part of one (a name that stands twice,
    a whole number over 64 bits). What is wrong with it is not said here.

    Arguments:
        body: UTF-8; the lines end with LF. It must not change meanwhile.
        event_of: makes the event of a line that has more than a topic, data and an event type.

    Raises:
        orjson.JSONDecodeError: a line is not JSON.
        InvalidEvent: a line describes an event that can't be.
        UnicodeDecodeError: a topic or an event type is not UTF-8.
        TypeError: data are nested too deep to be written.
    """
