"""Measuring before other processes: what else runs on the machine gets what is left."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PRIORITY = -10
AUTOGROUP = Path("/proc/self/autogroup")


@contextlib.contextmanager
def before_others(niceness: int = PRIORITY) -> Iterator[None]:
    """This thread, whatever it starts, and its session, where that is allowed.

    Where the kernel groups processes by session (autogroup), niceness counts within a session
    alone, and the session's own counts against other sessions. Both are put back.
    """
    nice_before, group_before = os.getpriority(os.PRIO_PROCESS, 0), _group_niceness()
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
        if group_before is not None:
            AUTOGROUP.write_text(str(niceness))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, nice_before)
            if group_before is not None:
                AUTOGROUP.write_text(str(group_before))


def _group_niceness() -> int | None:
    """`/autogroup-28 nice 0`; None when sessions are not grouped or not shown."""
    with contextlib.suppress(OSError, ValueError):
        return int(AUTOGROUP.read_text().rpartition(" ")[2])
    return None
