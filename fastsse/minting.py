"""Tokens that are made with a key of the server: by `fastsse token mint`, and in the console."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from fastsse.config import Config
from fastsse.jwtkeys import BadKey, encode_token, read_key, signing_key

__all__ = ["SIDES", "CannotSign", "Signing", "Wanted", "claims_of", "sign", "signing_of"]

SIDES: Final[tuple[Literal["publish", "subscribe"], ...]] = ("publish", "subscribe")
_KEYS: Final = {"publish": "publisher_jwt_key", "subscribe": "subscriber_jwt_key"}


class CannotSign(ValueError):
    """No key of the options signs such a token. The text says why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a token is to grant.

    Attributes:
        publish, subscribe: selectors.
        subject: the claim `sub`; None: none.
        lifetime_s: until it ends; None: never.
        payload: for subscription events; None: none.
        token_id: `jti`; None: a random one.
        console: the console role, `read` or `act`; None: none. Publishers' keys sign it.
    """

    publish: Sequence[str] = ()
    subscribe: Sequence[str] = ()
    subject: str | None = None
    lifetime_s: float | None = None
    payload: object = None
    token_id: str | None = None
    console: str | None = None

    @property
    def grants(self) -> dict[str, object]:
        """The claim `mercure`."""
        sides = {"publish": list(self.publish), "subscribe": list(self.subscribe)}
        granted: dict[str, object] = {side: topics for side, topics in sides.items() if topics}
        return granted if self.payload is None else granted | {"payload": self.payload}


@dataclass(frozen=True, slots=True)
class Signing:
    """A key's text as in the options, and the algorithms that it is pinned to."""

    text: str
    algorithms: Sequence[str] = ()


def signing_of(config: Config, wanted: Wanted) -> Signing:
    """The key of the options that signs such a token. Raises CannotSign."""
    granted = {"publish": wanted.publish or wanted.console, "subscribe": wanted.subscribe}
    sides = [side for side in SIDES if granted[side]] or ["subscribe"]
    found = {_key_of(config, _KEYS[side]) for side in sides}
    if len(found) > 1:
        raise CannotSign("Publishers and subscribers have different keys: make two tokens.")
    name = found.pop()
    if name is None:
        raise CannotSign("Set jwt_key (FASTSSE_JWT_KEY, --jwt-key), or give a key (--key).")
    algorithms = getattr(config, f"{name.removesuffix('jwt_key')}jwt_algorithms")
    return Signing(getattr(config, name).get_secret_value(), algorithms)


def sign(signing: Signing, claims: dict[str, Any], kid: str | None = None) -> str:
    """A token. Raises CannotSign for a key that can't sign, such as a public one."""
    try:
        key, algorithm = signing_key(read_key(signing.text), signing.algorithms)
    except BadKey as error:
        raise CannotSign(f"The key to sign with must be {error}.") from None
    return encode_token(claims, key, algorithm, kid)


def claims_of(config: Config, wanted: Wanted) -> dict[str, Any]:
    """The claims of a token that is issued now, for this server."""
    now_s = int(time.time())
    lifetime_s = wanted.lifetime_s
    claims = {
        "mercure": wanted.grants,
        "fastsse": {"console": wanted.console} if wanted.console else None,
        "sub": wanted.subject,
        "jti": wanted.token_id or secrets.token_hex(16),
        "iat": now_s,
        "exp": None if lifetime_s is None else now_s + max(1, round(lifetime_s)),
        "aud": config.jwt_audience[0] if config.jwt_audience else None,
        "iss": config.jwt_issuer[0] if config.jwt_issuer else None,
    }
    return {name: value for name, value in claims.items() if value is not None}


def _key_of(config: Config, name: str) -> str | None:
    if getattr(config, name):
        return name
    return "jwt_key" if config.jwt_key else None
