"""What a process sets up when it starts: memory, the number of workers, signals as descriptors."""

import contextlib
import gc
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Final

from fastsse.cgroups import read_cgroup
from fastsse.config.options import AUTO_WORKERS
from fastsse.roots import Roots

__all__ = ["SignalPipe", "settle_memory", "usable_cores", "worker_count"]

# Reference counts free nearly all young objects, so fewer searches for cycles save time.
GC_THRESHOLD: Final = 20_000


def settle_memory() -> None:
    """Excludes all present objects from later searches for cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])


def worker_count(workers: int, roots: Roots | None = None) -> int:
    """The option `workers` as a number."""
    return usable_cores(roots or Roots()) if workers == AUTO_WORKERS else workers


def usable_cores(roots: Roots) -> int:
    """Whole cores that this process may use: by its affinity and its control groups' quota."""
    cores = len(os.sched_getaffinity(0))
    quota = read_cgroup(roots, Path(roots.proc, "self")).cpus
    return cores if quota is None else max(1, min(cores, int(quota)))


_TAKEN: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class SignalPipe:
    """SIGTERM, SIGINT, SIGHUP and SIGCHLD as bytes in a pipe. Main thread only.

    Signals between two reads are all kept: a second SIGTERM is a second byte.
    """

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = {number: signal.signal(number, _ignore) for number in _TAKEN}
        self._wakeup_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)

    def fileno(self) -> int:
        """For a selector."""
        return self._read_fd

    def take(self) -> list[signal.Signals]:
        """The signals since the last read, in order."""
        with contextlib.suppress(BlockingIOError):
            return [signal.Signals(number) for number in os.read(self._read_fd, 4096)]
        return []

    def close(self) -> None:
        """Restores the earlier handlers."""
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read_fd)
        os.close(self._write_fd)


def _ignore(number: int, frame: FrameType | None) -> None:
    """The byte in the pipe is enough."""
