"""`fastsse source list`, `pause` and `resume`: what sources read, and whether they do."""

from collections.abc import Callable
from typing import Any

import click

from fastsse.cli.admincommand import (
    AdminClient,
    age,
    as_json_option,
    show_json,
    show_rows,
    warn_missing,
)
from fastsse.cli.clientoptions import server_address

__all__ = ["list_sources", "pause", "resume"]

_COLUMNS: dict[str, Callable[[Any], object]] = {
    "name": lambda row: row["name"],
    "system": lambda row: row["system"],
    "state": lambda row: row["state"],
    "lag": lambda row: age(row["lag_ms"] / 1000),
    "backlog": lambda row: row["backlog"],
    "trouble": lambda row: row["trouble"] or _of_letters(row),
}


def _of_letters(row: Any) -> str | None:
    trouble = row.get("letters_trouble")
    return None if trouble is None else f"dead letters: {trouble}"


@click.command("list")
@as_json_option
@server_address
def list_sources(as_json: bool, url: str, uds: str | None, token: str | None) -> int:
    """List the sources of all nodes: state, lag, and what is wrong with each."""
    with AdminClient(url, uds, token) as client:
        _show(client.ask("/admin/sources"), as_json)
    return 0


@click.command()
@click.argument("name")
@as_json_option
@server_address
def pause(name: str, as_json: bool, url: str, uds: str | None, token: str | None) -> int:
    """Stop reading the source NAME on all nodes, after the present batch.

    It lasts until `fastsse source resume` or the end of the server. The messages wait in the other
    system; one that keeps none loses them.
    """
    with AdminClient(url, uds, token) as client:
        _show(client.ask("/admin/sources", {"source": name, "paused": "true"}, "PUT"), as_json)
    return 0


@click.command()
@click.argument("name")
@as_json_option
@server_address
def resume(name: str, as_json: bool, url: str, uds: str | None, token: str | None) -> int:
    """Read the source NAME again, which was paused, from where it was."""
    with AdminClient(url, uds, token) as client:
        _show(client.ask("/admin/sources", {"source": name, "paused": "false"}, "PUT"), as_json)
    return 0


def _show(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(answer)
    else:
        show_rows(answer["sources"], _COLUMNS, ("lag", "backlog"))
    warn_missing(answer)
