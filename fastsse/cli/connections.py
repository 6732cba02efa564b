"""`fastsse connections` and `fastsse kick`: who is connected, and the end of some of them."""

from collections.abc import Callable
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
from fastsse.cli.clientoptions import server_address

__all__ = ["COLUMNS", "connections", "kick"]

COLUMNS: dict[str, Callable[[Any], object]] = {
    "id": lambda row: row["id"],
    "address": lambda row: row["address"],
    "subject": lambda row: row["subject"],
    "state": lambda row: row["state"],
    "age": lambda row: age(row["age_s"]),
    "events": lambda row: row["events"],
    "sent": lambda row: size(row["bytes"]),
    "lag": lambda row: size(row["lag_bytes"]) if row["lag_bytes"] else "",
    "topics": lambda row: [*row["topics"], *(("…",) if row["more_topics"] else ())],
    "agent": lambda row: row["agent"],
}


def chosen(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options that choose connections."""
    for option in (
        click.option("--agent", metavar="TEXT", help="Whose user agent contains this."),
        click.option("--address", metavar="NETWORK", help="From this address or network."),
        click.option("--subject", metavar="SUB", help="Of this token subject (sub)."),
        click.option("--topic", metavar="TOPIC", help="That get events of this topic."),
    ):
        function = option(function)
    return function


@click.command()
@chosen
@click.option("--id", "stream", metavar="ID", help="The one with this id.")
@click.option("--blocked", is_flag=True, help="Whose client does not read what was sent.")
@limit_option
@as_json_option
@server_address
def connections(
    topic: str | None,
    subject: str | None,
    address: str | None,
    agent: str | None,
    stream: str | None,
    blocked: bool,
    limit: int,
    as_json: bool,
    url: str,
    uds: str | None,
    token: str | None,
) -> int:
    """List open connections of all workers and nodes.

    The token needs the claim fastsse.console; the console password is a token too. The id of a
    connection is the one in the log and in its own events.

    \b
    fastsse connections --topic news
    fastsse connections --blocked --json
    """
    wanted = {
        "topic": topic,
        "subject": subject,
        "address": address,
        "agent": agent,
        "id": stream,
        "state": "blocked" if blocked else None,
    }
    with AdminClient(url, uds, token) as client:
        pages = client.pages("/admin/connections", wanted, "connections", limit)
        answer = listed(pages, "connections")
    if as_json:
        show_json(answer)
    else:
        show_rows(answer["connections"], COLUMNS, ("age", "events", "sent", "lag"))
        if answer["next"] is not None:
            click.echo(f"There are more than {limit}; --limit shows them.", err=True)
    warn_missing(answer)
    return 0


@click.command()
@click.argument("stream", required=False, metavar="[ID]")
@chosen
@click.option("--retry", metavar="DURATION", help="When the clients may return, such as 5m.")
@click.option(
    "--bar",
    metavar="DURATION",
    help="Refuse all tokens of --subject for this time.",
)
@as_json_option
@server_address
def kick(
    stream: str | None,
    topic: str | None,
    subject: str | None,
    address: str | None,
    agent: str | None,
    retry: str | None,
    bar: str | None,
    as_json: bool,
    url: str,
    uds: str | None,
    token: str | None,
) -> int:
    """End connections: the one with ID, or all that the options choose.

    Clients reconnect, after --retry. With --bar they are refused then. The token needs
    fastsse.console with the value act. Exits with 1 if no connection was ended.

    \b
    fastsse kick 26d76bebc1b5d3d73a6d82779a5694f3
    fastsse kick --subject u7 --bar 10m
    """
    wanted = {"id": stream, "topic": topic, "subject": subject, "address": address, "agent": agent}
    if not any(wanted.values()):
        raise click.UsageError("ID is missing, or an option that chooses connections.")
    count, is_more = 0, True
    with AdminClient(url, uds, token) as client:
        while is_more:
            params = {**wanted, "retry": retry, "bar": bar}
            answer = client.ask("/admin/connections", params, "DELETE")
            count += answer["kicked"]
            is_more = answer["more"] and answer["kicked"]
    if as_json:
        show_json({**answer, "kicked": count})
    else:
        click.echo(f"{count} ended")
    warn_missing(answer)
    return 0 if count else 1
