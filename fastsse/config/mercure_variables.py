"""Reports environment variables of a Mercure hub that this server has replaced."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from fastsse.config.catalogue import ENVIRONMENT_PREFIX

if TYPE_CHECKING:
    from fastsse.config.settings import Config

__all__ = ["mercure_notes"]

_PREFIX: Final = "MERCURE_"
# The names that the hub uses, and those of applications that publish to it.
_OPTIONS: Final = {
    "JWT_KEY": "jwt_key",
    "JWT_ALG": "jwt_algorithms",
    "JWT_SECRET": "jwt_key",
    "JWT_ALGORITHM": "jwt_algorithms",
    "PUBLISHER_JWT_KEY": "publisher_jwt_key",
    "PUBLISHER_JWT_ALG": "publisher_jwt_algorithms",
    "PUBLISHER_JWK_SET_URL": "jwks_url",
    "SUBSCRIBER_JWT_KEY": "subscriber_jwt_key",
    "SUBSCRIBER_JWT_ALG": "subscriber_jwt_algorithms",
    "SUBSCRIBER_JWK_SET_URL": "jwks_url",
    "CORS_ALLOWED_ORIGINS": "cors_origins",
    "PUBLISH_ALLOWED_ORIGINS": "publish_origins",
    "ALLOW_ANONYMOUS": "anonymous",
}
_KEY: Final = f"the key's option is {ENVIRONMENT_PREFIX}JWT_KEY"
_SHOWN_MAX: Final = 10


def mercure_notes(config: "Config", environment: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each such variable if `config` has no key for tokens. Values are secrets, so
    they are never shown."""
    if config.publishers_need_tokens or config.subscribers_need_tokens:
        return
    found = sorted(name for name in environment if name.startswith(_PREFIX))
    for variable in found[:_SHOWN_MAX]:
        option = _OPTIONS.get(variable.removeprefix(_PREFIX))
        meant = f"the option is {ENVIRONMENT_PREFIX}{option.upper()}" if option else _KEY
        yield f"{variable} is not read, and no key for tokens is set: {meant}."
