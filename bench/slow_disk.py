"""A disk whose syncs take longer, for the server under test: a library put before the system's."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from bench.bare import NoCompiler

SOURCE = Path(__file__).with_name("slow_fsync.c")
BUILT = Path(__file__).parents[1] / "build" / "bench" / "slow_fsync.so"


@cache
def library() -> Path:
    """The built library; builds it when its source is newer.

    Raises:
        NoCompiler: neither $CC nor cc is there.
    """
    if not BUILT.exists() or BUILT.stat().st_mtime < SOURCE.stat().st_mtime:
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if compiler is None:
            raise NoCompiler("Slow syncs need a C compiler: set CC or install one.")
        BUILT.parent.mkdir(parents=True, exist_ok=True)
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(BUILT), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)
    return BUILT


def slow_syncs(delay_ms: float) -> dict[str, str]:
    """What a process's environment needs for each fsync and fdatasync to take so much longer."""
    return {"LD_PRELOAD": str(library()), "FSYNC_DELAY_US": str(round(delay_ms * 1000))}
