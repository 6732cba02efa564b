"""What this machine allows a server: one value with everything read from /proc and /sys."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from fastsse.cgroups import Cgroup, read_cgroup
from fastsse.roots import Roots

UNLIMITED = 1 << 63
_CONNTRACK = "net.netfilter.nf_conntrack_"


@dataclass(frozen=True, slots=True)
class Machine:
    """Limits and sizes. None: can't be read here.

    `fd_soft` and `fd_hard` are those of the process that was looked at. `conntrack_loaded` is
    False when the kernel has no connection tracking.
    """

    fd_soft: int | None = None
    fd_hard: int | None = None
    nr_open: int | None = None
    file_max: int | None = None
    files_open: int | None = None
    somaxconn: int | None = None
    syn_backlog: int | None = None
    syncookies: int | None = None
    tcp_mem_pages: tuple[int, int, int] | None = None
    tcp_rmem_bytes: tuple[int, int, int] | None = None
    tcp_wmem_bytes: tuple[int, int, int] | None = None
    notsent_lowat_bytes: int | None = None
    ports: tuple[int, int] | None = None
    conntrack_loaded: bool = False
    conntrack_max: int | None = None
    conntrack_count: int | None = None
    memory_bytes: int | None = None
    memory_available_bytes: int | None = None
    page_bytes: int = 4096
    cores: int | None = None
    cgroup: Cgroup = field(default_factory=Cgroup)
    kernel: str = ""
    processor: str = ""


def read_machine(roots: Roots | None = None, process: str = "self") -> Machine:
    """Reads all of it; `process` is `self` or a process id, whose limits are taken.

    Never raises for what is missing.
    """
    roots = roots or Roots()
    folder = roots.proc / process
    soft, hard = _fd_limits(roots, folder)
    ports = roots.sysctl("net.ipv4.ip_local_port_range")
    file_nr = roots.sysctl("fs.file-nr")
    return Machine(
        fd_soft=soft,
        fd_hard=hard,
        nr_open=roots.sysctl_number("fs.nr_open"),
        file_max=roots.sysctl_number("fs.file-max"),
        files_open=file_nr[0] if file_nr else None,
        somaxconn=roots.sysctl_number("net.core.somaxconn"),
        syn_backlog=roots.sysctl_number("net.ipv4.tcp_max_syn_backlog"),
        syncookies=roots.sysctl_number("net.ipv4.tcp_syncookies"),
        tcp_mem_pages=roots.sysctl_triple("net.ipv4.tcp_mem"),
        tcp_rmem_bytes=roots.sysctl_triple("net.ipv4.tcp_rmem"),
        tcp_wmem_bytes=roots.sysctl_triple("net.ipv4.tcp_wmem"),
        notsent_lowat_bytes=roots.sysctl_number("net.ipv4.tcp_notsent_lowat"),
        ports=(ports[0], ports[1]) if ports and len(ports) == 2 else None,
        conntrack_loaded=(roots.proc / "sys/net/netfilter/nf_conntrack_max").exists(),
        conntrack_max=roots.sysctl_number(_CONNTRACK + "max"),
        conntrack_count=roots.sysctl_number(_CONNTRACK + "count"),
        memory_bytes=_meminfo_bytes(roots, "MemTotal"),
        memory_available_bytes=_meminfo_bytes(roots, "MemAvailable"),
        page_bytes=os.sysconf("SC_PAGE_SIZE"),
        cores=_cores(roots, folder),
        cgroup=read_cgroup(roots, folder),
        kernel=roots.text(roots.proc / "sys/kernel/osrelease") or "",
        processor=roots.field(roots.proc / "cpuinfo", "model name") or "",
    )


def _fd_limits(roots: Roots, folder: Path) -> tuple[int | None, int | None]:
    found = re.search(
        r"^Max open files +(\d+|unlimited) +(\d+|unlimited)",
        roots.text(folder / "limits") or "",
        re.MULTILINE,
    )
    if not found:
        return None, None
    soft, hard = (UNLIMITED if word == "unlimited" else int(word) for word in found.groups())
    return soft, hard


def _meminfo_bytes(roots: Roots, name: str) -> int | None:
    words = (roots.field(roots.proc / "meminfo", name) or "").split()
    return int(words[0]) * 1024 if words and words[0].isdecimal() else None


def _cores(roots: Roots, folder: Path) -> int | None:
    """The cores that the process may run on: `0-3,7`."""
    count = 0
    for part in (roots.field(folder / "status", "Cpus_allowed_list") or "").split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not found:
            return None
        first, last = int(found[1]), int(found[2] or found[1])
        count += last - first + 1
    return count or None
