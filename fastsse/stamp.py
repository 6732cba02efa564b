"""The due-time stamp: what an open-loop publisher writes into an event's data to have it measured.

The data is a compact JSON object whose first member is the time at which the event was *due*::

    {"due":1763765540123456,"source":7,"count":42,"pad":"xxxxxxxx"}

============ ==================================================================================
``due``      microseconds of the Unix clock (``CLOCK_REALTIME``) when the event was to be sent.
             It is the schedule's time, not the time of sending: a publisher that falls behind
             makes its delay visible instead of leaving it out.
``source``   a number for one counted sequence: one publisher connection and one topic.
``count``    1, 2, 3 … within that source, so that a receiver knows what is missing, double or
             late.
``pad``      fills the data up to the wanted size; left out when there is nothing to fill.
============ ==================================================================================

``source`` and ``count`` go together and may both be missing: an event with only ``due`` is timed
but not counted. Members stand in this order; one space after a colon or a comma is accepted, so
that what a JSON library wrote also serves.

Why the real-time clock, which can be stepped: a stamp must mean the same in every process, in
every language (``Date.now() * 1000``) and on machines with synchronised clocks. Publishers wait for
their due times on the same clock, so that slewing cancels out, and receivers report a step
(`clock_step_us`) when the clock was set during a run.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

SIZE_BYTES_MIN = 80
"""A stamp with the largest numbers and a `pad` member fits."""

SIZE_BYTES_MAX = 16 * 1024 * 1024

ENVELOPE_BYTES_MAX = 64
"""Centrifugo's is `{"channel":"news","pub":{"data":`."""

_STAMP = re.compile(
    rb'\{"due": ?(?P<due>\d{1,19})'
    rb'(?:, ?"source": ?(?P<source>\d{1,10}), ?"count": ?(?P<count>\d{1,10}))?[,}]'
)


@dataclass(frozen=True, slots=True)
class Stamp:
    """When an event was due and which event of its source it is (0, 0: not counted)."""

    due_us: int
    source: int = 0
    count: int = 0


def now_us() -> int:
    """The clock that stamps use, in microseconds."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME) // 1000


def encode(stamp: Stamp, size_bytes: int) -> bytes:
    """The data of one stamped event, exactly `size_bytes` long.

    Raises:
        ValueError: `size_bytes` is outside SIZE_BYTES_MIN … SIZE_BYTES_MAX.
    """
    if not SIZE_BYTES_MIN <= size_bytes <= SIZE_BYTES_MAX:
        raise ValueError(
            f"a stamped event is {SIZE_BYTES_MIN} to {SIZE_BYTES_MAX} bytes, not {size_bytes}"
        )
    head = b'{"due":%d,"source":%d,"count":%d,"pad":"' % (stamp.due_us, stamp.source, stamp.count)
    return head.ljust(size_bytes - 2, b"x") + b'"}'


def decode(data: bytes) -> Stamp | None:
    """The stamp of an event's data, None when there is none. It stands at the beginning, or behind
    at most ENVELOPE_BYTES_MAX bytes of an object that another server puts it into."""
    start = data.find(b'{"due":', 0, ENVELOPE_BYTES_MAX + 7) if data[:1] == b"{" else 0
    found = _STAMP.match(data, max(start, 0))
    if found is None:
        return None
    due, source, count = found.group("due", "source", "count")
    return Stamp(int(due), int(source or 0), int(count or 0))
