"""Options of tokens: their keys, and the claims that they must have."""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from fastsse.config.kinds import (
    MASK,
    OptionGroup,
    Seconds,
    Switch,
    ValueKind,
    duration,
    option,
    read_list,
)
from fastsse.config.tls import FILES
from fastsse.jwtkeys import ALGORITHMS, KEY_BYTES_MAX, PATH_STARTS, BadKey, check_key, read_key

if TYPE_CHECKING:
    from fastsse.config.settings import Config

__all__ = ["REPEATED", "TokenOptions", "token_conflicts", "token_doubts"]

KEY = ValueKind(
    "KEY",
    "a secret, a PEM key, or the path of a file that holds one (it begins with / or .)",
    lambda _: MASK,
    secret=True,
)
ALGORITHM_NAMES = ValueKind("ALG", f"of {', '.join(ALGORITHMS)}", ",".join)
TEXTS = ValueKind("TEXT", "texts without commas", ",".join, example="https://example.com")
KEY_SET = ValueKind("URL", "an http(s) URL without a user, or a path that begins with / or .")
COOKIE_NAME = ValueKind("NAME", "a cookie's name")
#: Kinds of lists, whose flags may be repeated.
REPEATED = (ALGORITHM_NAMES, TEXTS, FILES)
MOMENT = ValueKind("TIME", "a time", example="2026-01-31T12:00:00Z")

# RFC 6265 §4.1.1.
_COOKIE_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}", re.ASCII)


def check_key_text(key: SecretStr) -> SecretStr:
    """The text or path of a key. `token_conflicts` checks it against its algorithms."""
    text = key.get_secret_value()
    if not text or "\0" in text or len(text) > KEY_BYTES_MAX:
        raise ValueError("must be a key")
    return key


def check_algorithms(names: Iterable[str]) -> tuple[str, ...]:
    """Names as RFC 7518 spells them, each once."""
    chosen = tuple(dict.fromkeys(names))
    if not set(chosen) <= set(ALGORITHMS):
        raise ValueError("must be algorithms")
    return chosen


def check_texts(texts: Iterable[str]) -> tuple[str, ...]:
    """Texts that are not empty, each once."""
    chosen = tuple(dict.fromkeys(texts))
    if not all(text and len(text) <= 1024 for text in chosen):
        raise ValueError("must not be empty")
    return chosen


def check_key_set(text: str) -> str:
    """The URL or path of a key set. A URL with a user is refused, because options are shown."""
    if text.startswith(PATH_STARTS):
        if "\0" in text or len(text) > 4096:
            raise ValueError("must be a path")
        return text
    parts = urlsplit(text)
    _ = parts.port  # Raises ValueError for an invalid port.
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("must be a URL")
    if not re.fullmatch(r"[\x21-\x7e]{1,2048}", text, re.ASCII):
        raise ValueError("must be a URL")
    return text


def check_cookie_name(name: str) -> str:
    """A token of RFC 9110."""
    if not _COOKIE_NAME.fullmatch(name):
        raise ValueError("must be a cookie's name")
    return name


def read_moment(value: object) -> object:
    """RFC 3339 text, with its offset, or what TOML made of it."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError("must be a time with its offset")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


KeyText = Annotated[SecretStr, AfterValidator(check_key_text), KEY]
Algorithms = Annotated[
    tuple[str, ...], BeforeValidator(read_list), AfterValidator(check_algorithms), ALGORITHM_NAMES
]
Texts = Annotated[
    tuple[str, ...],
    BeforeValidator(read_list),
    AfterValidator(check_texts),
    Field(max_length=100),
    TEXTS,
]
KeySet = Annotated[str, AfterValidator(check_key_set), KEY_SET]
CookieName = Annotated[str, AfterValidator(check_cookie_name), COOKIE_NAME]
Moment = Annotated[str, BeforeValidator(read_moment), MOMENT]


class TokenOptions(OptionGroup):
    """Tokens (JWT). Without a key any client may subscribe, and `publish_token` protects
    publishing."""

    title = "Rights"

    jwt_key: KeyText | None = option(
        None, "Key of publishers' and subscribers' tokens; if it is set, both need a token."
    )
    jwt_algorithms: Algorithms = option(
        (), "Algorithms of jwt_key and the key set; default: HS256, RS256, or the key's curve."
    )
    publisher_jwt_key: KeyText | None = option(None, "Key of publishers' tokens, if different.")
    publisher_jwt_algorithms: Algorithms = option((), "Algorithms of publisher_jwt_key.")
    subscriber_jwt_key: KeyText | None = option(None, "Key of subscribers' tokens, if different.")
    subscriber_jwt_algorithms: Algorithms = option((), "Algorithms of subscriber_jwt_key.")
    jwt_previous_key: KeyText | None = option(
        None, "The previous jwt_key, accepted until jwt_previous_until."
    )
    publisher_jwt_previous_key: KeyText | None = option(
        None, "The previous publisher_jwt_key, accepted until jwt_previous_until."
    )
    subscriber_jwt_previous_key: KeyText | None = option(
        None, "The previous subscriber_jwt_key, accepted until jwt_previous_until."
    )
    jwt_previous_until: Moment | None = option(None, "When previous keys end.")
    jwks_url: KeySet | None = option(
        None,
        "URL or file of a key set (JWKS) with more keys for the tokens of jwt_key; changes are "
        "picked up.",
    )
    jwt_audience: Texts = option(
        (), "A token's aud must contain one of these. Repeat it for several."
    )
    jwt_issuer: Texts = option((), "A token's iss must be one of these. Repeat it for several.")
    jwt_leeway: Seconds = duration(
        "0s", "Allowed clock difference for exp and nbf.", least="0s", most="10m"
    )
    jwt_cookie: CookieName = option("mercureAuthorization", "Name of the cookie with a token.")
    anonymous: Switch = option(
        False, "Subscribers without a token may read public events, also if a key is set."
    )
    expiry_notice: Seconds = duration(
        "30s",
        "A stream receives fastsse.expiring this long before its token ends; 0s: never.",
        least="0s",
        most="1h",
    )
    ticket_lifetime: Seconds = duration(
        "30s",
        "How long a new ticket of POST /tickets may wait for its first open.",
        least="1s",
        most="10m",
    )

    @property
    def publishers_need_tokens(self) -> bool:
        """Whether a key for publishers' tokens is configured."""
        return bool(self.publisher_jwt_key or self.jwt_key or self.jwks_url)

    @property
    def subscribers_need_tokens(self) -> bool:
        """Whether a key for subscribers' tokens is configured; with `anonymous` they need none."""
        return bool(self.subscriber_jwt_key or self.jwt_key or self.jwks_url)


_SIDES = ("publisher_", "subscriber_")


def _minting_conflicts(config: "Config") -> Iterator[tuple[str, str]]:
    """A key that verifies alone can't sign."""
    keys = (config.jwt_key, config.publisher_jwt_key, config.subscriber_jwt_key)
    if not any(keys):
        yield "console_minting", "0s, or jwt_key must be set, which signs"


def token_conflicts(config: "Config") -> Iterator[tuple[str, str]]:
    """Each broken relation of these options: an option, and what it must be."""
    publishers, subscribers = config.publishers_need_tokens, config.subscribers_need_tokens
    if config.console_minting:
        yield from _minting_conflicts(config)
    if publishers or subscribers:
        if config.publish_token:
            yield "publish_token", "left out when tokens have a key (jwt_key): publishers need one"
        if config.allow_anonymous_publish:
            yield "allow_anonymous_publish", "false when tokens have a key: publishers need one"
    if subscribers and not publishers:
        yield "publisher_jwt_key", "set together with subscriber_jwt_key; jwt_key is for both"
    if publishers and not subscribers and not config.anonymous:
        yield "subscriber_jwt_key", "set together with publisher_jwt_key, or anonymous must be true"
    if config.publisher_jwt_key and config.subscriber_jwt_key:
        for name in ("jwt_key", "jwks_url"):
            if getattr(config, name):
                yield name, "left out when publishers and subscribers have keys of their own"
    yield from _key_conflicts(config)


def _key_conflicts(config: "Config") -> Iterator[tuple[str, str]]:
    for side in ("", *_SIDES):
        key, previous = f"{side}jwt_key", f"{side}jwt_previous_key"
        algorithms = getattr(config, f"{side}jwt_algorithms")
        known = bool(getattr(config, key)) or (not side and bool(config.jwks_url))
        if algorithms and not known:
            yield f"{side}jwt_algorithms", f"left out without {key}"
        if getattr(config, previous) and not getattr(config, key):
            yield previous, f"left out without {key}"
        if getattr(config, previous) and not config.jwt_previous_until:
            yield "jwt_previous_until", f"set together with {previous}"
        for name in (key, previous):
            text = getattr(config, name)
            why = None if text is None else key_problem(text, algorithms)
            if why:
                yield name, why


def key_problem(text: SecretStr, algorithms: tuple[str, ...]) -> str | None:
    """What a key must be, if it can't verify tokens of these algorithms; else None. May read a
    file."""
    try:
        check_key(read_key(text.get_secret_value()), algorithms)
    except BadKey as error:
        return str(error)
    return None


def token_doubts(config: "Config") -> Iterator[str]:
    """Allowed values that are probably a mistake, as sentences for the log."""
    url = config.jwks_url or ""
    if url.startswith("http://") and urlsplit(url).hostname not in (
        "localhost",
        "127.0.0.1",
        "::1",
    ):
        yield "jwks_url is not https: an attacker on the network path can forge any token."
    needs = config.publishers_need_tokens or config.subscribers_need_tokens
    for name in ("jwt_audience", "jwt_issuer"):
        if getattr(config, name) and not needs:
            yield f"{name} has no effect without a key for tokens."
