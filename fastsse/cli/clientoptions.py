"""Options that `publish` and `listen` share: the address of the server, and values with units."""

from collections.abc import Callable
from typing import Any

import click
import orjson

from fastsse.client.http import events_url
from fastsse.errors import InvalidEvent
from fastsse.meta import MetaValue, encode_meta
from fastsse.units import parse_duration_s

DEFAULT_URL = "http://127.0.0.1:8080"
# The variable of the server too, so that one environment file works for both.
TOKEN_VARIABLES = ("FASTSSE_TOKEN", "FASTSSE_PUBLISH_TOKEN")


def server_address(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--url`, `--uds` and `--token`."""
    for option in (
        click.option(
            "--token",
            envvar=TOKEN_VARIABLES,
            show_envvar=True,
            metavar="TOKEN",
            help="Sent as `Authorization: Bearer`.",
        ),
        click.option(
            "--uds",
            metavar="PATH",
            help="Connect to this Unix socket in place of the host in the URL.",
        ),
        click.option(
            "--url",
            envvar="FASTSSE_URL",
            show_envvar=True,
            default=DEFAULT_URL,
            show_default=True,
            metavar="URL",
            callback=_check_url,
            help="The server's address.",
        ),
    ):
        function = option(function)
    return function


def read_duration(
    ctx: click.Context, parameter: click.Parameter, value: str | None
) -> float | None:
    """A callback of an option: seconds from `10s`, as in the options of the server."""
    if value is None:
        return None
    try:
        return parse_duration_s(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} {error}.", ctx, parameter) from None


def read_meta(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, MetaValue] | None:
    """A callback of a repeated option: `name=text`, and `name:=json` for what is no text."""
    members: dict[str, MetaValue] = {}
    for value in values:
        name, _, text = value.partition("=")
        if name == value or name.removesuffix(":") in members:
            raise click.BadParameter(
                f"{value!r} must be NAME=TEXT or NAME:=JSON, each name once.", ctx, parameter
            )
        members[name.removesuffix(":")] = _json(text) if name.endswith(":") else text
    try:
        return members if encode_meta(members) is not None else None
    except InvalidEvent as error:
        raise click.BadParameter(f"{error}.", ctx, parameter) from None


def _json(text: str) -> Any:
    """The value; text that is not JSON is left as a value that `encode_meta` refuses."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _check_url(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        events_url(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", ctx, parameter) from None
    return value
