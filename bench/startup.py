"""`python -m bench.startup` (`make bench-startup`): what a short command costs before it works.

Each command and `python -c pass` take turns, so that a busy machine slows all of them. The ratio to
`python -c pass` is what can be compared between machines.
"""

from __future__ import annotations

import subprocess
import sys
import time
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median

import click
from rich.console import Console
from rich.table import Table

NOTHING = "python -c pass"
_KEY = "a key for this benchmark, 32 bytes long"
# Nothing listens there: the command loads all that it needs, tries once and ends.
_NOWHERE = ("--url", "http://127.0.0.1:9", "--patience", "0s")
_FASTSSE = (sys.executable, "-m", "fastsse")
COMMANDS = {
    NOTHING: (sys.executable, "-c", "pass"),
    "fastsse --version": (*_FASTSSE, "--version"),
    "fastsse token mint": (*_FASTSSE, "token", "mint", "--subscribe", "a", "--key", _KEY),
    "fastsse publish": (*_FASTSSE, "publish", *_NOWHERE, "topic", "data"),
}
STATUSES = {"fastsse publish": 3}


def used_s(name: str) -> tuple[float, float]:
    """Wall and CPU seconds of one run of a command, with its start and its end.

    Raises click.ClickException when it ends with another status than it should."""
    before, began_s = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(COMMANDS[name], capture_output=True, check=False)
    wall_s, after = time.perf_counter() - began_s, getrusage(RUSAGE_CHILDREN)
    if done.returncode != STATUSES.get(name, 0):
        raise click.ClickException(f"{name} ended with {done.returncode}: {done.stderr.decode()}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall_s, cpu_s


def measure(repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of each run, by command. The commands take turns."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, runs in taken.items():
            runs.append(used_s(name))
    return taken


def table(taken: dict[str, list[tuple[float, float]]]) -> Table:
    """Medians and spreads; ratios are those of the medians of CPU time."""
    shown = Table(title="Start-up", title_justify="left")
    for title in ("command", "wall ms (least, most)", "CPU ms (least, most)", "times pass"):
        shown.add_column(title, justify="left" if title == "command" else "right")
    base_s = median(cpu_s for _, cpu_s in taken[NOTHING])
    for name, runs in taken.items():
        walls, cpus = zip(*runs, strict=True)
        shown.add_row(name, _spread(walls), _spread(cpus), f"{median(cpus) / base_s:.1f}")
    return shown


def _spread(seconds: tuple[float, ...]) -> str:
    least, middle, most = (1000 * s for s in (min(seconds), median(seconds), max(seconds)))
    return f"{middle:.0f} ({least:.0f}, {most:.0f})"


@click.command()
@click.option("--repeats", default=11, show_default=True, type=click.IntRange(min=1))
def main(repeats: int) -> None:
    """Prints what short commands cost, as times and as ratios to `python -c pass`."""
    Console(width=None if Console().is_terminal else 200).print(table(measure(repeats)))


if __name__ == "__main__":
    main()
