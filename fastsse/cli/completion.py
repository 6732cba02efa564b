"""`fastsse completion`: a script with which a shell completes commands, options and values."""

import click
from click.shell_completion import get_completion_class

VARIABLE = "_FASTSSE_COMPLETE"
_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what a shell needs to complete commands.

    \b
    bash:  eval "$(fastsse completion bash)"      in ~/.bashrc
    zsh:   eval "$(fastsse completion zsh)"       in ~/.zshrc, after compinit
    fish:  fastsse completion fish > ~/.config/fish/completions/fastsse.fish
    """
    found = get_completion_class(shell)
    assert found is not None, "click has these three"
    click.echo(found(ctx.find_root().command, {}, "fastsse", VARIABLE).source())
