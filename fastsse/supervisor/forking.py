"""Forks a child that ends with its parent."""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from fastsse.log import get_logger
from fastsse.supervisor.process_link import ProcessLink

__all__ = ["CRASHED", "Closable", "fork"]

log = get_logger("supervisor")
#: The exit status of a child that an exception ended (sysexits.h: EX_SOFTWARE).
CRASHED: Final = 70
# prctl(2).
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

_prctl = ctypes.CDLL(None, use_errno=True).prctl


class Closable(Protocol):
    """A resource that a child must not keep."""

    def close(self) -> None:
        """Closes the child's copy of the descriptor. The supervisor's stays open."""


def fork(
    name: str, run: Callable[[ProcessLink], int], others: Iterable[Closable], *, dies_with_us: bool
) -> tuple[int, ProcessLink]:
    """Starts a child that calls `run` with its end of a link and exits with the status returned.

    Arguments:
        name: the name in lists of processes; at most 15 bytes.
        others: the supervisor's own descriptors, such as its ends of other children's links.

        dies_with_us: whether it gets SIGTERM when the supervisor dies.

    The child ignores SIGINT, which a terminal sends to all, and SIGHUP. It never returns from here.
    Call it only while there is one thread. Raises OSError when there can be no more processes.
    """
    ours, theirs = ProcessLink.pair()
    parent = os.getpid()
    # Without this, a signal between the fork and the child's handlers would be handled twice.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        pid = os.fork()
        if pid == 0:
            _prepare(name, (ours, *others), dies_with_us, blocked)
            _live(name, parent, run, theirs)
    except BaseException:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()
    return pid, ours


def _prepare(
    name: str, others: Iterable[Closable], dies_with_parent: bool, mask: Iterable[int]
) -> None:
    """Turns the forked copy of the supervisor into a child."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)
    if dies_with_parent:
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for other in others:
        other.close()


def _live(name: str, parent: int, run: Callable[[ProcessLink], int], link: ProcessLink) -> None:
    """Runs the child from its start to its exit."""
    status = CRASHED
    try:
        # The supervisor may have died before this process asked to be notified.
        status = run(link) if os.getppid() == parent else CRASHED
    except BaseException:
        log.exception("A process ended by mistake.", child=name)
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        # Skips the supervisor's exit handlers and its stack.
        os._exit(status)
