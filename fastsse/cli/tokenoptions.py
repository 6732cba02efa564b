"""Shared by the commands of `fastsse token`: the server's options for tokens."""

from collections.abc import Callable
from typing import Any

import click

from fastsse.cli.flags import FILE_HELP, OptionFlag, ServerCommand, write_own_options
from fastsse.config import TokenOptions, catalogue

__all__ = ["TokenCommand", "rights_options"]


class TokenCommand(ServerCommand):
    """A command whose help shows only its own options. The many options of the server are shown
    elsewhere."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes its own options, and where the others are shown."""
        write_own_options(ctx, formatter, self.get_params(ctx))
        formatter.write_paragraph()
        formatter.write_text(
            "The server's options about tokens (--jwt-key and others, with their variables) are "
            "taken too; `fastsse serve --help` shows them."
        )


def rights_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command `--config` and the server's options about tokens."""
    click.option("--config", "file", metavar="FILE", help=FILE_HELP)(function)
    parameters: list[click.Parameter] = function.__click_params__  # type: ignore[attr-defined]
    options = [one for one in catalogue().values() if one.group == TokenOptions.title]
    parameters[:0] = [OptionFlag(option) for option in reversed(options)]
    return function
