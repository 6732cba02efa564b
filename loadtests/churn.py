"""Opens and drops streams of new topics in rounds, and checks that the service's memory settles.

    python -m loadtests.churn                               # 40 rounds, a few minutes
    python -m loadtests.churn --rounds 700                  # about an hour
    python -m loadtests.churn --rounds 4 --topics 200       # to try it

Each round has topics of its own: a stream is opened to each, an event is published to each, and
all streams are dropped. History is small and full after two rounds. Memory then grows until each
process remembers its 100,000 topics without events (eight rounds of 13,500 topics), and is flat
from there on. Exit status 1 when memory rises by more than `--allowed` a round between the third
and the last quarter of the rounds.
"""

from __future__ import annotations

import contextlib
import functools
import http
import json
import statistics
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import click

from bench.server import Server
from loadtests.hold import stats, swarm, wait_for

LINES_A_BATCH = 500
TIMEOUT_S = 120
HISTORY = "8MiB"


def publish_to_all(server: Server, topics: list[str]) -> None:
    """One event to each topic, in batches."""
    for start in range(0, len(topics), LINES_A_BATCH):
        batch = topics[start : start + LINES_A_BATCH]
        lines = [json.dumps({"topic": topic, "data": "x" * 100}) for topic in batch]
        head = {"Content-Type": "application/x-ndjson"}
        url = server.url + "/events"
        request = urllib.request.Request(url, "\n".join(lines).encode(), head)
        wait_for("Publishing", functools.partial(_is_taken, request), TIMEOUT_S)


def _is_taken(request: urllib.request.Request) -> bool:
    """Whether a batch was published; False when a busy server asks to send it again."""
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        return False
    return True


def run_round(server: Server, number: int, topics: int, folder: Path) -> int:
    """Anonymous and shared memory of all processes (Pss) after the round, in bytes."""
    report = folder / f"{number}.json"
    with swarm(server.url, f"round-{number}/{{n}}", topics, report) as process:

        def are_open() -> bool:
            if process.poll() is not None:
                raise click.ClickException("The swarm ended early.")
            return bool(stats(server)["connections"] == topics)

        wait_for("Opening", are_open, TIMEOUT_S)
        publish_to_all(server, [f"round-{number}/{n}" for n in range(topics)])
        process.terminate()
        process.wait(TIMEOUT_S)
    wait_for("Closing", lambda: stats(server)["connections"] == 0, TIMEOUT_S)
    received = json.loads(report.read_text())["counters"]["events"]
    if received > topics:
        raise click.ClickException(f"Round {number}: {received} events for {topics} streams.")
    return server.memory()["pss"]


def growth_bytes(sizes: list[int]) -> float:
    """Bytes a round, between the medians of the third and of the last quarter."""
    quarter = max(1, len(sizes) // 4)
    third, last = sizes[-2 * quarter : -quarter], sizes[-quarter:]
    return (statistics.median(last) - statistics.median(third)) / quarter


@click.command(help=__doc__)
@click.option("--rounds", default=40, show_default=True, type=click.IntRange(4))
@click.option("--topics", default=13_500, show_default=True, type=click.IntRange(1))
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1))
@click.option("--allowed", default=256, show_default=True, help="KiB that a round may add.")
def main(rounds: int, topics: int, workers: int, allowed: int) -> None:
    options = ("--access-lines", "0", "--history-total", HISTORY, "--workers", str(workers))
    sizes = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Server(options=options))
        click.echo(f"idle: {server.memory()['pss'] / 1024:,.0f} KiB")
        for number in range(rounds):
            sizes.append(run_round(server, number, topics, folder))
            click.echo(f"round {number + 1}: {sizes[-1] / 1024:,.0f} KiB")
    growth = growth_bytes(sizes) / 1024
    click.echo(f"growth at the end: {growth:,.1f} KiB a round")
    if growth > allowed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
