"""The options of the server as flags, made from their declarations."""

from collections.abc import Callable
from itertools import groupby
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from fastsse.config import Option, catalogue

FILE_HELP = "Read options from this TOML file.  [env: FASTSSE_CONFIG]"


class OptionFlag(click.Option):
    """A flag of one option. Values stay text, which the configuration parses."""

    def __init__(self, option: Option) -> None:
        is_switch = option.kind.metavar == ""
        super().__init__(
            [f"{option.flag}/--no-{option.flag[2:]}" if is_switch else option.flag, option.name],
            default=None,
            is_flag=is_switch,
            multiple=option.repeatable,
            type=click.BOOL if is_switch else click.STRING,
            metavar=None if is_switch else option.kind.metavar,
            help=f"{option.help}  [default: {option.default}; env: {option.variable}]",
        )
        self.option = option

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The words that a choice may be."""
        words = [word for word in self.option.choices if word.startswith(incomplete)]
        return list(map(CompletionItem, words)) or super().shell_complete(ctx, incomplete)


class ServerCommand(click.Command):
    """A command whose help shows the options of the server by group."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Other options first."""
        write_own_options(ctx, formatter, self.get_params(ctx))
        flags = [p for p in self.get_params(ctx) if isinstance(p, OptionFlag)]
        for group, members in groupby(flags, key=lambda flag: flag.option.group):
            _write_section(ctx, formatter, group, list(members))


def write_own_options(
    ctx: click.Context, formatter: click.HelpFormatter, parameters: list[click.Parameter]
) -> None:
    """Writes the options that do not belong to the server."""
    others = [one for one in parameters if not isinstance(one, OptionFlag)]
    _write_section(ctx, formatter, "Options", others)


def _write_section(
    ctx: click.Context, formatter: click.HelpFormatter, title: str, parameters: list[Any]
) -> None:
    records = [record for parameter in parameters if (record := parameter.get_help_record(ctx))]
    if records:
        with formatter.section(title):
            formatter.write_dl(records)


def server_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--config` and every option of the server."""
    click.option("--config", "file", metavar="FILE", help=FILE_HELP)(function)
    # click stores a list on the function, in reverse order.
    parameters: list[click.Parameter] = function.__click_params__  # type: ignore[attr-defined]
    parameters[:0] = [OptionFlag(option) for option in reversed(catalogue().values())]
    return function


def given_flags(ctx: click.Context, flags: dict[str, Any]) -> dict[str, Any]:
    """Those of `flags` that were given on the command line."""
    return {
        name: value
        for name, value in flags.items()
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
