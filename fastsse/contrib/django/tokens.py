"""Tokens and addresses for pages, from the user of a request."""

import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

import jwt
from django.core.exceptions import ImproperlyConfigured

from fastsse.client.http import events_url
from fastsse.contrib.django.conf import Settings, load
from fastsse.contrib.django.publishing import client

__all__ = ["stream_url", "user_token"]


def user_token(user: Any) -> str:
    """A token with which a page reads the private events of its user: the topics of the permission
    hook, for `LIFETIME_S`. Raises ImproperlyConfigured without `JWT_KEY`."""
    found = load()
    now_s = int(time.time())
    claims: dict[str, Any] = {
        "iat": now_s,
        "exp": now_s + int(found.lifetime_s),
        "mercure": {"subscribe": list(found.topics(user))},
    }
    if user.is_authenticated:
        claims["sub"] = str(user.pk)
    return _signed(found, claims)


def stream_url(user: Any, topics: str | Iterable[str]) -> str:
    """The address of a user's stream for an EventSource, which can send no header: with a ticket,
    which must be opened within the server's `ticket_lifetime` (30 s) and then works for reconnects
    until the token's end. Asks the server for it. Raises ClientError; without `JWT_KEY` it has no
    ticket."""
    found = load()
    names = [topics] if isinstance(topics, str) else list(topics)
    query = [("topic", name) for name in names]
    if found.jwt_key is not None:
        query.append(("ticket", client().ticket(user_token(user))))
    public = found.public_url
    address = public if public.startswith("/") else events_url(public)
    return f"{address}?{urlencode(query)}"


def _signed(found: Settings, claims: dict[str, Any]) -> str:
    if not found.jwt_key:
        raise ImproperlyConfigured("FASTSSE has no JWT_KEY, and tokens are signed with it.")
    return jwt.encode(claims, found.jwt_key, algorithm=found.algorithm)
