"""`fastsse hub`."""

from typing import Any

import click

from fastsse.cli.flags import ServerCommand, given_flags, server_options
from fastsse.config import load


@click.command(cls=ServerCommand)
@click.option(
    "--socket", "path", metavar="PATH", required=True, help="The Unix socket for workers."
)
@server_options
@click.pass_context
def hub(ctx: click.Context, /, path: str, file: str | None, **flags: Any) -> int:
    """Order the events of several programs that call `fastsse.mount` with `hub_socket=PATH`, such
    as the workers of one uvicorn.

    It has the store and the history; it serves no HTTP, so options of listeners and streams belong
    to the programs. When it is started again, the programs keep their streams and reconnect.
    """
    loaded = load(given_flags(ctx, flags), file)
    from fastsse import log
    from fastsse.supervisor.hub_alone import run_hub_alone

    log.configure(loaded.config)
    for note in loaded.notes:
        log.get_logger("config").warning(note)
    return run_hub_alone(loaded.config, path)
