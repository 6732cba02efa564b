"""`python -m bench.join OUT.json RUN.json…`: several short runs of one commit as one.

For machines that are free only for minutes. Runs of `python -m bench` must have different cases;
those of `python -m bench.peers` may have the same, whose samples then count as repeats.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bench.html.page import render
from bench.peers.cases import CASES, Run
from bench.peers.catalogue import PEERS
from bench.peers.report import Outcome, as_markdown, notes, results_of
from bench.report import write

_PATH = re.compile(r" --json[ =]\S+")


def joined(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One run of `python -m bench`.

    Raises:
        ValueError: a case stands in two of them, or they are of different machines or commits.
    """
    environment = _environment(runs)
    results = [result for run in runs for result in run["results"]]
    names = [result["name"] for result in results]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"in two runs: {', '.join(sorted(twice))}")
    said = list(dict.fromkeys(note for run in runs for note in run["notes"]))
    return {**runs[0], "environment": environment, "results": results, "notes": said}


def joined_peers(runs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], str]:
    """One run of `python -m bench.peers`, and its table. Raises ValueError as `joined` does."""
    environment = _environment(runs)
    outcomes: dict[tuple[str, str], Outcome] = {}
    for result in (result for run in runs for result in run["results"]):
        key = result["case"], result["peer"]
        one = outcomes.setdefault(key, Outcome(CASES[key[0]], PEERS[key[1]]))
        one.samples += result["samples"]
        one.failures += result["failures"]
    most = max(len(one.samples) for one in outcomes.values())
    how = Run(**{**runs[0]["run"], "repeats": most})
    peers = {name: facts for run in runs for name, facts in run["peers"].items()}
    whole = {
        **runs[0],
        "environment": environment,
        "run": asdict(how),
        "peers": peers,
        "results": results_of(outcomes),
        "notes": notes(how, outcomes, ()),
    }
    return whole, as_markdown(outcomes)


def _environment(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """That of the first; the commands of all, without the place of their output."""
    first = runs[0]["environment"]
    for name in ("cpu", "cores", "commit"):
        if len({run["environment"][name] for run in runs}) > 1:
            raise ValueError(f"the runs differ in: {name}")
    commands = [_PATH.sub("", run["environment"]["command"]) for run in runs]
    return {**first, "command": "; ".join(dict.fromkeys(commands))}


@click.command(help=__doc__)
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(out: Path, paths: tuple[Path, ...]) -> None:
    """Writes the whole run, and its table or page next to it."""
    runs = [json.loads(path.read_text()) for path in paths]
    try:
        if "peers" in runs[0]:
            whole, table = joined_peers(runs)
            out.with_suffix(".md").write_text(table)
        else:
            whole = joined(runs)
            out.with_suffix(".html").write_text(render(whole))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    write(out, whole)


if __name__ == "__main__":
    main()
