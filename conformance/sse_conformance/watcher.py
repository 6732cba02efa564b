"""A program of its own: kills what `endings` watched when the suite has ended.

Its input has a line for each child of the suite: `+PID` watches it, `-PID` forgets it.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable

_KILLING_S = 10.0


def main() -> None:
    pids: set[int] = set()
    for line in sys.stdin:
        change = pids.add if line[0] == "+" else pids.discard
        change(int(line[1:]))
    _kill(pids)


def _kill(pids: set[int]) -> None:
    """Kills processes, their descendants and their sessions, until none is left."""
    deadline = time.monotonic() + _KILLING_S
    # What was found stays in the set: the children of a killed process have another parent.
    while (found := _belonging(pids)) and time.monotonic() < deadline:
        pids |= found
        for pid in found:
            _signal(pid)
        time.sleep(0.01)


def _signal(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _belonging(pids: Iterable[int]) -> set[int]:
    """The running processes among these, in their sessions, and below them."""
    found = set(pids)
    running = _running()
    while more := {
        pid
        for pid, (parent, session) in running.items()
        if pid not in found and (parent in found or session in found)
    }:
        found |= more
    return found & running.keys()


def _running() -> dict[int, tuple[int, int]]:
    """Parent and session of each process that is no zombie."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # A program's name is in brackets and may contain anything.
                words = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        state, parent, _, session = words[:4]
        if state not in (b"Z", b"X"):
            found[int(name)] = int(parent), int(session)
    return found


if __name__ == "__main__":
    main()
