"""The command line. Each command is a module of its own, imported when it is called.

A new command is one line in COMMANDS and one module with a click command. `fastsse --help` imports
none of them, and `fastsse publish` nothing of the server.
"""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from fastsse.errors import FastsseError

# Name: (module, attribute, what `fastsse --help` says).
COMMANDS: Mapping[str, tuple[str, str, str]] = {
    "serve": ("fastsse.cli.serve", "serve", "Serve event streams and accept publishes."),
    "hub": ("fastsse.cli.hub", "hub", "Order the events of workers in other programs."),
    "reload": ("fastsse.cli.reload", "reload", "Have a server read its configuration again."),
    "publish": ("fastsse.cli.publish", "publish", "Publish events to a topic."),
    "topics": ("fastsse.cli.topics", "topics", "List, end and purge topics; delete events."),
    "schedule": (
        "fastsse.cli.schedule",
        "schedule",
        "List delayed events, or cancel them.",
    ),
    "listen": ("fastsse.cli.listen", "listen", "Show the events of topics as they arrive."),
    "connections": ("fastsse.cli.connections", "connections", "List open connections."),
    "kick": ("fastsse.cli.connections", "kick", "End connections."),
    "why": ("fastsse.cli.why", "why_command", "Say why a client receives nothing."),
    "top": ("fastsse.cli.top", "top", "Show what a server does now, again and again."),
    "log-level": ("fastsse.cli.loglevel", "log_level", "Show or change what a server logs."),
    "swarm": (
        "fastsse.swarm.command",
        "command",
        "Open very many streams and report what they received.",
    ),
    "source": ("fastsse.cli.source", "source", "List sources, or show what their messages become."),
    "history": ("fastsse.cli.history", "history", "Check, copy or trim a stored history."),
    "doctor": ("fastsse.cli.doctor", "doctor", "Check this machine, or the path to a server."),
    "proxy-config": (
        "fastsse.cli.proxyconfig",
        "proxy_config",
        "Print a configuration file for nginx, HAProxy or Caddy in front of the server.",
    ),
    "debug": ("fastsse.cli.debug", "debug", "Gather what a report of a fault needs."),
    "token": ("fastsse.cli.token", "token", "Make and explain tokens (JWT)."),
    "config": ("fastsse.cli.config", "config", "Show, check or begin a configuration."),
    "completion": (
        "fastsse.cli.completion",
        "completion",
        "Print what a shell needs to complete commands.",
    ),
}

EXIT_FAILED = 1
# What shells report for a program that a signal ended: 128 + its number.
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


class OutputClosed(Exception):
    """The reader of standard output has closed it."""


class Commands(click.Group):
    """A group whose commands are imported on demand.

    Arguments:
        table: the name of a command to its module, its attribute there, and its line of help.
    """

    def __init__(self, *given: Any, table: Mapping[str, tuple[str, str, str]], **more: Any) -> None:
        super().__init__(*given, **more)
        self._table = table

    def invoke(self, ctx: click.Context) -> object:
        """Runs a command. click alone would exit with status 1 on a closed pipe."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise OutputClosed from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of the table."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one."""
        if cmd_name not in self._table:
            return None
        module, attribute, _ = self._table[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does. An unknown command is an error that names the nearest one."""
        import difflib  # Only after a mistake: every command would import it.

        near = difflib.get_close_matches(args[0], self._table, n=1)
        if near and args[0] not in self._table and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in self._table.items()])


def _show_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from fastsse.facts import build_facts

    facts = build_facts()
    click.echo(f"fastsse {facts.pop('version')}")
    width = max(map(len, facts)) + 2
    for name, fact in facts.items():
        click.echo(f"{name:<{width}}{fact}")
    ctx.exit()


@click.group(
    cls=Commands,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and what it is built with.",
)
def fastsse() -> None:
    """Publish an event once, and stream it to all subscribers.

    \b
    fastsse serve
    fastsse listen news
    fastsse publish news hello
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit status of the process. Expected errors are one line
    each."""
    # httpx has a command line of its own, and leaves it out when it can't be imported. It would
    # load rich, a third of the start of `fastsse publish`.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    try:
        status = fastsse.main(arguments, prog_name="fastsse", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except (OutputClosed, BrokenPipeError):
        # The interpreter flushes standard output once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except FastsseError as error:
        # A configuration may have several.
        for problem in getattr(error, "problems", (error,)):
            click.echo(str(problem), err=True)
        return getattr(error, "exit_status", EXIT_FAILED)
