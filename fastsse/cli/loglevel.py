"""`fastsse log-level`: what is logged, changed while the server runs."""

import click

from fastsse.cli.admincommand import AdminClient, as_json_option, show_json, warn_missing
from fastsse.cli.clientoptions import server_address

__all__ = ["log_level"]

_LEVELS = ("debug", "info", "warning", "error")


@click.command("log-level")
@click.argument("level", required=False, type=click.Choice(_LEVELS), metavar="[LEVEL]")
@click.option(
    "--part", metavar="PART", help="Of one part only, such as access, http, redis or sources."
)
@as_json_option
@server_address
def log_level(
    level: str | None, part: str | None, as_json: bool, url: str, uds: str | None, token: str | None
) -> int:
    """Show the levels that are logged, or set LEVEL: debug, info, warning or error.

    It holds for all workers and nodes until they end; a reload sets the configured level again.

    \b
    fastsse log-level debug --part redis
    """
    with AdminClient(url, uds, token) as client:
        if level is None:
            answer = client.ask("/admin/log-level")
        else:
            answer = client.ask("/admin/log-level", {"level": level, "part": part}, "PUT")
    if as_json:
        show_json(answer)
    else:
        for name, one in answer["levels"].items():
            click.echo(f"{name} {one}")
    warn_missing(answer)
    return 0
