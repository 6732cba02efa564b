"""`fastsse source`: sources of the configuration, without a server."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import click
import orjson

from fastsse.cli.clientoptions import read_duration
from fastsse.cli.deadletters import dead_letters, replay
from fastsse.cli.sourcelist import list_sources, pause, resume
from fastsse.cli.sourcetail import tail
from fastsse.config import Config, load
from fastsse.config.sources import SourceRule
from fastsse.events import DATA_JSON, Event

__all__ = ["source"]

COUNT_MAX = 10_000
_EXIT_AWAY = 3


@click.group()
def source() -> None:
    """List, pause and replay sources of a server, try those of a configuration, or publish lines.

    \b
    fastsse source list
    fastsse source test orders --config fastsse.toml
    fastsse source tail app.log --topic logs/app
    fastsse source dead-letters orders
    fastsse source replay orders
    fastsse source pause orders
    """


source.add_command(list_sources)
source.add_command(pause)
source.add_command(resume)
source.add_command(tail)
source.add_command(dead_letters)
source.add_command(replay)


@source.command()
@click.argument("name")
@click.option("--config", "file", metavar="FILE", help="TOML file with [[sources]].")
@click.option(
    "--count",
    type=click.IntRange(1, COUNT_MAX),
    default=10,
    show_default=True,
    metavar="N",
    help="Show at most so many messages.",
)
@click.option(
    "--wait",
    callback=read_duration,
    default="5s",
    show_default=True,
    metavar="DURATION",
    help="How long to wait for messages.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def test(name: str, file: str | None, count: int, wait: float, as_json: bool) -> int:
    """Show what the next messages of the source NAME would become. Nothing is consumed.

    A message becomes an event, is left out by the filter, or is set aside with a reason. Exits with
    0 if no message was set aside, 1 if one was, 3 if the other system can't be reached.
    """
    config = load(None, file).config
    rules = {rule.name: rule for rule in config.sources}
    if name not in rules:
        known = ", ".join(rules) or "none"
        raise click.BadParameter(f"there is no source {name} (there are: {known}).")
    if rules[name].system == "webhook":
        raise click.BadParameter(f"{name} receives requests, so no messages wait for it.")
    return asyncio.run(_preview(config, rules[name], count, wait, as_json))


async def _preview(
    config: Config, rule: SourceRule, count: int, wait_s: float, as_json: bool
) -> int:
    from fastsse.sources.preview import preview
    from fastsse.sources.source import SourceAway

    try:
        outcomes = await preview(config, rule, count, wait_s)
    except SourceAway as fault:
        click.echo(f"The source {rule.name} is away: {fault}", err=True)
        return _EXIT_AWAY
    for origin, outcome in outcomes:
        click.echo(_json_line(origin, outcome) if as_json else _text_line(origin, outcome))
    _summarise(outcomes)
    return int(any(isinstance(outcome, ValueError) for _, outcome in outcomes))


def _summarise(outcomes: Sequence[tuple[str, Event | ValueError | None]]) -> None:
    kinds = Counter(
        "left out" if outcome is None else "set aside" if isinstance(outcome, ValueError) else "ok"
        for _, outcome in outcomes
    )
    click.echo(
        f"{len(outcomes)} messages: {kinds['ok']} events, {kinds['left out']} left out by the "
        f"filter, {kinds['set aside']} set aside.",
        err=True,
    )


def _json_line(origin: str, outcome: Event | ValueError | None) -> str:
    members: dict[str, object] = {"origin": origin}
    if outcome is None:
        members["filtered"] = True
    elif isinstance(outcome, ValueError):
        members["why"] = str(outcome)
    else:
        members |= _members(outcome)
    return orjson.dumps(members).decode()


def _members(event: Event) -> dict[str, object]:
    """An event as a publish would name its fields."""
    is_json = event.data_kind == DATA_JSON
    members: dict[str, object] = {
        "topic": event.topics[0] if len(event.topics) == 1 else event.topics,
        "data": orjson.Fragment(event.data) if is_json else event.data.decode(),
    }
    for name, value in (("event", event.event), ("id", event.id)):
        if value is not None:
            members[name] = value.decode()
    if event.meta is not None:
        members["meta"] = orjson.Fragment(event.meta)
    if event.private:
        members["private"] = True
    return members


def _text_line(origin: str, outcome: Event | ValueError | None) -> str:
    where = _printable(origin)
    if outcome is None:
        return f"{where}: left out by the filter"
    if isinstance(outcome, ValueError):
        return f"{where}: set aside: {_printable(str(outcome))}"
    named = " ".join(
        f"{name}={_printable(orjson.dumps(value).decode())}"
        for name, value in _members(outcome).items()
    )
    return f"{where}: {named}"


def _printable(text: str) -> str:
    """Messages may hold commands for terminals."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
