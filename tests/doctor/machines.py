"""Made-up machines: folders that look like /proc and /sys."""

from pathlib import Path

from fastsse.doctor import Roots

GIB = 2**30

LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max open files            {soft:<20} {hard:<20} files
Max locked memory         8388608              8388608              bytes
"""

# A small virtual machine as it comes.
PLAIN = {
    "proc/sys/fs/nr_open": "1048576",
    "proc/sys/fs/file-max": "405000",
    "proc/sys/fs/file-nr": "1024\t0\t405000",
    "proc/sys/net/core/somaxconn": "4096",
    "proc/sys/net/ipv4/tcp_max_syn_backlog": "512",
    "proc/sys/net/ipv4/tcp_syncookies": "1",
    "proc/sys/net/ipv4/tcp_mem": "46500\t62000\t93000",
    "proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t6291456",
    "proc/sys/net/ipv4/tcp_wmem": "4096\t16384\t4194304",
    "proc/sys/net/ipv4/tcp_notsent_lowat": "4294967295",
    "proc/sys/net/ipv4/ip_local_port_range": "32768\t60999",
    "proc/sys/kernel/osrelease": "6.1.0-13-amd64",
    "proc/meminfo": "MemTotal:        4028000 kB\nMemAvailable:    3500000 kB\n",
    "proc/self/limits": LIMITS.format(soft=1024, hard=524288),
    "proc/self/status": "Name:\tfastsse\nCpus_allowed_list:\t0-1\n",
    "proc/self/cgroup": "0::/system.slice/fastsse.service\n",
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU\n",
}


def made_up(folder: Path, files: dict[str, str]) -> Roots:
    """Writes the files below `folder`."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Roots(folder / "proc", folder / "sys")
