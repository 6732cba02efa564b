"""`fastsse top`: what a server does now, on a terminal, again and again."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from fastsse.cli.admincommand import (
    AdminClient,
    age,
    as_json_option,
    show_json,
    size,
    table_of,
)
from fastsse.cli.clientoptions import read_duration, server_address
from fastsse.cli.connections import COLUMNS

__all__ = ["top"]

_TOPIC_COLUMNS: dict[str, Callable[[Any], object]] = {
    "topic": lambda row: row["topic"],
    "streams": lambda row: row["subscribers"],
    "events/s": lambda row: f"{row['rate']:.1f}",
    "kept": lambda row: row["events"],
    "bytes": lambda row: size(row["bytes"]),
    "newest": lambda row: age(row["last_age_s"]) if "last_age_s" in row else "",
}
_BLOCKED = ("id", "address", "subject", "lag", "age", "sent", "topics")


@click.command()
@click.option(
    "--every",
    callback=read_duration,
    default="2s",
    show_default=True,
    metavar="DURATION",
    help="How often it is read.",
)
@click.option(
    "--count", "-n", type=click.IntRange(1), metavar="N", help="Stop after so many readings."
)
@click.option(
    "--rows",
    type=click.IntRange(1, 100),
    default=10,
    show_default=True,
    metavar="N",
    help="Topics and connections that are shown.",
)
@as_json_option
@server_address
def top(
    every: float,
    count: int | None,
    rows: int,
    as_json: bool,
    url: str,
    uds: str | None,
    token: str | None,
) -> None:
    """Show rates, the busiest topics, and clients that do not read, until Ctrl-C.

    With --json each reading is a line.
    """
    with AdminClient(url, uds, token) as client:
        if as_json:
            _repeat(every, count, lambda: show_json(_read(client, rows)))
            return
        with Live(console=Console(highlight=False), auto_refresh=False) as live:
            _repeat(every, count, lambda: live.update(_shown(_read(client, rows)), refresh=True))


def _repeat(every_s: float, count: int | None, act: Callable[[], None]) -> None:
    number = 0
    while True:
        act()
        number += 1
        if number == count:
            return
        time.sleep(every_s)


def _read(client: AdminClient, rows: int) -> dict[str, Any]:
    topics = client.ask("/admin/topics", {"sort": "rate", "limit": rows})
    blocked = client.ask("/admin/connections", {"state": "blocked", "limit": rows})
    return {
        "stats": client.ask("/stats"),
        "topics": topics["topics"],
        "blocked": blocked["connections"],
    }


def _shown(reading: Mapping[str, Any]) -> Group:
    stats = reading["stats"]
    rates, latency = stats["rates_per_s"], stats["latency_s"]
    line = (
        f"{stats['connections']:,} streams  {rates['connections']:,.0f} opened/s   "
        f"{rates['events_published']:,.0f} events in/s  {rates['deliveries']:,.0f} out/s  "
        f"{size(int(rates['bytes_sent']))}/s   p50 {_ms(latency['p50'])}  p99 {_ms(latency['p99'])}"
    )
    more = (
        f"{stats['blocked_connections']:,} blocked  largest lag {size(stats['lag_bytes'])}   "
        f"memory {size(stats['memory_bytes'])}  history {stats['history_events']:,} events   "
        f"workers {stats['workers']}"
    )
    blocked = {name: COLUMNS[name] for name in _BLOCKED}
    return Group(
        Text(line, style="bold"),
        Text(more),
        Text(),
        table_of(reading["topics"], _TOPIC_COLUMNS, ("streams", "events/s", "kept", "bytes")),
        Text(),
        table_of(reading["blocked"], blocked, ("lag", "age", "sent"))
        if reading["blocked"]
        else Text("All clients read what they are sent.", style="dim"),
    )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"<={seconds * 1000:g} ms"
