"""What the suite starts ends with it, even if the suite is killed.

A watcher, one process for each suite, holds the read end of a pipe. The kernel closes the write end
when the suite ends, in whatever way, and the watcher kills what was still watched then.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WATCHER = Path(__file__).with_name("watcher.py")


def watch(pid: int) -> None:
    """Has a child killed, with its descendants and its session, if this process ends before
    `forget`."""
    os.write(start_watcher()[0], b"+%d\n" % pid)


def forget(pid: int) -> None:
    """Ends `watch`: the child was waited for."""
    os.write(start_watcher()[0], b"-%d\n" % pid)


@contextmanager
def watched(pid: int) -> Iterator[None]:
    watch(pid)
    try:
        yield
    finally:
        forget(pid)


@functools.cache
def start_watcher() -> tuple[int, subprocess.Popen[bytes]]:
    """Starts the watcher, once. It has a session of its own, so that a signal to the suite's
    process group, such as that of `timeout`, does not end it.

    Returns:
        The write end of its pipe, and the process, which is kept so that it is not collected.
    """
    read_fd, write_fd = os.pipe()
    try:
        watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_WATCHER)],
            stdin=read_fd, stdout=subprocess.DEVNULL, cwd="/", start_new_session=True,
        )  # fmt: skip
    except BaseException:
        os.close(write_fd)
        raise
    finally:
        os.close(read_fd)
    return write_fd, watcher
