"""How many workers `auto` means."""

import os
from pathlib import Path

from fastsse.config.processes import AUTO_WORKERS
from fastsse.doctor.cgroups import read_cgroup
from fastsse.doctor.roots import Roots

__all__ = ["usable_cores", "worker_count"]


def worker_count(workers: int, roots: Roots | None = None) -> int:
    """The option `workers` as a number."""
    return usable_cores(roots or Roots()) if workers == AUTO_WORKERS else workers


def usable_cores(roots: Roots) -> int:
    """Whole cores that this process may use: by its affinity and its control groups' quota."""
    cores = len(os.sched_getaffinity(0))
    quota = read_cgroup(roots, Path(roots.proc, "self")).cpus
    return cores if quota is None else max(1, min(cores, int(quota)))
