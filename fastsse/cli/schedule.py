"""`fastsse schedule`: lists and cancels delayed events."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from fastsse.cli.admincommand import as_json_option, show_json, show_rows
from fastsse.cli.clientoptions import server_address
from fastsse.client.errors import Refused
from fastsse.client.publisher import Publisher

__all__ = ["schedule"]

T = TypeVar("T")
_NOT_FOUND = 404
_COLUMNS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "id": lambda row: row["id"],
    "deliver at": lambda row: _time(row["deliver_at_ms"]),
    "topics": lambda row: " ".join(row["topics"]),
    "not published": lambda row: row["reason"],
}


@click.group()
def schedule() -> None:
    """List delayed events, or cancel them.

    \b
    fastsse publish shop 'Sale!' --delay 2h
    fastsse schedule list
    fastsse schedule cancel 3f1d0c9e5b7a4c2f8d6e1a0b9c8d7e6f
    """


@schedule.command("list")
@as_json_option
@server_address
def list_events(as_json: bool, url: str, uds: str | None, token: str | None) -> int:
    """List the delayed events of topics that the token may publish to, the next one first.

    Behind them stand the newest 200 that could not be published, and why.
    """
    found = _with_publisher(lambda one: one.list_scheduled(), url, uds, token)
    rows = [dataclasses.asdict(event) for event in found]
    if as_json:
        show_json({"events": rows})
    else:
        show_rows(rows, _COLUMNS)
    return 0


@schedule.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@server_address
def cancel(ids: tuple[str, ...], url: str, uds: str | None, token: str | None) -> int:
    """Cancel the delayed events with each ID.

    Exits with 1 if one of them does not wait any more; the others are cancelled.
    """

    async def act(publisher: Publisher) -> list[str]:
        gone = []
        for entry_id in ids:
            try:
                await publisher.cancel(entry_id)
            except Refused as refused:
                if refused.status != _NOT_FOUND:
                    raise
                gone.append(entry_id)
        return gone

    gone = _with_publisher(act, url, uds, token)
    for entry_id in gone:
        click.echo(
            f"No delayed event with the id {entry_id} waits; see fastsse schedule list.", err=True
        )
    return int(bool(gone))


def _with_publisher(
    act: Callable[[Publisher], Awaitable[T]], url: str, uds: str | None, token: str | None
) -> T:
    async def run() -> T:
        async with Publisher(url, token=token, uds=uds) as publisher:
            return await act(publisher)

    return asyncio.run(run())


def _time(unix_ms: int) -> str:
    moment = datetime.fromtimestamp(unix_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
