"""`fastsse swarm`: very many real SSE clients from one command."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from fastsse import units
from fastsse.swarm.plan import Plan
from fastsse.swarm.run import run

EPILOG = """
\b
Examples:
  fastsse swarm http://127.0.0.1:8080 --topic news --connections 10000
  fastsse swarm http://127.0.0.1:8080 --topic 'user/{n}' --topic news --connections 100000
  fastsse swarm http://127.0.0.1:8080 --topic news --connections 1000 --slow 10% --churn 50/s

Publish what it is to measure with `fastsse publish --rate`; the events then say when they were due.
"""


class _Read(click.ParamType[Any]):
    """A value with a unit."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)


def read_rate(text: str) -> float:
    """A number a second: `100`, `100/s`, `2.5/s`, `600/m`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/(s|m))?", text.strip())
    if found is None:
        raise ValueError("must be a rate such as 100/s")
    return float(found[1]) / (60 if found[2] == "m" else 1)


def read_share(text: str) -> float:
    """`10%` or `0.1`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text.strip())
    share = float(found[1]) / (100 if found[2] else 1) if found else 2.0
    if share > 1:
        raise ValueError("must be a share such as 10%")
    return share


def read_byte_rate(text: str) -> float:
    """`10KB/s`, `10KiB`."""
    return units.parse_size_bytes(text.strip().removesuffix("/s"))


def read_header(text: str) -> tuple[str, str]:
    """`Name: value`."""
    name, colon, value = text.partition(":")
    if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise ValueError("must be a header such as 'Authorization: Bearer …'")
    return name, value.strip()


def read_cpus(text: str) -> tuple[int, ...]:
    """`1`, `0,2`, `1-3`."""
    cpus: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise ValueError("must be cores such as 1 or 1-3")
        cpus += range(int(first), int(last or first) + 1)
    return tuple(cpus)


RATE = _Read("rate", read_rate)
SHARE = _Read("share", read_share)
DURATION = _Read("duration", units.parse_duration_s)
BYTE_RATE = _Read("bytes/s", read_byte_rate)
SIZE = _Read("size", units.parse_size_bytes)
HEADER = _Read("header", read_header)
CPUS = _Read("cores", read_cpus)


@click.command("swarm", epilog=EPILOG)
@click.argument("url")
@click.option(
    "--topic",
    "topics",
    multiple=True,
    help="Topic to subscribe to; repeatable. {n} is "
    "the connection's number, {n%100} its remainder, for topics of their own.",
)
@click.option(
    "--connections",
    "-c",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Streams to hold at once.",
)
@click.option(
    "--connect-rate",
    type=RATE,
    default="0",
    metavar="RATE",
    help="New connections a second, such as 5000/s.  [default: as fast as answers come]",
)
@click.option(
    "--max-opening",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Connections under way at once.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Processes.  [default: what descriptors and free cores ask for]",
)
@click.option(
    "--sources",
    multiple=True,
    metavar="NET",
    help="Addresses to connect from, such as "
    "127.0.1.0/24; repeatable.  [default: many of 127.1.0.0/16 to a loopback target]",
)
@click.option(
    "--cpus",
    type=CPUS,
    default=(),
    metavar="CORES",
    help="Cores for the processes, such as 1 or 2-3, apart from the server's.",
)
@click.option(
    "--duration",
    "-d",
    type=DURATION,
    default="30s",
    show_default=True,
    help="How long to hold them once all are open; 0: until interrupted.",
)
@click.option(
    "--slow",
    type=SHARE,
    default="0%",
    show_default=True,
    help="Share of the connections that never read.",
)
@click.option(
    "--slow-rate",
    type=BYTE_RATE,
    default="0",
    metavar="BYTES/S",
    help="Let the slow ones read this much a second.  [default: nothing]",
)
@click.option(
    "--slow-buffer",
    type=SIZE,
    default="0",
    metavar="SIZE",
    help="Their receive buffer.  [default: the kernel's]",
)
@click.option(
    "--churn",
    type=RATE,
    default="0",
    metavar="RATE",
    help="Streams that leave each second, each followed by a new visitor.",
)
@click.option(
    "--reconnect/--no-reconnect",
    default=True,
    show_default=True,
    help="Come back as a browser does: after retry:, with Last-Event-ID.",
)
@click.option(
    "--header",
    "headers",
    type=HEADER,
    multiple=True,
    help="Header of each request; repeatable; {n} works here too.",
)
@click.option(
    "--tokens",
    "tokens_path",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="A file with a token a line: each stream sends one of its own.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write the whole result here; - for standard output.",
)
@click.option(
    "--i-own-this-target",
    "own_target",
    is_flag=True,
    help="Allow a target that is not this machine.",
)
def command(
    url: str,
    duration: float,
    json_path: str | None,
    slow: float,
    slow_rate: float,
    slow_buffer: int,
    churn: float,
    reconnect: bool,
    **rest: Any,
) -> int:
    """Opens many real SSE streams to URL, holds them, and says what they got.

    Every stream is parsed whole; events are counted exactly, and gaps, repeats and order are judged
    by ids and by the counters that `fastsse publish --rate` puts into its events.
    """
    console = Console(stderr=json_path == "-")
    plan = Plan(
        url=url,
        slow_share=slow,
        slow_bytes_per_s=slow_rate,
        slow_buffer_bytes=slow_buffer,
        churn_rate=churn,
        reconnects=reconnect,
        **rest,
    )
    # What a shell runs in the background ignores SIGINT; SIGTERM ends it with its report too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = run(plan, duration, console)
    for table in report.tables():
        console.print(table)
    for warning in report.warnings():
        console.print(f"Note: {warning}", style="yellow")
    if json_path:
        _write(json_path, report.as_json())
    return 0 if report.figures["streams"] or report.peak.get("slow") else 1


def _write(path: str, result: dict[str, object]) -> None:
    text = json.dumps(result, indent=1) + "\n"
    if path == "-":
        sys.stdout.write(text)
    else:
        Path(path).write_text(text)
