"""`python -m bench` (`make bench`): the cases that the README gives figures for."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from bench.bare import NoCompiler, program
from bench.cases import CASES, Setup, run_cases
from bench.html.page import render
from bench.machine import environment
from bench.report import RESULTS, as_json, notes, tables, write


def cores() -> tuple[int, int]:
    """One core for the server and another for the clients, if there are two."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (-1, -1)


@click.command()
@click.argument("cases", nargs=-1, type=click.Choice(list(CASES)))
@click.option("--quick", is_flag=True, help="Small and short: shows that the cases run.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--server-cpu", default=cores()[0], show_default=True, help="-1: any.")
@click.option("--client-cpu", default=cores()[1], show_default=True, help="-1: any.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the JSON goes, the page next to it.  "
    "[default: bench/results/<date and time>.json; quick: nowhere]",
)
def main(
    cases: tuple[str, ...],
    quick: bool,
    repeats: int,
    server_cpu: int,
    client_cpu: int,
    json_path: Path | None,
) -> None:
    """Runs CASES (all of them when none is named) against a server of its own."""
    console = Console(width=None if Console().is_terminal else 200)
    setup = Setup(quick, 1 if quick else repeats, server_cpu, client_cpu)
    try:
        program()
    except NoCompiler as error:
        raise click.ClickException(str(error)) from error
    facts = environment()
    if client_cpu >= 0:
        os.sched_setaffinity(0, {client_cpu})
    results = []
    for result in run_cases(setup, list(cases)):
        results.append(result)
        name, unit = result.figure
        console.print(f"{result.title}: {result.median(name):,.4g} {unit}", highlight=False)
    for table in tables(results):
        console.print(table)
    for note in notes(setup, results):
        console.print(f"- {note}", highlight=False)
    if json_path is None and not quick:
        json_path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}.json"
    if json_path is not None:
        run = as_json(setup, results, facts)
        write(json_path, run)
        page = json_path.with_suffix(".html")
        page.write_text(render(run))
        console.print(f"Written to {json_path} and {page.name}", highlight=False)


if __name__ == "__main__":
    main()
