"""`fastsse source tail`: lines of files or of standard input, published to a server."""

import asyncio
import signal
import sys
from collections import Counter
from secrets import token_hex
from typing import Any

import click
from pydantic import ValidationError

from fastsse.cli.clientoptions import server_address
from fastsse.cli.remotelog import RemoteLog
from fastsse.client.publisher import Publisher
from fastsse.config import Config
from fastsse.config.sources import SourceRule
from fastsse.log import configure
from fastsse.sources.deadletters import DeadLetters
from fastsse.sources.driver import Driver
from fastsse.sources.file_letters import FileLetters
from fastsse.sources.files import FileSource
from fastsse.sources.input_lines import InputSource
from fastsse.sources.runner import make_maker
from fastsse.sources.source_publisher import SourcePublisher

__all__ = ["tail"]

NAME = "tail"


def _read_mapping(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str] | None:
    members: dict[str, str] = {}
    for value in values:
        name, has_text, text = value.partition("=")
        if not has_text or name in members:
            raise click.BadParameter(f"{value!r} must be NAME=TEMPLATE, each name once.")
        members[name] = text
    return members or None


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--topic", metavar="TEMPLATE", help="The topic, such as logs/{data.service|app}.")
@click.option("--event", metavar="TEMPLATE", help="The event type.")
@click.option("--data", metavar="TEMPLATE", help="The data; without it, the whole line.")
@click.option("--meta", multiple=True, callback=_read_mapping, metavar="NAME=TEMPLATE",
              help="A named value next to the data. Repeatable.")  # fmt: skip
@click.option("--payload", type=click.Choice(["data", "json", "auto", "envelope"]), default="data",
              show_default=True, help="What a line is.")  # fmt: skip
@click.option("--filter", metavar="EXPRESSION", help="Leave out events that do not match.")
@click.option("--private", is_flag=True, help="Send events only to subscribers with a grant.")
@click.option("--place", metavar="PATH", help="Keep in this file how far each file was read.")
@click.option("--start", type=click.Choice(["earliest", "latest"]), default="earliest",
              show_default=True, help="Where files without a kept place begin.")  # fmt: skip
@click.option("--dead-letter", metavar="PATH", help="Keep lines that can't become an event here.")
@server_address
def tail(
    files: tuple[str, ...], url: str, uds: str | None, token: str | None, **mapping: Any
) -> int:
    """Publish each line of FILEs, or of standard input, as an event, and follow the files.

    Files are followed over rotations; wildcards in quotes find new files too. A server that is away
    or busy is waited for. Each line has a key of its own, so it is published once, also after a
    kill of this command or of the server, within the server's key window. Ends with the input, or
    by SIGINT or SIGTERM. Exits with 0 if no line was set aside, 1 if one was, 2 for wrong usage.

    \b
    fastsse source tail '/var/log/app/*.log' --topic 'logs/{1}' --place tail.places
    app | fastsse source tail --topic logs/app --payload auto
    """
    letters = mapping.pop("dead_letter")
    named = {name: value for name, value in mapping.items() if value is not None}
    if letters is not None:
        named["dead_letter"] = f"file:{letters}"
    is_input = files in ((), ("-",))
    if is_input and (named.pop("place", None) or named["start"] == "latest"):
        raise click.UsageError("--place and --start are for files.")
    try:
        rule = SourceRule(name=NAME, files=("-",) if is_input else files, **named)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"--{first['loc'][0]}".replace("_", "-") + " " if first["loc"] else ""
        raise click.UsageError(f"{where}{first['msg']}.") from None
    return asyncio.run(_tail(rule, is_input, url, uds, token))


async def _tail(
    rule: SourceRule, is_input: bool, url: str, uds: str | None, token: str | None
) -> int:
    configure(Config(log_level="warning"))
    counts: Counter[str] = Counter()
    letters = DeadLetters(
        FileLetters(rule.letter_file, NAME) if rule.letter_file else None, NAME, counts
    )
    async with Publisher(url, token=token, uds=uds, patience_s=0) as publisher:
        log = RemoteLog(publisher)
        taking = SourcePublisher(NAME, make_maker(rule, Config()), log.publish, counts, letters)
        source = (
            InputSource(NAME, sys.stdin.fileno(), token_hex(8))
            if is_input
            else FileSource(rule, taking.letters_wait)
        )
        driver = Driver(source, taking)
        await _run(driver, letters, source.is_over if isinstance(source, InputSource) else None)
    click.echo(
        f"{counts['sources_events']} events, {counts['sources_repeats']} known already, "
        f"{counts['sources_filtered']} left out by the filter, "
        f"{counts['sources_skipped']} set aside.",
        err=True,
    )
    return int(counts["sources_skipped"] > 0)


async def _run(driver: Driver, letters: DeadLetters, is_over: asyncio.Event | None) -> None:
    """Runs until the input is over or a signal comes."""
    stopping = asyncio.Event() if is_over is None else is_over
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    tasks = [asyncio.create_task(part.run()) for part in (letters, driver)]
    ending = asyncio.create_task(stopping.wait())
    await asyncio.wait((*tasks, ending), return_when=asyncio.FIRST_COMPLETED)
    # The driver first, because it may still set lines aside.
    for task in (ending, *reversed(tasks)):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
