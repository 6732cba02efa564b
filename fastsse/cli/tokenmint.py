"""`fastsse token mint`: a token for trying things out.

Scripts call it for each request they make, so it imports nothing of the server but its options and
the keys; `tests/cli/test_startup.py` holds that.
"""

import json
from dataclasses import replace
from typing import Any, Final

import click

from fastsse.cli.flags import given_flags
from fastsse.cli.tokenoptions import TokenCommand, rights_options
from fastsse.config import catalogue, load
from fastsse.minting import CannotSign, Signing, Wanted, claims_of, sign, signing_of
from fastsse.units import parse_duration_s

__all__ = ["mint"]

_NEVER: Final = "never"


def _lifetime_s(_: click.Context, __: click.Parameter, text: str) -> float | None:
    if text == _NEVER:
        return None
    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}, or never") from None


def _json(_: click.Context, __: click.Parameter, text: str | None) -> object:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        raise click.BadParameter("must be JSON") from None


@click.command(cls=TokenCommand)
@click.option(
    "--publish",
    multiple=True,
    metavar="TOPIC",
    help="Grant publishing to a topic, a template such as orders/{id}, or *; repeatable.",
)
@click.option(
    "--subscribe",
    multiple=True,
    metavar="TOPIC",
    help="Grant reading private events of a topic, a template or *; repeatable.",
)
@click.option(
    "--console",
    type=click.Choice(["read", "act"]),
    help="Grant the console role: read shows connections and topics, act also changes them.",
)
@click.option("--payload", metavar="JSON", callback=_json, help="Included in subscription events.")
@click.option("--subject", metavar="TEXT", help="Who it is (sub).")
@click.option("--id", "token_id", metavar="TEXT", help="The token's id (jti); else a random one.")
@click.option(
    "--lifetime",
    metavar="DURATION",
    default="1h",
    show_default=True,
    callback=_lifetime_s,
    help="Until it ends; or never.",
)
@click.option("--key", metavar="KEY", help="Sign with this secret, private PEM key or file.")
@click.option("--kid", metavar="TEXT", help="The key's name in the header.")
@click.option("--alg", metavar="ALG", help="Sign with this algorithm.")
@rights_options
@click.pass_context
def mint(ctx: click.Context, /, file: str | None, **given: Any) -> None:
    """Print a token for development. Its key is that of the server's options, else --key; a public
    key can't sign, so name the private one."""
    config = load(given_flags(ctx, _server_flags(given)), file).config
    wanted = Wanted(
        publish=given["publish"],
        subscribe=given["subscribe"],
        subject=given["subject"],
        lifetime_s=given["lifetime"],
        payload=given["payload"],
        token_id=given["token_id"],
        console=given["console"],
    )
    try:
        signing = Signing(given["key"]) if given["key"] else signing_of(config, wanted)
        if given["alg"]:
            signing = replace(signing, algorithms=[given["alg"]])
        click.echo(sign(signing, claims_of(config, wanted), given["kid"]))
    except CannotSign as error:
        raise click.UsageError(f"{error}") from None


def _server_flags(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in catalogue()}
