"""Whether this machine can carry a run, and what to change when it can't."""

from __future__ import annotations

import resource
from pathlib import Path

from fastsse.swarm.refusal import Refusal

RESERVED_FDS = 64
"""For everything that is not a connection: epoll, the block, standard streams, Python's files."""

KERNEL_BYTES_A_SOCKET = 4096
"""An idle established TCP socket with its file and epoll entry."""

CLIENT_BYTES = 160
"""One entry of a swarm's table."""


def fds_a_process() -> int:
    """Descriptors that one process may have (the soft limit is raised to the hard one)."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = _number("/proc/sys/fs/nr_open", 1 << 20)
    return most if hard == resource.RLIM_INFINITY else min(hard, most)


def processes_needed(connections: int) -> int:
    """The fewest processes whose descriptors suffice."""
    return -(-connections // max(1, fds_a_process() - RESERVED_FDS))


def ports_a_source() -> int:
    """Ports that one source address has towards one server port."""
    text = _text("/proc/sys/net/ipv4/ip_local_port_range") or "32768 60999"
    first, last = map(int, text.split())
    return last - first + 1


def check(connections: int, processes: int, sources: int, *, both_ends: bool) -> None:
    """Raises a Refusal when descriptors, ports or memory can't carry the connections.

    Args:
        sources: source addresses that are bound; 0: one, which the kernel chooses.
        both_ends: whether the server's sockets are on this machine too.
    """
    _check_fds(connections, processes)
    _check_ports(connections, sources)
    _check_memory(connections, both_ends)


def _check_fds(connections: int, processes: int) -> None:
    most = fds_a_process()
    if -(-connections // processes) > most - RESERVED_FDS:
        raise Refusal(
            f"{connections:,} connections in {processes} process(es) need more than the {most:,} "
            "file descriptors that a process may have here. Use --processes "
            f"{processes_needed(connections)} or more, or raise the hard limit (ulimit -Hn)."
        )
    free = _number("/proc/sys/fs/file-max", 1 << 62) - _open_files()
    if connections > free:
        raise Refusal(
            f"{connections:,} connections need more files than the {free:,} that the whole machine "
            f"has left. Raise it: sysctl fs.file-max={2 * (connections + _open_files())}"
        )


def _check_ports(connections: int, sources: int) -> None:
    ports = ports_a_source()
    if connections <= ports * max(1, sources):
        return
    needed = -(-connections // ports)
    raise Refusal(
        f"{connections:,} connections need more than the {ports:,} ports that each of "
        f"{max(1, sources)} source address(es) has. Give {needed} or more with --sources "
        "(for a loopback IPv4 target any part of 127.0.0.0/8), or widen "
        "net.ipv4.ip_local_port_range."
    )


def _check_memory(connections: int, both_ends: bool) -> None:
    available = _available_bytes()
    needed = connections * (CLIENT_BYTES + KERNEL_BYTES_A_SOCKET * (2 if both_ends else 1))
    if available is not None and needed > available:
        raise Refusal(
            f"{connections:,} connections need about {needed >> 20:,} MiB"
            f"{' for both ends' if both_ends else ''}; {available >> 20:,} MiB are available. "
            f"Use --connections {connections * available // needed:,} or fewer."
        )


def _available_bytes() -> int | None:
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _open_files() -> int:
    text = _text("/proc/sys/fs/file-nr")
    return int(text.split()[0]) if text else 0


def _number(path: str, otherwise: int) -> int:
    text = _text(path)
    return int(text) if text else otherwise


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
