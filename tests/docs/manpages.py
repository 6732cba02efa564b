"""The manual pages and completion scripts in `deploy/share`, made from the commands.

The folder is laid out as below a prefix (`/usr/share`), where a wheel installs it. Each command has
a page in the macros of man(7), with its subcommands as sections.
"""

import inspect
import re
from collections.abc import Iterator, Sequence

import click
from click.shell_completion import get_completion_class

from fastsse.cli import COMMANDS
from fastsse.cli import fastsse as program
from fastsse.cli.completion import VARIABLE
from fastsse.cli.flags import OptionFlag
from fastsse.version import __version__

_EXITS = (
    ("0", "success"),
    ("1", "the command failed; the reason is on standard error"),
    ("2", "the arguments or the configuration are invalid"),
    ("130", "it was interrupted"),
)
_COMPLETIONS = {
    "bash": "bash-completion/completions/fastsse",
    "zsh": "zsh/site-functions/_fastsse",
    "fish": "fish/vendor_completions.d/fastsse.fish",
}


def share_files() -> dict[str, str]:
    """Every generated file of `deploy/share`: its path there, and its text."""
    root = _context("fastsse", program, None)
    files = {"man/man1/fastsse.1": _page("fastsse", program, root, _overview(root))}
    for name in COMMANDS:
        command = program.get_command(root, name)
        assert command is not None
        context = _context(name, command, root)
        text = _page(f"fastsse-{name}", command, context, _command(command, context))
        files[f"man/man1/fastsse-{name}.1"] = text
    for shell, path in _COMPLETIONS.items():
        script = get_completion_class(shell)
        assert script is not None
        files[path] = script(program, {}, "fastsse", VARIABLE).source().strip() + "\n"
    return files


def _context(name: str, command: click.Command, parent: click.Context | None) -> click.Context:
    return click.Context(
        command, info_name=name, parent=parent, color=False, **command.context_settings
    )


def _page(title: str, command: click.Command, context: click.Context, body: Iterator[str]) -> str:
    about = COMMANDS[command.name or ""][2] if command is not program else "server of event streams"
    lines = [
        '.\\" Generated from the command line: make reference',
        f'.TH {_text(title).upper()} 1 "" "fastsse {__version__}" "fastsse"',
        ".SH NAME",
        f"{_text(title)} \\- {_text(about.rstrip('.')).lstrip()}",
        ".SH SYNOPSIS",
        *_usage(command, context),
        *body,
    ]
    return "\n".join(lines) + "\n"


def _usage(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f".B {_text(context.command_path)}"
    yield _text(" ".join(command.collect_usage_pieces(context)))


def _overview(context: click.Context) -> Iterator[str]:
    yield ".SH DESCRIPTION"
    yield from _paragraphs(program.help or "")
    yield ".SH COMMANDS"
    for name, (_, _, about) in COMMANDS.items():
        yield from (".TP", f".BR fastsse\\-{_text(name)} (1)", _text(about))
    yield from _options("OPTIONS", program.get_params(context), context)
    yield ".SH ENVIRONMENT"
    yield "Each option of the server is also a variable:"
    yield ".B FASTSSE_"
    yield _text(
        "and the name of the option in capitals; a flag wins over a variable, and a variable"
    )
    yield "over the configuration file."
    yield from _exit_status()


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield ".SH DESCRIPTION"
    yield from _paragraphs(command.help or "")
    yield from _all_options(command, context, ".SH")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is None or inner.hidden:
                continue
            below = _context(name, inner, context)
            yield f".SH {_text(below.command_path).upper()}"
            yield from _usage(inner, below)
            yield ".PP"
            yield from _paragraphs(inner.help or "")
            yield from _all_options(inner, below, ".SS")
    yield from _exit_status()
    yield ".SH SEE ALSO"
    yield ".BR fastsse (1)"


def _all_options(command: click.Command, context: click.Context, heading: str) -> Iterator[str]:
    """The options. Those of the server stand once, in `fastsse-serve(1)`, by group."""
    parameters = command.get_params(context)
    own = [one for one in parameters if not isinstance(one, OptionFlag)]
    yield from _options("OPTIONS", own, context, heading)
    server = [one for one in parameters if isinstance(one, OptionFlag)]
    if server and command.name != "serve":
        yield ".PP"
        yield "And every option of"
        yield ".BR fastsse\\-serve (1)."
        return
    for group in dict.fromkeys(one.option.group for one in server):
        members = [one for one in server if one.option.group == group]
        yield from _options(f"OPTIONS: {group}".upper(), members, context, heading)


def _options(
    title: str, parameters: Sequence[click.Parameter], context: click.Context, heading: str = ".SH"
) -> Iterator[str]:
    records = [record for one in parameters if (record := one.get_help_record(context))]
    records = [(names, about) for names, about in records if about]
    if records:
        yield f'{heading} "{_text(title)}"'
    for names, about in records:
        yield from (".TP", f".B {_text(names)}", _text(about))


def _exit_status() -> Iterator[str]:
    yield '.SH "EXIT STATUS"'
    for status, about in _EXITS:
        yield from (".TP", f".B {status}", about)


def _paragraphs(text: str) -> Iterator[str]:
    """Help texts: paragraphs, and blocks behind `\\b` as they are."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", inspect.cleandoc(text))):
        if number:
            yield ".PP"
        if paragraph.startswith("\b"):
            yield from (".nf", *map(_text, paragraph.splitlines()[1:]), ".fi")
        else:
            yield _text(" ".join(paragraph.split()))


def _text(text: str) -> str:
    """Text that roff reads as it is."""
    text = " ".join(text.split()) if "\n" in text else text
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{text}" if text.startswith((".", "'")) else text
