"""Builds and runs the bare loops, which figures are compared with: bare_loop.c for deliveries,
bare_publish.c for publishes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

BUILT = Path(__file__).parents[1] / "build" / "bench"


class NoCompiler(Exception):
    """There is no C compiler, so nothing to compare with."""


@cache
def program(name: str = "bare_loop") -> Path:
    """The built program; builds it when its source is newer.

    Raises:
        NoCompiler: neither $CC nor cc is there.
    """
    source, built = Path(__file__).with_name(f"{name}.c"), BUILT / name
    if not built.exists() or built.stat().st_mtime < source.stat().st_mtime:
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if compiler is None:
            raise NoCompiler("The bare loop needs a C compiler: set CC or install one.")
        built.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([compiler, "-O2", "-o", str(built), str(source)], check=True)
    return built


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
