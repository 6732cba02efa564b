"""What control groups allow a process: memory and CPU, of both versions.

A limit may sit on any group above the process, so every one up to the root counts. In a container
the path that the kernel names is often not there; then the mount's own root is the group.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fastsse.roots import Roots

# Version 1 says "no limit" with the largest number of pages.
_UNLIMITED = 1 << 62


@dataclass(frozen=True, slots=True)
class Cgroup:
    """`memory_limit_bytes` and `cpus`: None without a limit. `memory_used_bytes`: what counts
    against it and can't be dropped; None when unknown."""

    memory_limit_bytes: int | None = None
    memory_used_bytes: int | None = None
    cpus: float | None = None


def read_cgroup(roots: Roots, process: Path) -> Cgroup:
    """The limits on a process, given its folder of /proc."""
    memory: list[tuple[int, int | None]] = []
    cpus: list[float] = []
    for folder in _folders(roots, process, "memory"):
        found = _memory(roots, folder)
        if found is not None:
            memory.append(found)
    for folder in _folders(roots, process, "cpu"):
        share = _cpus(roots, folder)
        if share is not None:
            cpus.append(share)
    limit, used = min(memory, key=_left, default=(None, None))
    return Cgroup(limit, used, min(cpus, default=None))


def _left(group: tuple[int, int | None]) -> int:
    limit, used = group
    return limit - (used or 0)


def _folders(roots: Roots, process: Path, controller: str) -> Iterator[Path]:
    """The group's folder and those above it, in each hierarchy that may hold the controller."""
    mount = roots.sys / "fs/cgroup"
    for line in (roots.text(process / "cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield from _upwards(mount, path)
            yield from _upwards(mount / "unified", path)
        elif controller in controllers.split(","):
            yield from _upwards(mount / controller, path)


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    inside = PurePosixPath(path.lstrip("/"))
    if ".." in inside.parts:  # Outside of what this namespace shows.
        inside = PurePosixPath()
    for part in (inside, *inside.parents):
        yield mount / part


def _memory(roots: Roots, folder: Path) -> tuple[int, int | None] | None:
    limit = roots.number(folder / "memory.max")
    used = roots.number(folder / "memory.current")
    if limit is None:
        limit = roots.number(folder / "memory.limit_in_bytes")
        used = roots.number(folder / "memory.usage_in_bytes")
    if limit is None or limit >= _UNLIMITED:
        return None
    if used is not None:
        used = max(0, used - _droppable(roots, folder))
    return limit, used


def _droppable(roots: Roots, folder: Path) -> int:
    """Bytes of page cache that the kernel drops before it calls the group full."""
    for line in (roots.text(folder / "memory.stat") or "").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.isdecimal():
            return int(value)
    return 0


def _cpus(roots: Roots, folder: Path) -> float | None:
    words = (roots.text(folder / "cpu.max") or "").split()
    if len(words) == 2 and all(word.isdecimal() for word in words):
        quota, period = map(int, words)
    else:
        quota = roots.number(folder / "cpu.cfs_quota_us") or -1
        period = roots.number(folder / "cpu.cfs_period_us") or 0
    return quota / period if quota > 0 and period > 0 else None
