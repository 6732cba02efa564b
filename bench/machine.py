"""What a figure means nothing without: the machine, its kernel and settings, the versions."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fastsse.swarm.report import machine_facts

SYSCTLS = (
    *("net/core/somaxconn", "net/core/default_qdisc", "net/ipv4/tcp_mem", "net/ipv4/tcp_rmem"),
    *("net/ipv4/tcp_wmem", "net/ipv4/tcp_notsent_lowat", "net/ipv4/ip_local_port_range"),
    *("net/ipv4/ip_local_reserved_ports", "net/ipv4/tcp_max_syn_backlog", "fs/nr_open"),
)
PACKAGES = ("fastsse", "uvloop", "httptools", "orjson", "Cython")


def read(path: str) -> str:
    """A small file of /proc or /sys, empty when it is not there."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def busy_us() -> int:
    """CPU time that the whole machine has spent on anything but idling."""
    user, nice, system, _, _, irq, softirq, steal = map(int, read("/proc/stat").split()[1:9])
    return (user + nice + system + irq + softirq + steal) * 1_000_000 // os.sysconf("SC_CLK_TCK")


def kernel_bytes() -> int:
    """Slab and TCP buffer memory of the whole machine."""
    slab = next(
        int(line.split()[1]) * 1024
        for line in read("/proc/meminfo").splitlines()
        if line.startswith("Slab:")
    )
    pages = read("/proc/net/sockstat").split("TCP:")[1].split("mem ")[1].split()[0]
    return slab + int(pages) * 4096


def environment() -> dict[str, object]:
    """Fit for JSON."""
    return {
        **machine_facts(),
        "governor": read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "not shown",
        "smt": read("/sys/devices/system/cpu/smt/active") or "not shown",
        "mitigations": _mitigations(),
        "conntrack": "in use"
        if read("/proc/sys/net/netfilter/nf_conntrack_count")
        else "not in use",
        "network": "loopback: both ends on this machine, MTU " + read("/sys/class/net/lo/mtu"),
        "sysctl": {name.replace("/", "."): read(f"/proc/sys/{name}") for name in SYSCTLS},
        "fd_limit": _fd_limit(),
        "load_average": os.getloadavg()[0],
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "command": " ".join([Path(sys.executable).name, "-m", "bench", *sys.argv[1:]]),
        "system": platform.platform(),
    }


def _mitigations() -> dict[str, str]:
    root = Path("/sys/devices/system/cpu/vulnerabilities")
    return {path.name: read(str(path)) for path in sorted(root.glob("*"))}


def _fd_limit() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"
