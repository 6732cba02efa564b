"""How many descriptors the process may have, and how many of them streams may take."""

import contextlib
import errno
import fcntl
import os
import resource
from typing import Final, NamedTuple

from fastsse.config import ConfigError, OptionProblem

__all__ = ["Descriptors", "out_of_descriptors", "raise_soft_limit"]

# A container's limit may be 2**30; nobody means so many streams without saying so.
STREAMS_DEFAULT_MAX: Final = 1_000_000
RESERVE_MIN: Final = 256
# For the listeners, the sender, and what opens a descriptor now and then: files, resolvers, other
# libraries. An eighth of the limit within these bounds.
SPARE_MIN: Final = 12
SPARE_MAX: Final = 32
# Publishers and probes that can be connected whatever the streams.
REQUESTS_MIN: Final = 8
# What a program that embeds the server has open beyond these, streams do without.
OTHERS_IN_RESERVE: Final = 64
_ARGUMENT: Final = "an argument"


class Descriptors(NamedTuple):
    """`limit` descriptors in all, of which `max_connections` may be streams; the rest is for
    publishers, probes and files. `others` were open before either."""

    limit: int
    max_connections: int
    others: int

    @classmethod
    def plan(cls, max_connections: int) -> "Descriptors":
        """What the process's soft limit allows; 0 takes as many streams as that.

        Raises ConfigError when it does not allow `max_connections`.
        """
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        others = _open_count()
        held_back = _held_back(soft, others)
        carried = soft - held_back
        if carried < max(1, max_connections):
            raise ConfigError([_too_few(soft, carried, held_back, max_connections)])
        streams = max_connections or min(carried, STREAMS_DEFAULT_MAX)
        return cls(min(soft, streams + held_back), streams, others)

    def grow_table(self) -> None:
        """Has the kernel make room for all descriptors now: with threads running, each doubling
        of its table stops the whole process for some 20 ms. Costs 8 bytes each."""
        with contextlib.suppress(OSError), open(os.devnull) as file:
            os.close(fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, self.limit - 1))

    def requests_most(self, streams: int) -> int:
        """How many connections may be no streams while there are so many streams."""
        return self.limit - self.others - spare(self.limit) - streams


def reserve(limit: int) -> int:
    """Descriptors that streams leave alone: 1 %, at least 256, at most half."""
    return min(max(RESERVE_MIN, limit // 100), limit // 2)


def spare(limit: int) -> int:
    """Descriptors that neither streams nor requests take."""
    return min(max(SPARE_MIN, limit // 8), SPARE_MAX)


def _held_back(limit: int, others: int) -> int:
    """Descriptors that are not for streams, with `others` open already."""
    beyond = max(0, others - OTHERS_IN_RESERVE)
    return max(reserve(limit) + beyond, others + spare(limit) + REQUESTS_MIN)


def _too_few(limit: int, carried: int, held_back: int, max_connections: int) -> OptionProblem | str:
    how = "(ulimit -n, LimitNOFILE=, --ulimit nofile=)"
    if carried < 1:
        return (
            f"The limit of {limit} descriptors leaves none for streams, since {held_back} are "
            f"needed beside them; raise it {how}."
        )
    allowed = f"at most {carried} with a limit of {limit} descriptors; raise that {how}"
    return OptionProblem("max_connections", str(max_connections), _ARGUMENT, allowed)


def raise_soft_limit(max_connections: int) -> None:
    """Raises the process's soft limit to the hard one, as far as it can be used."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = (max_connections or STREAMS_DEFAULT_MAX) * 102 // 100 + 2 * RESERVE_MIN
    target = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if target > soft:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))


def out_of_descriptors(error: OSError) -> bool:
    """Whether the process or the machine has no descriptor, or no memory for one, left."""
    return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def _open_count() -> int:
    return len(os.listdir("/proc/self/fd"))
