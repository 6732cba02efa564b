"""Finds the token of a request: in the header, then the query, then the cookie.

The first one present is used, even if it is invalid. Otherwise a page that can add one of them
could choose which token of its visitor is used. Each may appear once. An `Authorization` header
with another scheme than `Bearer`, such as the `Basic` of a staging site, is ignored.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from fastsse.errors import Unauthorised

__all__ = ["TICKET", "Credential", "credentials", "has_another_scheme", "page_origin"]

#: The query parameters: a token, or a ticket in place of a token.
AUTHORIZATION: Final = "authorization"
TICKET: Final = "ticket"
_SCHEME: Final = b"bearer"
_USUAL: Final = b"Bearer "
# Repeated headers arrive joined.
_SECOND_BEARER: Final = re.compile(rb",[ \t]*bearer\b", re.IGNORECASE)
# A token of RFC 9110 §5.6.2.
_SCHEME_FORM: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# No signed token is shorter. The Mercure hub counts the scheme and the blank of a header too.
_MERCURE_HEADER_MIN: Final = 48
_MERCURE_QUERY_MIN: Final = 41


class Credential(NamedTuple):
    """The token or ticket of a request, and where it was."""

    text: bytes
    source: Literal["header", "query", "ticket", "cookie"]


def credentials(
    headers: Mapping[bytes, bytes],
    pairs: Sequence[tuple[str, str]],
    cookie: bytes,
    *,
    mercure: bool = False,
) -> Credential | None:
    """The token or ticket of a request, or None when there is none.

    Arguments:
        headers: by lower-case name; repeated headers are joined.
        pairs: the query, decoded.
        cookie: the name of the cookie that holds a token.
        mercure: whether the minimum lengths of the Mercure protocol and its spelling of `Bearer`
            apply.

    Raises Unauthorised. O(bytes).
    """
    header = headers.get(b"authorization")
    if header is not None and not has_another_scheme(header):
        return Credential(_bearer(header, mercure), "header")
    if pairs:
        shown = [pair for pair in pairs if pair[0] in (AUTHORIZATION, TICKET)]
        if shown:
            return _of_query(shown, mercure)
    cookies = headers.get(b"cookie")
    if cookies is not None:
        return _of_cookies(cookies, cookie)
    return None


def has_another_scheme(header: bytes) -> bool:
    """Whether an `Authorization` header is complete and for another scheme than `Bearer` (RFC 9110
    §11.6.2). A scheme without credentials, credentials without a scheme, and any list that contains
    `Bearer` count as attempts to send a token."""
    if header.startswith(_USUAL):
        return False
    scheme, _, credentials = header.strip(b" \t").partition(b" ")
    if scheme.lower() == _SCHEME or _SCHEME_FORM.fullmatch(scheme) is None:
        return False
    return bool(credentials.strip(b" \t")) and _SECOND_BEARER.search(credentials) is None


def page_origin(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The origin of the page that sent a request: `Origin`, else that of `Referer`, else None. A
    publish by cookie must come from an allowed origin."""
    origin = headers.get(b"origin")
    if origin is not None:
        return origin.strip()
    referer = headers.get(b"referer")
    if not referer:
        return None
    try:
        parts = urlsplit(referer.strip())
        _ = parts.port
    except ValueError:
        return None
    if not parts.scheme or not parts.netloc or b"@" in parts.netloc:
        return None
    return b"%b://%b" % (parts.scheme.lower(), parts.netloc.lower())


def _bearer(header: bytes, mercure: bool) -> bytes:
    if header.startswith(_USUAL) and len(header) >= _MERCURE_HEADER_MIN and header[-1] > ord(" "):
        return header[len(_USUAL) :].lstrip(b" ")
    scheme, _, token = header.strip(b" \t").partition(b" ")
    if mercure and (scheme != b"Bearer" or len(header.strip(b" \t")) < _MERCURE_HEADER_MIN):
        raise Unauthorised("Authorization must be Bearer and a token.")
    token = token.strip(b" ")
    if scheme.lower() != _SCHEME or not token:
        raise Unauthorised("Authorization must be Bearer and a token.")
    return token


def _of_query(shown: Sequence[tuple[str, str]], mercure: bool) -> Credential:
    if len(shown) > 1:
        raise Unauthorised("The query must have one token or one ticket.")
    ((name, value),) = shown
    if name == TICKET:
        return Credential(value.encode(), "ticket")
    if not value or (mercure and len(value) < _MERCURE_QUERY_MIN):
        raise Unauthorised("The query parameter authorization is not a token.")
    return Credential(value.encode(), "query")


def _of_cookies(cookies: bytes, name: bytes) -> Credential | None:
    """The token in the cookies. Two cookies of one name, from two paths or domains, are ambiguous
    and refused."""
    found: bytes | None = None
    for pair in cookies.split(b";"):
        given, equals, value = pair.partition(b"=")
        if equals and given.strip(b" \t") == name:
            if found is not None:
                raise Unauthorised("The cookie with the token must appear once.")
            found = value.strip(b" \t")
    if found is None:
        return None
    if len(found) > 1 and found[:1] == found[-1:] == b'"':
        found = found[1:-1]
    if not found:
        raise Unauthorised("The cookie is not a token.")
    return Credential(found, "cookie")
