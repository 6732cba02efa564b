"""`python -m bench.keep OUT.txt COMMAND…`: keeps what a command printed, with the machine.

For the benchmarks that print a table and write no JSON. The file's head says what a figure means
nothing without: the command, its commit, the machine, and how many cores other programs used.
"""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any

import click

from bench.machine import busy_us, environment


def kept(command: tuple[str, ...]) -> tuple[str, int]:
    """The text of the file, and the exit status of the command.

    What it prints is shown at once, too. Other programs are all that used a core and were no child
    of the command, or left no one who waited for them.
    """
    at, started, busy, own = datetime.now(UTC), time.monotonic(), busy_us(), _children_s()
    facts = environment()
    words = [sys.executable if word == "python" else word for word in command]
    printed: list[str] = []
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        for line in run.stdout or ():
            click.echo(line, nl=False)
            printed.append(line)
    took_s = time.monotonic() - started
    others = max(0.0, (busy_us() - busy) / 1e6 - (_children_s() - own)) / took_s
    head = _head(at, command, facts, took_s, others, run.returncode)
    return f"{head}\n{''.join(printed)}", run.returncode


def _children_s() -> float:
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _head(
    at: datetime,
    command: tuple[str, ...],
    facts: dict[str, Any],
    took_s: float,
    others: float,
    status: int,
) -> str:
    lines = {
        "command": " ".join(command),
        "at": at.isoformat(timespec="seconds"),
        "commit": facts["commit"],
        "machine": f"{facts['cores']} cores of {facts['cpu']}, Linux {facts['kernel']}, "
        f"Python {facts['python']}",
        "took": f"{took_s:.0f} s",
        "other programs": f"{others:.2f} cores",
        "exit status": str(status),
    }
    return "".join(f"{name}: {value}\n" for name, value in lines.items())


@click.command(help=__doc__, context_settings={"ignore_unknown_options": True})
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def main(out: Path, command: tuple[str, ...]) -> None:
    """Writes the file, also of a command that failed; the exit status is the command's."""
    text, status = kept(command)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    sys.exit(status)


if __name__ == "__main__":
    main()
