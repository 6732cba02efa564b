"""`python -m bench.sources PART`: from Kafka to streams, each server on one core.

    backlog   messages that wait in Kafka are read and delivered: messages a second, CPU a message
    steady    messages come at a rate: the time from when one was due to its stream
    lines     examples/logs: the time from a line of the application to the browser

The broker, the writer and the streams share the other core.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bench.__main__ import cores
from bench.sources import streaming
from bench.sources.broker import LINGER_MS, broker
from bench.sources.lines import Span, in_chromium, in_stream, measure, said
from bench.sources.servers import OTHERS, RULES

SERVERS = (*RULES, *OTHERS)
BARE = "bare"


@click.group(help=__doc__)
def main() -> None:
    pass


def _named(context: click.Context, option: click.Parameter, text: str) -> list[str]:
    known = SERVERS if context.command.name == "backlog" else (*SERVERS, BARE)
    names = text.split(",")
    if unknown := set(names) - set(known):
        raise click.BadParameter(f"{min(unknown)}: there are {', '.join(known)}")
    return names


def _set(context: click.Context, option: click.Parameter, texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if any(not equals for _, equals, _ in pairs):
        raise click.BadParameter("NAME=VALUE")
    return {name: value for name, _, value in pairs}


_servers = click.option(
    "--servers",
    "names",
    default="data,logs,plain",
    show_default=True,
    callback=_named,
    help="In turn: rules of fastsse (data, json, logs), plain (aiokafka and sse-starlette), "
    "centrifugo. With steady also bare, a consumer that only looks at the clock.",
)
_linger = click.option(
    "--linger",
    "linger_ms",
    default=LINGER_MS,
    show_default=True,
    type=click.FloatRange(0),
    help="How many ms the writer collects messages of a partition.",
)
_settings = click.option(
    "--set",
    "settings",
    multiple=True,
    callback=_set,
    metavar="NAME=VALUE",
    help="A setting of librdkafka for fastsse and bare, such as fetch.wait.max.ms=10.",
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
@_linger
@_settings
@click.option("--messages", default=200_000, show_default=True, type=click.IntRange(1))
def backlog(messages: int, **terms: Any) -> None:
    """Messages that wait in Kafka are read and delivered."""
    _run(_Terms(**terms), lambda made: streaming.backlog(made, messages))


@main.command()
@_servers
@_broker
@_streams
@_rounds
@_linger
@_settings
@click.option("--rate", default=10_000.0, show_default=True, help="Messages a second.")
@click.option("--seconds", default=5.0, show_default=True)
def steady(rate: float, seconds: float, **terms: Any) -> None:
    """Messages come at a rate."""
    _run(_Terms(**terms), lambda made: streaming.steady(made, rate, seconds), (rate, seconds))


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
            samples.append(said(measure(rate, Span(seconds), look, Path(folder), tansu=tansu)))
    click.echo(f"{rate:,.0f} lines/s, {viewer}: {_said(samples)}")


@dataclass(frozen=True, slots=True)
class _Terms:
    names: Sequence[str]
    kind: str
    streams: int
    rounds: int
    linger_ms: float
    settings: Mapping[str, str]


def _run(terms: _Terms, case: streaming.Case, flow: tuple[float, float] = (0, 0)) -> None:
    """`flow`: the rate and the seconds of `bare`."""
    samples: dict[str, list[streaming.Sample]] = {name: [] for name in terms.names}
    server_cpu, client_cpu = cores()
    if client_cpu >= 0:
        os.sched_setaffinity(0, {client_cpu})  # This process is the writer.
    clients = streaming.Clients(terms.linger_ms, terms.settings)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with broker(terms.kind, path, client_cpu) as running:
            for _ in range(terms.rounds):
                for name in terms.names:
                    if name == BARE:
                        found = streaming.alone(running, server_cpu, clients, *flow)
                    else:
                        cpus = (server_cpu, client_cpu)
                        of = (name, running, terms.streams, path, cpus, clients)
                        with streaming.opened(*of) as made:
                            found = case(made)
                    samples[name].append(found)
    for name, rounds in samples.items():
        click.echo(f"{name}: {_said(rounds)}")


def _said(samples: list[streaming.Sample]) -> str:
    parts = []
    for name in dict.fromkeys(name for sample in samples for name in sample):
        values = [sample[name] for sample in samples if name in sample]
        spread = f" ({min(values):,.4g} to {max(values):,.4g})" if len(values) > 1 else ""
        parts.append(f"{name} {statistics.median(values):,.4g}{spread}")
    return "; ".join(parts)


if __name__ == "__main__":
    main()
