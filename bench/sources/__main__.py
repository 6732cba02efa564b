"""`python -m bench.sources PART`: from Kafka to streams, each server on one core.

    backlog   messages that wait in Kafka are read and delivered: messages a second, CPU a message
    steady    messages come at a rate: the time from when one was due to its stream, and to a
              consumer that does nothing else
    lines     examples/logs: the time from a line of the application to the browser

The broker, the writer and the streams share the other core.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import click

from bench.__main__ import cores
from bench.sources import streaming
from bench.sources.broker import broker
from bench.sources.lines import in_chromium, in_stream, measure, said
from bench.sources.servers import OTHERS, RULES

SERVERS = (*RULES, *OTHERS)


@click.group(help=__doc__)
def main() -> None:
    pass


def _named(context: click.Context, option: click.Parameter, text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(SERVERS):
        raise click.BadParameter(f"{min(unknown)}: there are {', '.join(SERVERS)}")
    return names


_servers = click.option(
    "--servers",
    "names",
    default="data,logs,plain",
    show_default=True,
    callback=_named,
    help="In turn: rules of fastsse (data, json, logs), plain (aiokafka and sse-starlette), "
    "centrifugo.",
)
_broker = click.option(
    "--broker", "kind", default="tansu", show_default=True, type=click.Choice(["tansu", "kafka"])
)
_streams = click.option(
    "--streams",
    default=1000,
    show_default=True,
    type=click.IntRange(0),
    help="Each has a topic of its own; 0: into the log only (fastsse).",
)
_rounds = click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))


@main.command()
@_servers
@_broker
@_streams
@_rounds
@click.option("--messages", default=200_000, show_default=True, type=click.IntRange(1))
def backlog(names: list[str], kind: str, streams: int, rounds: int, messages: int) -> None:
    """Messages that wait in Kafka are read and delivered."""
    _run(names, kind, streams, rounds, lambda made: streaming.backlog(made, messages))


@main.command()
@_servers
@_broker
@_streams
@_rounds
@click.option("--rate", default=10_000.0, show_default=True, help="Messages a second.")
@click.option("--seconds", default=5.0, show_default=True)
def steady(
    names: list[str], kind: str, streams: int, rounds: int, rate: float, seconds: float
) -> None:
    """Messages come at a rate."""
    case: streaming.Case = lambda made: streaming.steady(made, rate, seconds)  # noqa: E731
    _run(names, kind, streams, rounds, case, compares=True)


@main.command()
@click.option("--rate", default=1000.0, show_default=True, help="Lines a second.")
@click.option("--seconds", default=10.0, show_default=True)
@click.option(
    "--viewer", default="chromium", show_default=True, type=click.Choice(["chromium", "stream"])
)
@click.option("--tansu", is_flag=True, help="Tansu and agent.py, also where Kafka's jars are.")
@_rounds
def lines(rate: float, seconds: float, viewer: str, tansu: bool, rounds: int) -> None:
    """From a line that the application of examples/logs writes to the list of its viewer."""
    look = in_chromium if viewer == "chromium" else in_stream
    samples = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            samples.append(said(measure(rate, seconds, look, Path(folder), tansu=tansu)))
    click.echo(f"{rate:,.0f} lines/s, {viewer}: {_said(samples)}")


def _run(
    names: list[str],
    kind: str,
    streams: int,
    rounds: int,
    measure: streaming.Case,
    *,
    compares: bool = False,
) -> None:
    samples: dict[str, list[streaming.Sample]] = {name: [] for name in names}
    server_cpu, client_cpu = cores()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with broker(kind, path, client_cpu) as running:
            for _ in range(rounds):
                for name in names:
                    cpus = (server_cpu, client_cpu)
                    case = (name, running, streams, path, cpus)
                    with streaming.opened(*case, compares=compares) as made:
                        samples[name].append(measure(made))
    for name, found in samples.items():
        click.echo(f"{name}: {_said(found)}")


def _said(samples: list[streaming.Sample]) -> str:
    parts = []
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        spread = f" ({min(values):,.4g} to {max(values):,.4g})" if len(values) > 1 else ""
        parts.append(f"{name} {statistics.median(values):,.4g}{spread}")
    return "; ".join(parts)


if __name__ == "__main__":
    main()
