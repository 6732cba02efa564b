"""`fastsse config`: the configuration of a server, the origin of each value, a file to begin
with, and the schema of such files."""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from fastsse.cli.flags import ServerCommand, given_flags, server_options
from fastsse.cli.starting import check_start
from fastsse.config import Loaded, catalogue, load, markdown_table
from fastsse.config.catalogue import TABLES, shown_rule
from fastsse.config.errors import DEFAULT
from fastsse.config.filetext import commented_file, schema_text
from fastsse.config.tomltext import toml_text


@click.group()
def config() -> None:
    """Show, check or begin a configuration."""


def _given_file(file: str | None, path: str | None) -> str | None:
    """The file of `--config`, or of the argument that is the same."""
    if file is not None and path is not None:
        raise click.UsageError("Give the file either as an argument or with --config.")
    return path if file is None else file


@config.command(cls=ServerCommand)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@server_options
@click.argument("path", metavar="[FILE]", required=False)
@click.pass_context
def show(
    ctx: click.Context, /, file: str | None, path: str | None, as_json: bool, **flags: Any
) -> None:
    """Show each value and its origin; secrets are masked.

    FILE is the same as `--config FILE`. Accepts the flags of `fastsse serve`, to show their effect.
    """
    loaded = load(given_flags(ctx, flags), _given_file(file, path))
    click.echo(_as_json(loaded) if as_json else _as_text(loaded))
    _warn(loaded)


@config.command(cls=ServerCommand)
@server_options
@click.argument("path", metavar="[FILE]", required=False)
@click.pass_context
def check(ctx: click.Context, /, file: str | None, path: str | None, **flags: Any) -> None:
    """Print every problem, one a line, and exit with 2 if there is any.

    FILE is the same as `--config FILE`. Reports the same problems as `fastsse serve`: it reads the
    file of a key set, and checks the descriptor limit of this shell. It opens no store and no
    socket.
    """
    loaded = load(given_flags(ctx, flags), _given_file(file, path))
    check_start(loaded)
    _warn(loaded)
    click.echo(
        "The configuration is valid, with warnings."
        if loaded.notes
        else "The configuration is valid."
    )


@config.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("fastsse.toml"))
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def init(path: Path, force: bool) -> None:
    """Write a configuration file with every option as a comment, to PATH (fastsse.toml).

    `-` writes to standard output.
    """
    text = commented_file()
    if path == Path("-"):
        click.echo(text, nl=False)
        return
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise click.ClickException(f"{path} exists; --force replaces it") from None
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    click.echo(f"{path} has every option; use it with: fastsse serve --config {path}")


@config.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of configuration files, for editors that complete TOML."""
    click.echo(schema_text(), nl=False)


@config.command(hidden=True)
def table() -> None:
    """The reference's table of options."""
    click.echo(markdown_table(), nl=False)


def _shown(loaded: Loaded) -> dict[str, str]:
    return {name: option.show(getattr(loaded.config, name)) for name, option in catalogue().items()}


def _as_json(loaded: Loaded) -> str:
    values = {
        name: {"value": value, "from": loaded.origins[name]}
        for name, value in _shown(loaded).items()
    }
    return json.dumps(values, indent=2, ensure_ascii=False)


def _as_text(loaded: Loaded) -> str:
    shown = _shown(loaded)
    for table in TABLES:
        rules = getattr(loaded.config, table)
        if rules:
            shown[table] = f"{len(rules)} {'rule' if len(rules) == 1 else 'rules'}"
    name_width = max(map(len, shown)) + 2
    value_width = min(max(map(len, shown.values())), 40) + 2
    lines: list[str] = []
    for group, options in groupby(catalogue().values(), key=lambda option: option.group):
        lines += ["", click.style(group, bold=True)]
        for option in options:
            origin = loaded.origins[option.name]
            line = f"  {option.name:<{name_width}}{shown[option.name]:<{value_width}} {origin}"
            lines.append(click.style(line, dim=origin == DEFAULT))
            if option.name in TABLES:
                lines += _rule_lines(option.name, getattr(loaded.config, option.name))
    return "\n".join(lines[1:])


def _rule_lines(table: str, rules: Sequence[BaseModel]) -> Iterator[str]:
    """One line for each rule, in the form of the file."""
    for rule in rules:
        yield "    " + toml_text(shown_rule(table, rule))[1:-1]


def _warn(loaded: Loaded) -> None:
    for note in loaded.notes:
        click.echo(note, err=True)
