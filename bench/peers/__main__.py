"""`python -m bench.peers` (`make bench-peers`): the same cases on what users would pick instead."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from bench.__main__ import cores
from bench.load import Sample
from bench.peers.cases import CASES, Case, Run, measure
from bench.peers.catalogue import OURS, PEERS
from bench.peers.peer import Peer
from bench.peers.priority import PRIORITY, before_others
from bench.peers.quiet import Quiet
from bench.peers.report import Outcome, as_json, as_markdown, notes, table
from bench.report import RESULTS, write

QUIET_TIMEOUT_S = 30


def chosen(names: Sequence[str]) -> tuple[list[Peer], list[Peer]]:
    """The peers to measure, ours always among them, and those that are not installed here."""
    wanted = [peer for peer in PEERS.values() if not names or peer.name in (OURS.name, *names)]
    lacking = [peer for peer in wanted if peer.missing()]
    return [peer for peer in wanted if peer not in lacking], lacking


def compare(
    run: Run, cases: Sequence[Case], peers: Sequence[Peer]
) -> Iterator[tuple[Case, Peer, Sample | str]]:
    """All peers one after another in each case, so that what is compared is close in time."""
    quiet = Quiet(0 if run.quick else QUIET_TIMEOUT_S)
    for _ in range(run.repeats):
        for case in cases:
            for peer in peers:
                quiet.wait()
                yield case, peer, measure(case, run, peer)


def collected(
    run: Run, cases: Sequence[Case], peers: Sequence[Peer], console: Console
) -> dict[tuple[str, str], Outcome]:
    """All that the comparison came to; says each sample as it comes."""
    outcomes = {(case.name, peer.name): Outcome(case, peer) for case in cases for peer in peers}
    for case, peer, sample in compare(run, cases, peers):
        outcome = outcomes[case.name, peer.name]
        if isinstance(sample, str):
            outcome.failures.append(sample)
            said = sample
        else:
            outcome.samples.append(sample)
            said = ", ".join(f"{sample[f.name]:,.4g} {f.unit}" for f in case.figures)
        console.print(f"{case.name}, {peer.name}: {said}", markup=False)
    return outcomes


@click.command()
@click.argument("peers", nargs=-1, type=click.Choice(list(PEERS)))
@click.option("--case", "cases", multiple=True, type=click.Choice(list(CASES)), help="Only these.")
@click.option("--quick", is_flag=True, help="Small and short: shows that the cases run.")
@click.option("--repeats", default=1, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--retries",
    default=1,
    show_default=True,
    help="How often a sample that other processes disturbed is measured again.",
)
@click.option("--server-cpu", default=cores()[0], show_default=True, help="-1: any.")
@click.option("--client-cpu", default=cores()[1], show_default=True, help="-1: any.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the JSON goes, and the table next to it.  "
    "[default: bench/results/peers-<date and time>.json; quick: nowhere]",
)
def main(
    peers: tuple[str, ...],
    cases: tuple[str, ...],
    quick: bool,
    repeats: int,
    retries: int,
    server_cpu: int,
    client_cpu: int,
    json_path: Path | None,
) -> None:
    """Runs the cases on PEERS (all of them when none is named) and on fastsse."""
    console = Console(width=None if Console().is_terminal else 160, highlight=False)
    run = Run(quick, 1 if quick else repeats, 0 if quick else retries, server_cpu, client_cpu)
    installed, lacking = chosen(peers)
    for peer in lacking:
        console.print(f"Left out: {peer.title}. Install it with: {peer.install}", markup=False)
    if client_cpu >= 0:
        os.sched_setaffinity(0, {client_cpu})
    wanted = [CASES[name] for name in CASES if not cases or name in cases]
    with before_others(0 if quick else PRIORITY):
        outcomes = collected(run, wanted, installed, console)
    console.print(table(outcomes))
    for note in notes(run, outcomes, lacking):
        console.print(f"- {note}", markup=False)
    if json_path is None and not quick:
        json_path = RESULTS / f"peers-{datetime.now(UTC):%Y-%m-%d-%H%M%S}.json"
    if json_path is not None:
        command = " ".join(["python -m bench.peers", *sys.argv[1:]])
        write(json_path, as_json(run, outcomes, lacking, command))
        json_path.with_suffix(".md").write_text(as_markdown(outcomes))
        console.print(f"Written to {json_path}", markup=False)


if __name__ == "__main__":
    main()
