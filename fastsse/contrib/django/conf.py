"""The settings `FASTSSE` of a Django project."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

__all__ = ["Settings", "load"]

_ALGORITHM: Final = "HS256"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the project's setting `FASTSSE` says; its keys are these names in capitals.

    Attributes:
        url: the server, for publishing.
        public_url: the server as pages reach it, such as `/events`; the default is `url`.
        jwt_key: the server's `jwt_key`, with which tokens are signed; None: the server needs none.
        algorithm: of the tokens.
        lifetime_s: how long a page's token is valid, in seconds.
        topics: the permission hook, `function(user) -> topics` whose private events a user may
            read: a dotted path or a callable. The default grants `user/{pk}`.
        outbox: a file that keeps events until the server has them; None: a publish that fails is
            logged and lost.
        timeout_s: how long a publish may take, in seconds.
    """

    url: str
    public_url: str
    jwt_key: str | None
    algorithm: str
    lifetime_s: float
    topics: Callable[[Any], Iterable[str]]
    outbox: str | None
    timeout_s: float


def load() -> Settings:
    """The settings now. Raises ImproperlyConfigured for a missing or unknown key."""
    given: dict[str, Any] = dict(getattr(settings, "FASTSSE", None) or {})
    url = given.pop("URL", None)
    if not url:
        raise ImproperlyConfigured('FASTSSE = {"URL": "http://…"} is missing in the settings.')
    topics = given.pop("TOPICS", own_topic)
    found = Settings(
        url=url,
        public_url=given.pop("PUBLIC_URL", url),
        jwt_key=given.pop("JWT_KEY", None),
        algorithm=given.pop("ALGORITHM", _ALGORITHM),
        lifetime_s=given.pop("LIFETIME_S", 600),
        topics=import_string(topics) if isinstance(topics, str) else topics,
        outbox=given.pop("OUTBOX", None),
        timeout_s=given.pop("TIMEOUT_S", 5),
    )
    if given:
        raise ImproperlyConfigured(f"FASTSSE has unknown keys: {', '.join(sorted(given))}.")
    return found


def own_topic(user: Any) -> list[str]:
    """The default of `topics`: the user's own."""
    return [f"user/{user.pk}"] if user.is_authenticated else []
