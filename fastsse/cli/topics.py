"""`fastsse topics`: lists, ends and purges topics, deletes events."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import click

from fastsse.cli.admincommand import (
    AdminClient,
    age,
    as_json_option,
    limit_option,
    listed,
    show_json,
    show_rows,
    size,
    warn_missing,
)
from fastsse.cli.clientoptions import read_duration, server_address
from fastsse.client.errors import ClientError
from fastsse.client.publisher import Publisher

__all__ = ["topics"]

_PATIENCE = click.option(
    "--patience",
    callback=read_duration,
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="How long to wait for a server that is busy or not reachable.",
)
_TOPICS = click.argument("topics", nargs=-1, required=True, metavar="TOPIC...")


@click.group()
def topics() -> None:
    """List, end and purge topics; delete events.

    \b
    fastsse topics list 'run/*' --sort rate
    fastsse topics end run/1
    fastsse topics purge run/1
    fastsse topics delete run/1 1795304300442-1
    """


_COLUMNS: dict[str, Callable[[Any], object]] = {
    "topic": lambda row: row["topic"],
    "streams": lambda row: row["subscribers"],
    "events/s": lambda row: f"{row['rate']:.1f}",
    "kept": lambda row: row["events"],
    "bytes": lambda row: size(row["bytes"]),
    "newest": lambda row: age(row["last_age_s"]) if "last_age_s" in row else "",
    "state": lambda row: row["state"],
}


@topics.command("list")
@click.argument("pattern", required=False, metavar="[PATTERN]")
@click.option(
    "--sort",
    type=click.Choice(("name", "subscribers", "rate", "bytes", "events")),
    default="name",
    show_default=True,
    help="By name, or the largest first.",
)
@limit_option
@as_json_option
@server_address
def list_topics(
    pattern: str | None,
    sort: str,
    limit: int,
    as_json: bool,
    url: str,
    uds: str | None,
    token: str | None,
) -> int:
    """List topics with streams or kept events; `*` in PATTERN is any text.

    The token needs the claim fastsse.console; the console password is a token too.
    """
    asked = {"topic": pattern, "sort": sort}
    with AdminClient(url, uds, token) as client:
        answer = listed(client.pages("/admin/topics", asked, "topics", limit), "topics")
    if as_json:
        show_json(answer)
    else:
        show_rows(answer["topics"], _COLUMNS, ("streams", "events/s", "kept", "bytes"))
    warn_missing(answer)
    return 0


@topics.command()
@_TOPICS
@_PATIENCE
@server_address
def end(
    topics: tuple[str, ...], patience: float, url: str, uds: str | None, token: str | None
) -> int:
    """End each TOPIC: it takes no more events, and streams that follow nothing else are over.

    Prints the id of the end. A topic that has ended already stays as it is.
    """

    async def act(publisher: Publisher) -> None:
        for topic in topics:
            click.echo(await publisher.end_topic(topic))

    return _run(act, url, token, uds, patience)


@topics.command()
@_TOPICS
@_PATIENCE
@server_address
def purge(
    topics: tuple[str, ...], patience: float, url: str, uds: str | None, token: str | None
) -> int:
    """Delete all events of each TOPIC, also those that have other topics too.

    No read that begins later shows them. A topic that has ended stays so. Prints the id of the
    entry that says so.
    """

    async def act(publisher: Publisher) -> None:
        for topic in topics:
            click.echo(await publisher.purge_topic(topic))

    return _run(act, url, token, uds, patience)


@topics.command()
@click.argument("topic")
@click.argument("event_ids", nargs=-1, required=True, metavar="ID...")
@_PATIENCE
@server_address
def delete(
    topic: str,
    event_ids: tuple[str, ...],
    patience: float,
    url: str,
    uds: str | None,
    token: str | None,
) -> int:
    """Delete the events of TOPIC with each ID, in all their topics.

    No read that begins later shows them. Prints the ids of the entries that say so.
    """

    async def act(publisher: Publisher) -> None:
        for event_id in event_ids:
            click.echo(await publisher.delete_event(topic, event_id))

    return _run(act, url, token, uds, patience)


def _run(
    act: Callable[[Publisher], Awaitable[None]],
    url: str,
    token: str | None,
    uds: str | None,
    patience_s: float,
) -> int:
    async def run() -> None:
        async with Publisher(
            url, token=token, uds=uds, patience_s=patience_s, on_wait=_print_wait
        ) as publisher:
            await act(publisher)

    asyncio.run(run())
    return 0


def _print_wait(error: ClientError, wait_s: float) -> None:
    click.echo(f"{str(error).rstrip('.')}; retry in {wait_s:.1f} s", err=True)
