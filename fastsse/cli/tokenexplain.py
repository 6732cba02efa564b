"""`fastsse token explain`: whether a server with these options accepts a token, and what it
grants."""

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from typing import Any, Final

import click

from fastsse.auth.guard import SERVICES, make_guard
from fastsse.auth.judged import Judged, read_claims
from fastsse.auth.jwks import KeysMissing
from fastsse.auth.rights import Rights
from fastsse.auth.token import TOKEN_BYTES_MAX, Token
from fastsse.auth.verifier import Side, Verifier
from fastsse.cli import EXIT_FAILED
from fastsse.cli.flags import given_flags
from fastsse.cli.tokenoptions import TokenCommand, rights_options
from fastsse.config import Config, load
from fastsse.control.service import LocalControlClient
from fastsse.errors import FastsseError, Unauthorised
from fastsse.minting import SIDES
from fastsse.units import format_duration

__all__ = ["explain"]

_NOT_FETCHED: Final = "The key set can't be fetched."


@click.command(cls=TokenCommand)
@click.argument("text", metavar="[TOKEN]", default="-")
@click.option("--topic", "topics", multiple=True, help="Say what may be done with it; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@rights_options
@click.pass_context
def explain(
    ctx: click.Context,
    /,
    text: str,
    topics: tuple[str, ...],
    as_json: bool,
    file: str | None,
    **flags: Any,
) -> int:
    """Say what a token grants, when it ends, and whether a server with these options takes it.

    Without TOKEN it is read from standard input, which no shell remembers. Exits with 1 when it
    is refused both to publishers and to subscribers.
    """
    config = load(given_flags(ctx, flags), file).config
    raw = (sys.stdin.read(2 * TOKEN_BYTES_MAX) if text == "-" else text).strip()
    raw = raw.removeprefix("Bearer ").strip()
    if not raw:
        raise click.UsageError('There is no token: echo "$TOKEN" | fastsse token explain')
    judged = asyncio.run(_judge(config, raw.encode("utf-8", "replace")))
    if as_json:
        click.echo(json.dumps(judged.members(topics), indent=2))
    else:
        click.echo("\n".join(_lines(judged, topics)))
    return 0 if judged.is_taken else EXIT_FAILED


async def _judge(config: Config, raw: bytes) -> Judged:
    content, claims = read_claims(raw)
    guard = make_guard(config, LocalControlClient(SERVICES, lambda events, done: None))
    if guard is None:
        return Judged(content, claims, {})
    try:
        verdicts: dict[Side, Rights | str] = {}
        for side in SIDES:  # One try is enough to know that the key set is out of reach.
            is_vain = _NOT_FETCHED in verdicts.values()
            verdicts[side] = _NOT_FETCHED if is_vain else await _verdict(guard.verifier, raw, side)
    finally:
        guard.close()
    return Judged(content, claims, verdicts)


async def _verdict(verifier: Verifier, raw: bytes, side: Side) -> Rights | str:
    """The rights, or the reason why there are none."""
    try:
        return verifier.verify(raw, side)
    except Unauthorised as error:
        return error.detail
    except KeysMissing as missing:
        fetched: asyncio.Future[FastsseError | None] = asyncio.get_running_loop().create_future()
        missing.fetch(fetched.set_result)
        if await fetched is not None:
            return _NOT_FETCHED
        return await _verdict(verifier, raw, side)


def _lines(judged: Judged, topics: tuple[str, ...]) -> list[str]:
    """For people. What the token says is shown as JSON: it may hold anything."""
    if isinstance(judged.content, str):
        return [f"refused    {judged.content}"]
    lines = [f"signed     {_shown(judged.content.algorithm)}{_kid(judged)}"]
    for name in ("sub", "jti", "iss", "aud"):
        if name in judged.claims:
            lines.append(f"{name:<11}{_shown(judged.claims[name])}")
    for name in ("iat", "nbf", "exp"):
        if name in judged.claims or name == "exp":
            lines.append(f"{name:<11}{_when(judged.claims.get(name))}")
    grants = judged.claims.get("https://mercure.rocks/", judged.claims.get("mercure"))
    for name in ("publish", "subscribe", "payload"):
        if isinstance(grants, dict) and name in grants:
            lines.append(f"{name:<11}{_shown(grants[name])}")
    if not judged.verdicts:
        lines.append("Not verified: no key is configured (jwt_key).")
    for side, verdict in judged.verdicts.items():
        who = "publishers" if side == "publish" else "subscribers"
        lines.append(f"As {who} show it: {verdict if isinstance(verdict, str) else 'taken.'}")
    for topic in topics:
        allowed = [what for what, is_allowed in judged.topic(topic).items() if is_allowed]
        lines.append(f"{_shown(topic)}: {', '.join(allowed) or 'nothing'}")
    return lines


def _kid(judged: Judged) -> str:
    assert isinstance(judged.content, Token)
    return "" if judged.content.kid is None else f", kid {_shown(judged.content.kid)}"


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 500 else text[:499] + "…"


def _when(value: object) -> str:
    """A time and how far it is away."""
    if value is None:
        return "never"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _shown(value)
    try:
        moment = datetime.fromtimestamp(value, UTC).isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):
        return _shown(value)
    distance = format_duration(abs(round(value - time.time())))
    return f"{moment} ({f'in {distance}' if value > time.time() else f'{distance} ago'})"
