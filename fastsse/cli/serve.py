"""`fastsse serve`."""

import faulthandler
import signal
from typing import Any

import click

from fastsse.cli.flags import ServerCommand, given_flags, server_options
from fastsse.cli.starting import check_start
from fastsse.config import Config, ConfigError, load


@click.command(cls=ServerCommand)
@server_options
@click.pass_context
def serve(ctx: click.Context, /, file: str | None, **flags: Any) -> int:
    """Serve event streams and accept publishes, until a signal ends it.

    Options come from flags, then from the environment, then from a TOML file, then from their
    defaults. Durations are written 250ms, 10s, 1m30s; sizes 64KB, 1MiB. `fastsse config show`
    shows the origin of each value. SIGHUP (`fastsse reload`) reads the options again.
    """
    loaded = load(given_flags(ctx, flags), file)
    check_start(loaded)
    from fastsse import log
    from fastsse.server import run

    log.configure(loaded.config)
    # Written by the C library's handler, so that a loop that is stuck shows where.
    faulthandler.register(signal.SIGQUIT)
    for note in loaded.notes:
        log.get_logger("config").warning(note)

    def load_again() -> Config:
        again = load(given_flags(ctx, flags), file)
        for note in again.notes:
            log.get_logger("config").warning(note)
        return again.config

    try:
        return run(loaded.config, load_again, loaded.origin_of)
    except ConfigError as error:
        raise error.with_origins(loaded.origin_of) from None
