"""Builds and runs the bare loop (bare_loop.c): what each figure is compared with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("bare_loop.c")
BUILT = Path(__file__).parents[1] / "build" / "bench" / "bare_loop"


class NoCompiler(Exception):
    """There is no C compiler, so nothing to compare with."""


@cache
def program() -> Path:
    """The built program; builds it when its source is newer.

    Raises:
        NoCompiler: neither $CC nor cc is there.
    """
    if not BUILT.exists() or BUILT.stat().st_mtime < SOURCE.stat().st_mtime:
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if compiler is None:
            raise NoCompiler("The bare loop needs a C compiler: set CC or install one.")
        BUILT.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([compiler, "-O2", "-o", str(BUILT), str(SOURCE)], check=True)
    return BUILT


def run(
    connections: int, rate: float, seconds: float, frame_bytes: int, cpus: tuple[int, int]
) -> dict[str, float]:
    """One run: `frame_bytes` to each of `connections` sockets, `rate` times a second.

    Args:
        cpus: the sender's core and the sink's; below 0: any.

    Returns:
        What bare_loop prints; `cpu_us_a_send` is the figure to compare with.
    """
    arguments = (connections, rate, seconds, frame_bytes, *cpus)
    done = subprocess.run(
        [str(program()), *map(str, arguments)], capture_output=True, check=True, text=True
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result
