"""`fastsse token`: tokens for trying things out, and what a server thinks of one."""

from typing import Final

import click

from fastsse.cli import Commands

__all__ = ["token"]

COMMANDS: Final = {
    "mint": ("fastsse.cli.tokenmint", "mint", "Print a token for development."),
    "explain": ("fastsse.cli.tokenexplain", "explain", "Say what a token grants, and to whom."),
}


@click.group(cls=Commands, table=COMMANDS)
def token() -> None:
    """Make development tokens, and explain given ones."""
