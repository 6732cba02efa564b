"""`fastsse why`: says why a client receives nothing."""

import asyncio
import json
import re
import sys

import click
from rich.console import Console
from rich.text import Text

from fastsse.checks import NOTE, OK, UNKNOWN, WRONG, Check
from fastsse.cli import EXIT_FAILED
from fastsse.cli.clientoptions import DEFAULT_URL, TOKEN_VARIABLES, read_duration
from fastsse.client.http import events_url
from fastsse.doctor.why import Question, why
from fastsse.log import escape
from fastsse.selectors import compile_selector
from fastsse.subscriptions import ANY

__all__ = ["why_command"]

_STYLES = {OK: "green", WRONG: "bold red", NOTE: "yellow", UNKNOWN: "dim"}


def _check_url(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return events_url(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", ctx, parameter) from None


def _check_headers(
    ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    for name in value:
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name, re.ASCII):
            raise click.BadParameter(f"{name!r} is no name of a header.", ctx, parameter)
    return value


@click.command("why")
@click.option(
    "--url",
    envvar="FASTSSE_URL",
    show_envvar=True,
    default=DEFAULT_URL,
    show_default=True,
    callback=_check_url,
    metavar="URL",
    help="The address that the client opens, with its path and parameters.",
)
@click.option("--topic", required=True, metavar="TOPIC", help="What the client asks for.")
@click.option(
    "--token",
    envvar=TOKEN_VARIABLES,
    show_envvar=True,
    metavar="TOKEN",
    help="The client's token.",
)
@click.option("--origin", metavar="ORIGIN", help="The origin of the client's page.")
@click.option(
    "--header",
    "headers",
    multiple=True,
    callback=_check_headers,
    metavar="NAME",
    help="A request header that the page sends, for the preflight; repeatable. Needs --origin.",
)
@click.option("--last-event-id", metavar="ID", help="Where the client resumes.")
@click.option(
    "--operator",
    envvar="FASTSSE_OPERATOR",
    show_envvar=True,
    metavar="TOKEN",
    help="A token with the claim fastsse.console, or the console password; else --token is tried.",
)
@click.option(
    "--path/--no-path",
    "tries_path",
    default=True,
    show_default=True,
    help="Publish a few events to topics of the check's own, to see what the path does to them.",
)
@click.option(
    "--publish-url",
    callback=_check_url,
    metavar="URL",
    help="Where the publisher publishes, if that is another address.",
)
@click.option(
    "--patience",
    callback=read_duration,
    default="5s",
    show_default=True,
    metavar="DURATION",
    help="How long to wait for what should come at once.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def why_command(
    url: str,
    topic: str,
    token: str | None,
    origin: str | None,
    headers: tuple[str, ...],
    last_event_id: str | None,
    operator: str | None,
    tries_path: bool,
    publish_url: str | None,
    patience: float,
    as_json: bool,
) -> int:
    """Say why a client receives nothing: what is right, and the first thing that is not.

    Opens the stream as the client does, reads its token, asks the server about the topic, and
    publishes a few events through the path. Each thing that is wrong comes with the command or
    option that changes it. Exits with 1 if something is wrong.

    \b
    fastsse why --topic news
    fastsse why --url https://example.com/events --topic user/7 --token "$TOKEN"
    """
    if headers and origin is None:
        raise click.UsageError("--header needs --origin: only a page of another origin asks first.")
    question = Question(
        url,
        topic,
        token,
        origin,
        operator,
        last_event_id,
        tries_path,
        patience,
        _covers,
        publish_url,
        headers,
    )
    checks = asyncio.run(_all(question, as_json))
    wrong = next((check for check in checks if check.verdict == WRONG), None)
    if as_json:
        shown = [check._asdict() for check in checks]
        click.echo(json.dumps({"cause": wrong and wrong.name, "checks": shown}, indent=2))
    else:
        _conclude(checks, wrong)
    return 0 if wrong is None else EXIT_FAILED


def _covers(grant: str, topic: str) -> bool:
    return grant in (ANY, topic) or compile_selector(grant).matches(topic)


async def _all(question: Question, as_json: bool) -> list[Check]:
    checks = []
    async for check in why(question):
        checks.append(check)
        if not as_json:
            _show(check)
    return checks


def _show(check: Check) -> None:
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    console.print(
        Text(f"{check.verdict:<8}", style=_STYLES[check.verdict]),
        Text(f"{check.name:<14}", style="bold"),
        Text(escape(check.says)),
        sep="",
    )


def _conclude(checks: list[Check], wrong: Check | None) -> None:
    click.echo()
    if wrong is not None:
        click.echo(f"First wrong: {wrong.name}. {escape(wrong.do)}")
        return
    notes = [check for check in checks if check.verdict == NOTE and check.do]
    if not notes:
        click.echo("Nothing is wrong here. Look at the client: does it handle the event's type?")
    for check in notes:
        click.echo(f"Perhaps {check.name}: {escape(check.do)}")
