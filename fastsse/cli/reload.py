"""`fastsse reload`."""

import click

from fastsse.config import ConfigError, load
from fastsse.config.options import check_pid_path
from fastsse.supervisor.reloadsocket import ask_to_reload
from fastsse.units import parse_duration_s


@click.command()
@click.option(
    "--pidfile",
    metavar="PATH",
    help="The server's pid file.  [default: that of the server's configuration]",
)
@click.option("--config", "file", metavar="FILE", help="The server's TOML file.")
@click.option(
    "--timeout", default="1m", show_default=True, metavar="DURATION", help="Longest time to wait."
)
def reload(pidfile: str | None, file: str | None, timeout: str) -> int:
    """Make a running server read its configuration again.

    Workers are replaced one after another, and no client is refused in the meantime. An invalid
    configuration changes nothing. A server of one process applies the options that can change, and
    names the others.
    """
    try:
        patience_s = parse_duration_s(timeout)
        path = check_pid_path(pidfile) if pidfile is not None else load({}, file).config.pidfile
    except ConfigError:
        raise
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if path is None:
        raise click.UsageError(
            "The server is missing: give --pidfile, or --config with a pidfile in it."
        )
    click.echo(ask_to_reload(path, patience_s))
    return 0
