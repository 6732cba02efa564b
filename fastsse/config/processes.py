"""Options of the service's processes."""

import os
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from fastsse.config.groups import OptionGroup, option
from fastsse.config.kinds import Kind, read_count

__all__ = ["AUTO_WORKERS", "ProcessOptions"]

#: The value of `workers` that stands for `auto`.
AUTO_WORKERS = 0
_WORKERS_MOST = 1024
# Beside the file there is a socket of the same name and `.sock`, and a socket's path has a bound.
_PID_PATH_LIMIT_BYTES = 102

WORKERS = Kind(
    "N",
    f"auto or a whole number from 1 to {_WORKERS_MOST}",
    lambda count: "auto" if count == AUTO_WORKERS else str(count),
)
PID_PATH = Kind("PATH", f"a path of 1 to {_PID_PATH_LIMIT_BYTES} bytes")


def read_workers(value: object) -> object:
    """`auto` or a number of at least 1."""
    if isinstance(value, str) and value.strip().lower() == "auto":
        return AUTO_WORKERS
    count = read_count(value)
    if not isinstance(count, int) or not 1 <= count <= _WORKERS_MOST:
        raise ValueError("must be auto or at least 1")
    return count


def check_pid_path(path: str) -> str:
    """A path that leaves room for the socket beside it."""
    if not path or "\0" in path or len(os.fsencode(path)) > _PID_PATH_LIMIT_BYTES:
        raise ValueError("must be a path")
    return path


class ProcessOptions(OptionGroup):
    """How many processes serve, and how they are found."""

    title = "Processes"

    workers: Annotated[int, BeforeValidator(read_workers), WORKERS] = option(
        "1",
        "Worker processes; auto is one for each core that the process may use. Above 1 there is "
        "a supervisor and a hub process too.",
    )
    pidfile: Annotated[str, AfterValidator(check_pid_path), PID_PATH] | None = option(
        None, "Write the process id here, for `fastsse reload`, which also uses PATH.sock."
    )
