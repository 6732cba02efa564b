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
    help="The server's pid file.  [default: as the server's configuration says]",
)
@click.option("--config", "file", metavar="FILE", help="The server's TOML file.")
@click.option("--timeout", default="1m", show_default=True, metavar="DURATION")
def reload(pidfile: str | None, file: str | None, timeout: str) -> int:
    """Have a running server read its configuration anew.

    Workers are replaced one after another and nobody is refused meanwhile; a configuration that
    can't be used changes nothing. A server of one process applies what it can and names the rest.
    """
    try:
        patience_s = parse_duration_s(timeout)
        path = check_pid_path(pidfile) if pidfile is not None else load({}, file).config.pidfile
    except ConfigError:
        raise
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if path is None:
        raise click.UsageError("Say which server: --pidfile, or --config with a pidfile in it.")
    click.echo(ask_to_reload(path, patience_s))
    return 0
