"""`fastsse token mint`: a token for trying things out.

Scripts call it for each request they make, so it imports nothing of the server but its options and
the keys; `tests/cli/test_startup.py` holds that.
"""

import json
import secrets
import time
from typing import Any, Final

import click

from fastsse.cli.flags import given_flags
from fastsse.cli.tokenoptions import SIDES, TokenCommand, rights_options
from fastsse.config import Config, catalogue, load
from fastsse.jwtkeys import BadKey, read_key, signing_key
from fastsse.units import parse_duration_s

__all__ = ["mint"]

_NEVER: Final = "never"
_MARKS: Final = {"publish": "publisher_jwt_key", "subscribe": "subscriber_jwt_key"}


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
@click.option("--publish", multiple=True, metavar="SELECTOR", help="Grant publishing; repeatable.")
@click.option(
    "--subscribe", multiple=True, metavar="SELECTOR", help="Grant private events; repeatable."
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
    import jwt

    text, algorithms = _signing_text(config, given)
    try:
        key, algorithm = signing_key(read_key(text), [given["alg"]] if given["alg"] else algorithms)
    except BadKey as error:
        raise click.UsageError(f"The key to sign with must be {error}.") from None
    headers = {"kid": given["kid"]} if given["kid"] else None
    click.echo(jwt.encode(_claims(config, given), key, algorithm, headers=headers))


def _server_flags(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in catalogue()}


def _signing_text(config: Config, given: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The key's text, and the algorithms that it is pinned to."""
    if given["key"]:
        return given["key"], ()
    wanted = [side for side in SIDES if given[side]] or ["subscribe"]
    found = {_key_of(config, _MARKS[side]) for side in wanted}
    if len(found) > 1:
        raise click.UsageError("Publishers and subscribers have different keys: make two tokens.")
    name = found.pop()
    if name is None:
        raise click.UsageError("Set jwt_key (FASTSSE_JWT_KEY, --jwt-key), or give --key.")
    prefix = name.removesuffix("jwt_key")
    return getattr(config, name).get_secret_value(), getattr(config, f"{prefix}jwt_algorithms")


def _key_of(config: Config, name: str) -> str | None:
    if getattr(config, name):
        return name
    return "jwt_key" if config.jwt_key else None


def _claims(config: Config, given: dict[str, Any]) -> dict[str, Any]:
    now_s = int(time.time())
    grants: dict[str, object] = {side: list(given[side]) for side in SIDES if given[side]}
    if given["payload"] is not None:
        grants["payload"] = given["payload"]
    claims = {
        "mercure": grants,
        "sub": given["subject"],
        "jti": given["token_id"] or secrets.token_hex(16),
        "iat": now_s,
        "exp": None if given["lifetime"] is None else now_s + max(1, round(given["lifetime"])),
        "aud": config.jwt_audience[0] if config.jwt_audience else None,
        "iss": config.jwt_issuer[0] if config.jwt_issuer else None,
    }
    return {name: value for name, value in claims.items() if value is not None}
