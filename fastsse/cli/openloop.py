"""`fastsse publish --rate`: an open loop; the data of each event says when it was due."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import click

from fastsse.cli.clientoptions import read_duration
from fastsse.client.errors import Unreachable
from fastsse.client.http import events_url

if TYPE_CHECKING:
    from rich.table import Table

    from fastsse.swarm import OpenLoop, SwarmResults

DEFAULT_SIZE_BYTES = 128
DEFAULT_DURATION_S = 10.0
PIPELINED_MIN = 8
PIPELINED_MAX = 64
UNDER_WAY_MS = 1
"""Requests may await answers on one connection, as many as are due in this time: so long an answer
takes on a server under load. With fewer a rate would not be reached; a server takes no more of one
connection at once, and all are lost with it."""
KNOCK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The values of `--rate` and its related options; None: not given.

    Attributes:
        rate: events a second.
        size: bytes of data in each event.
        duration: seconds for which events are due.
        connections: keep-alive connections that take events in turn.
    """

    rate: float | None
    size: int | None
    duration: float | None
    connections: int | None

    def companion_without_rate(self) -> str | None:
        """The first given option that needs `--rate`, if any."""
        given = {name: getattr(self, name) for name in ("size", "duration", "connections")}
        names = [name for name, value in given.items() if value is not None]
        return f"--{names[0]}" if names and self.rate is None else None


def pace_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--rate`, `--size`, `--duration` and `--connections`."""
    for option in (
        click.option(
            "--connections",
            type=click.IntRange(min=1),
            metavar="N",
            help="With --rate: keep-alive connections that take events in turn. On each as many "
            f"requests may await answers as are due in {UNDER_WAY_MS} ms, {PIPELINED_MIN} to "
            f"{PIPELINED_MAX}.  [default: 1]",
        ),
        click.option(
            "--duration",
            callback=read_duration,
            metavar="DURATION",
            help="With --rate: time for which events are due.  [default: 10s]",
        ),
        click.option(
            "--size",
            callback=_read_size,
            metavar="SIZE",
            help="With --rate: bytes of data in each event.  [default: 128]",
        ),
        click.option(
            "--rate",
            callback=_read_rate,
            metavar="RATE",
            help="Publish this many events a second, such as 1000 or 1000/s, without waiting for "
            "answers; the data of each event says when it was due.",
        ),
    ):
        function = option(function)
    return function


def pipelined(rate: float, connections: int) -> int:
    """How many requests may await answers on each of the connections of a run."""
    due = math.ceil(rate / connections * UNDER_WAY_MS / 1000)
    return max(PIPELINED_MIN, min(PIPELINED_MAX, due))


def _read_rate(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    from fastsse.swarm.command import read_rate

    try:
        rate = read_rate(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} {error}.", ctx, parameter) from None
    if rate <= 0:
        raise click.BadParameter("must be above 0.", ctx, parameter)
    return rate


def _read_size(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    from fastsse.units import parse_size_bytes

    if value is None:
        return None
    try:
        return parse_size_bytes(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} {error}.", ctx, parameter) from None


def publish_at_rate(
    pace: Pace,
    topic: str,
    query: dict[str, str | int | None],
    url: str,
    token: str | None,
    patience_s: float,
) -> int:
    """Publishes at a rate, prints the result, and returns the exit status.

    0: everything that was due was accepted; 1: something was refused or is unknown. Ctrl-C ends
    the run early, with its table.

    Args:
        query: fields of each event in addition to its data; None: left out.
        patience_s: seconds to wait for an unreachable server, and for the last answers.

    Raises:
        Refusal: the run can't be carried out as asked.
        Unreachable: no server could be reached in time.
    """
    from rich.console import Console

    from fastsse.swarm import OpenLoop, Schedule

    rate, connections = pace.rate or 0, pace.connections or 1
    loop_arguments = {name: value for name, value in query.items() if value is not None}
    schedule = Schedule(
        url=_with_query(url, loop_arguments),
        topics=(topic,),
        rate=rate,
        duration_s=DEFAULT_DURATION_S if pace.duration is None else pace.duration,
        size_bytes=DEFAULT_SIZE_BYTES if pace.size is None else pace.size,
        connections=connections,
        depth=pipelined(rate, connections),
        headers=() if token is None else (("Authorization", f"Bearer {token}"),),
        patience_s=patience_s,
    )
    OpenLoop(schedule)  # Refuses invalid combinations before it connects.
    _knock(url, patience_s)
    figures, interrupted = _run(OpenLoop(schedule))
    console = Console()
    for table in _tables(figures, schedule.rate):
        console.print(table)
    if interrupted:
        raise KeyboardInterrupt
    return 0 if figures["events_accepted"] == due_events(figures) else 1


def _with_query(url: str, fields: dict[str, str | int]) -> str:
    url = events_url(url)
    if not fields:
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(fields)}"


def _knock(url: str, patience_s: float) -> None:
    """Waits until the server accepts a connection, so that a wrong address is not measured."""
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 80)
    deadline = time.monotonic() + patience_s
    is_reported = False
    while True:
        try:
            socket.create_connection(address, timeout=max(1.0, patience_s)).close()
            return
        except OSError as error:
            what = f"{url}: {(error.strerror or str(error)).lower()}"
            if time.monotonic() >= deadline:
                raise Unreachable(f"{what}.") from error
        if not is_reported:
            click.echo(f"{what}; retrying for {patience_s:g} s", err=True)
            is_reported = True
        time.sleep(min(KNOCK_EVERY_S, max(0.0, deadline - time.monotonic())))


def _run(loop: OpenLoop) -> tuple[SwarmResults, bool]:
    """Runs in a thread, because a native loop would handle Ctrl-C only at its end."""
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        loop.stop()
        thread.join()
        return loop.figures(), True
    return loop.figures(), False


def due_events(figures: SwarmResults) -> int:
    """The number of due events, sent or not: a request has one event."""
    return figures["requests"] + figures["unsent"]


def _tables(figures: SwarmResults, rate: float) -> tuple[Table, Table]:
    from rich.table import Table

    from fastsse.swarm.report import measures_table

    taken_s = max(1e-6, (figures["ended_at_us"] - figures["started_at_us"]) / 1e6)
    counts = Table(title="fastsse publish", title_justify="left", show_header=False)
    refused = f"{figures['refused']:,}"
    if figures["refused"]:
        refused += f" (the last with status {figures['last_status']})"
    rows = {
        "due": f"{due_events(figures):,} ({rate:,.6g}/s)",
        "accepted": f"{figures['accepted']:,} ({figures['accepted'] / taken_s:,.6g}/s)",
        "refused": refused,
        "outcome unknown": f"{figures['unknown']:,}",
        "never sent": f"{figures['unsent']:,}",
        "publisher's CPU": f"{figures['cpu_us'] / 1e6 / taken_s:.0%} of a core",
    }
    for name, text in rows.items():
        counts.add_row(name, text)
    return counts, measures_table(figures.measures)
