"""`python -m fastsse.swarm.leader`: forks a run's processes, waits for them, ends with its parent.

A process of its own because forking is only safe from one thread, which the caller (a test runner,
a Locust worker, a program with an event loop) can't promise. The memory of the interpreter is
shared by the forked processes, so that fifty of them cost little more than one.

It reads its job, one line, from standard input. When standard input ends, whatever the reason, the
run ends.
"""

from __future__ import annotations

import gc
import mmap
import os
import resource
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from fastsse.swarm._swarm import BLOCK_BYTES, Swarm
from fastsse.swarm.job import STRIDE_BYTES, decode_job
from fastsse.swarm.tokens import tokens_of


def _work(share: Mapping[str, Any], block: memoryview, cpu: int | None, parent: int) -> None:
    """One process's life; never returns."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leader's parent decides
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        arguments = dict(share)
        if (path := arguments.pop("tokens_path")) is not None:
            own = tokens_of(path, arguments["first_number"], arguments["connections"])
            arguments["values"] = own
        Swarm(block, parent_pid=parent, **arguments).run()
        status = 0
    except (OSError, ValueError, MemoryError) as error:
        print(f"fastsse swarm: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def _fork(shares: Sequence[Mapping[str, Any]], memory: mmap.mmap, cpus: Sequence[int]) -> list[int]:
    view = memoryview(memory)
    gc.freeze()
    children = []
    leader = os.getpid()
    for number, share in enumerate(shares):
        child = os.fork()
        if child == 0:
            start = number * STRIDE_BYTES
            cpu = cpus[number % len(cpus)] if cpus else None
            _work(share, view[start : start + BLOCK_BYTES], cpu, leader)
        children.append(child)
    return children


def _stop_all(memory: mmap.mmap, count: int) -> None:
    words = memoryview(memory).cast("Q")
    for number in range(count):
        words[number * STRIDE_BYTES // 8] = 1


def _wait(children: Sequence[int], memory: mmap.mmap) -> int:
    """Until all have ended: after the order from standard input, or when one of them fails."""
    poll = select.poll()
    waiting = {os.pidfd_open(child): child for child in children}
    for descriptor in (0, *waiting):
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
    failed = 0
    while waiting:
        for descriptor, _ in poll.poll():
            poll.unregister(descriptor)
            if descriptor in waiting:
                _, status = os.waitpid(waiting.pop(descriptor), 0)
                failed = failed or os.waitstatus_to_exitcode(status)
            if descriptor == 0 or failed:
                _stop_all(memory, len(children))
    return 1 if failed else 0


def main() -> int:
    """Returns 0 when every process ended as ordered."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    memory_fd, shares, cpus = decode_job(os.fdopen(0, "rb", buffering=0, closefd=False).readline())
    memory = mmap.mmap(memory_fd, STRIDE_BYTES * len(shares))
    return _wait(_fork(shares, memory, cpus), memory)


if __name__ == "__main__":
    sys.exit(main())
