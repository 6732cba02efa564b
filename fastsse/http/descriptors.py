"""How many file descriptors the process may have, and how many of them streams may use."""

import contextlib
import errno
import fcntl
import os
import resource
from typing import Final, NamedTuple

from fastsse.config import ConfigError, OptionProblem, TlsOptions
from fastsse.limits import RESERVE_MIN, STREAMS_DEFAULT_MAX, reserved_descriptors

__all__ = ["Descriptors", "of_a_stream", "out_of_descriptors", "raise_soft_limit"]

# For the listeners, the sender, files, resolvers and other libraries. An eighth of the limit within
# these bounds.
SPARE_MIN: Final = 12
SPARE_MAX: Final = 32
# Publishers and probes that can connect at any number of streams.
REQUESTS_MIN: Final = 8
# Descriptors above this number that an embedding program has open reduce the streams.
OTHERS_IN_RESERVE: Final = 64
_ARGUMENT: Final = "an argument"


class Descriptors(NamedTuple):
    """`limit` descriptors in total, of which `max_connections` may be streams. The rest is for
    publishers, probes and files: `held_back`. `others` were open before. A stream, and any other
    connection, takes `each` of them; a stream whose records the sender seals gives all but `least`
    back."""

    limit: int
    max_connections: int
    others: int
    each: int = 1
    least: int = 1
    held_back: int = 0

    @classmethod
    def plan(cls, max_connections: int, each: int = 1, least: int = 0) -> "Descriptors":
        """Plans for the soft limit of the process; 0 uses as many streams as fit if each of them
        takes `least`. `streams_left` says how many fit with those that are open.

        Raises ConfigError when the limit does not allow `max_connections`.
        """
        least = least or each
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        others = _open_count()
        held_back = _held_back(soft, others)
        carried = (soft - held_back - (each - least)) // least
        if carried < max(1, max_connections):
            raise ConfigError([_too_few(soft, carried, held_back, max_connections)])
        streams = max_connections or min(carried, STREAMS_DEFAULT_MAX)
        limit = min(soft, each * streams + held_back)
        return cls(limit, streams, others, each, least, held_back)

    def grow_table(self) -> None:
        """Makes the kernel grow its descriptor table now. While threads run, each doubling of the
        table stops the whole process for about 20 ms. Costs 8 bytes a descriptor."""
        with contextlib.suppress(OSError), open(os.devnull) as file:
            os.close(fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, self.limit - 1))

    def streams_left(self, streams: int, sealed: int = 0) -> int:
        """How many more streams may open while `streams` are open, `sealed` of which take `least`
        descriptors."""
        free = self.limit - self.held_back - self._taken(streams, sealed)
        return min(self.max_connections - streams, free // self.each)

    def requests_most(self, streams: int, sealed: int = 0) -> int:
        """How many other connections may be open while so many streams are open."""
        free = self.limit - self.others - spare(self.limit) - self._taken(streams, sealed)
        return free // self.each

    def _taken(self, streams: int, sealed: int) -> int:
        return self.each * (streams - sealed) + self.least * sealed


def spare(limit: int) -> int:
    """Descriptors that neither streams nor requests use."""
    return min(max(SPARE_MIN, limit // 8), SPARE_MAX)


def _held_back(limit: int, others: int) -> int:
    """Descriptors that streams can't use, with `others` open already."""
    beyond = max(0, others - OTHERS_IN_RESERVE)
    return max(reserved_descriptors(limit) + beyond, others + spare(limit) + REQUESTS_MIN)


def _too_few(limit: int, carried: int, held_back: int, max_connections: int) -> OptionProblem | str:
    how = "(ulimit -n, LimitNOFILE=, --ulimit nofile=)"
    if carried < 1:
        return (
            f"A limit of {limit} descriptors leaves none for streams: {held_back} are "
            f"needed for other files. Raise the limit {how}."
        )
    allowed = f"at most {carried} with a limit of {limit} descriptors; raise that {how}"
    return OptionProblem("max_connections", str(max_connections), _ARGUMENT, allowed)


def of_a_stream(options: TlsOptions) -> tuple[int, int]:
    """The most and the fewest descriptors of a stream. With TLS both ends of a socket pair belong
    to it, until the door lets OpenSSL go."""
    if not options.tls_cert:
        return 1, 1
    return 3, 1 if options.tls_records == "native" else 3


def raise_soft_limit(max_connections: int, each: int = 1) -> None:
    """Raises the soft limit of the process to the hard limit, as far as the server can use it for
    streams of `each` descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = (each * max_connections or STREAMS_DEFAULT_MAX) * 102 // 100 + 2 * RESERVE_MIN
    target = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if target > soft:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))


def out_of_descriptors(error: OSError) -> bool:
    """Whether the error means that the process or the machine is out of descriptors, or of memory
    for one."""
    return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def _open_count() -> int:
    return len(os.listdir("/proc/self/fd"))
