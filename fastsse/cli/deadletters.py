"""`fastsse source dead-letters` and `replay`: messages that could not become events."""

import time
from collections.abc import Callable
from typing import Any

import click

from fastsse.cli.admincommand import AdminClient, as_json_option, show_json, show_rows, size
from fastsse.cli.clientoptions import server_address

__all__ = ["dead_letters", "replay"]

_LOOK_S = 0.2
_COLUMNS: dict[str, Callable[[Any], object]] = {
    "origin": lambda row: row["origin"],
    "why": lambda row: row["why"],
    "size": lambda row: size(row["bytes"]),
    "payload": lambda row: row["payload"],
}


@click.command("dead-letters")
@click.argument("name")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, metavar="N",
              help="Show the oldest so many.")  # fmt: skip
@as_json_option
@server_address
def dead_letters(
    name: str, limit: int, as_json: bool, url: str, uds: str | None, token: str | None
) -> int:
    """List the dead letters of the source NAME: where each comes from, and what is wrong with it.

    Exits with 3 if they can't be read.
    """
    with AdminClient(url, uds, token) as client:
        answer = client.ask("/admin/dead-letters", {"source": name, "limit": limit})
    if as_json:
        show_json(answer)
    else:
        show_rows(answer["letters"], _COLUMNS, ("size",))
    return _trouble(answer)


@click.command()
@click.argument("name")
@click.option("--limit", type=click.IntRange(1, 1_000_000), metavar="N",
              help="Try at most so many letters.")  # fmt: skip
@server_address
def replay(name: str, limit: int | None, url: str, uds: str | None, token: str | None) -> int:
    """Make the dead letters of the source NAME into events again, by the rule as it is now.

    A letter whose event is stored is removed, and one that still can't become an event stays. Exits
    with 0 if none stays of those that were tried, 1 if some do, 3 if they can't be read.
    """
    with AdminClient(url, uds, token) as client:
        params = {"source": name, "limit": limit}
        answer = client.ask("/admin/dead-letters", params, "POST")
        while answer["replay"] is not None and answer["replay"]["state"] == "running":
            time.sleep(_LOOK_S)
            answer = client.ask("/admin/dead-letters", {"source": name, "limit": 1})
    done = answer["replay"]
    if done is None:
        return _trouble(answer)
    click.echo(
        f"{done['events']} events, {done['filtered']} left out by the filter, "
        f"{done['set_aside']} still set aside."
    )
    return _trouble(done) or int(done["set_aside"] > 0)


def _trouble(answer: dict[str, Any]) -> int:
    if answer["trouble"] is None:
        return 0
    click.echo(f"The dead letters can't be read: {answer['trouble']}", err=True)
    return 3
