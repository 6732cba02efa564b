"""`fastsse listen`: shows the events of topics in the terminal, across reconnects."""

import asyncio
import sys
from typing import Any
from urllib.parse import urlsplit

import click

from fastsse.cli.clientoptions import read_duration, server_address
from fastsse.cli.eventlines import Printer, printer
from fastsse.cli.pages import show_pages
from fastsse.client.asyncclient import AsyncClient
from fastsse.client.listener import Listener
from fastsse.client.view import StreamView


@click.command()
@click.argument("topics", metavar="TOPIC...", nargs=-1)
@click.option(
    "--last", type=click.IntRange(min=0), metavar="N", help="Start with the newest N kept events."
)
@click.option(
    "--last-each",
    type=click.IntRange(min=1),
    metavar="N",
    help="Start with the newest N kept events of each topic.",
)
@click.option(
    "--since", metavar="TIME", help="Start at a time (RFC 3339) or a span before now (10m)."
)
@click.option(
    "--from",
    "last_event_id",
    metavar="ID",
    default="",
    help="Start after this id, or at `earliest`.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print an object a line: topic, id, event, data, meta, time.",
)
@click.option("--event", metavar="TYPES", default="", help="Only these types: tick,trade.")
@click.option("--filter", metavar="EXPR", help="Only events that match: 'data.price > 5'.")
@click.option(
    "--max-rate", type=float, metavar="N", help="At most N events a second of a topic and type."
)
@click.option("--deleted", is_flag=True, help="With events that report which events were deleted.")
@click.option("--until", metavar="TYPES", default="", help="End after an event of these types.")
@click.option("--until-data", metavar="TEXT", help="End after an event with this data.")
@click.option(
    "--wait",
    callback=read_duration,
    metavar="DURATION",
    help="Ask for pages instead of a stream: 0 prints what is kept and ends; 25s: long-polling.",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N events.")
@click.option("--once", is_flag=True, help="Do not reconnect.")
@server_address
def listen(topics: tuple[str, ...], as_json: bool, count: int | None, **given: Any) -> None:
    """Show the events of every TOPIC as they arrive, until Ctrl-C.

    Reconnects and resumes after the last event, as a browser does. On a terminal, events are
    formatted for reading; otherwise the data of each event is written unchanged. The state of the
    connection is written to standard error.

    \b
    fastsse listen news sport
    fastsse listen prices --last 1 --json | jq .data
    fastsse listen '*' --filter 'data.price > 5'
    """
    if not topics and not urlsplit(given["url"]).query:
        raise click.UsageError("TOPIC is missing (* is every topic).")
    output = printer(as_json, sys.stdout, sys.stderr)
    try:
        if given["wait"] is None:
            asks_envelopes = bool(topics) and output.reads_envelopes
            asyncio.run(_show(_listener(topics, given, output, asks_envelopes), output, count))
        else:
            _check_pages_usage(topics, given)
            asyncio.run(_show_pages(topics, given, output, count))
    except KeyboardInterrupt:
        return


def _listener(
    topics: tuple[str, ...], given: dict[str, Any], output: Printer, asks_envelopes: bool
) -> Listener:
    return Listener(
        given["url"],
        topics,
        last_event_id=given["last_event_id"],
        last=given["last"],
        last_each=given["last_each"],
        since=given["since"],
        view=_view(given, asks_envelopes),
        token=given["token"],
        uds=given["uds"],
        reconnect=not given["once"],
        on_state=output.state,
    )


def _view(given: dict[str, Any], asks_envelopes: bool) -> StreamView:
    return StreamView(
        event=_types(given["event"]),
        filter=given["filter"],
        envelope=asks_envelopes,
        max_rate=given["max_rate"],
        until=_types(given["until"]),
        until_data=given["until_data"],
        deleted=given["deleted"],
    )


def _check_pages_usage(topics: tuple[str, ...], given: dict[str, Any]) -> None:
    if not topics:
        raise click.UsageError("--wait needs TOPIC.")
    for name, is_given in (
        ("--last-each", given["last_each"] is not None),
        ("--deleted", given["deleted"]),
        ("--once", given["once"]),
    ):
        if is_given:
            raise click.UsageError(f"{name} can't be combined with --wait.")


async def _show_pages(
    topics: tuple[str, ...], given: dict[str, Any], output: Printer, count: int | None
) -> None:
    asked = {
        "topics": topics,
        "wait_s": given["wait"],
        "last_event_id": given["last_event_id"],
        "last": given["last"],
        "since": given["since"],
        "view": _view(given, asks_envelopes=False),
    }
    async with AsyncClient(given["url"], token=given["token"], uds=given["uds"]) as client:
        await show_pages(client, asked, output, count)


async def _show(listener: Listener, output: Printer, count: int | None) -> None:
    """Prints events until the stream is over, or `count` events are shown."""
    shown = 0
    async with listener:
        async for event in listener:
            output.event(event)
            shown += not event.is_control
            if shown == count:
                return


def _types(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()
