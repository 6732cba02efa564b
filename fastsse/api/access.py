"""Who may read and publish: asked by every route that opens streams or takes events.

Without JWT keys anyone may read, and whoever has `publish_token`, or where there is none anyone
but pages of other origins, may publish. With keys the guard says it, of both interfaces alike.
"""

import hmac
from collections.abc import Callable
from typing import Final, Protocol

from fastsse.auth.rights import Rights
from fastsse.http.cors import Cors
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.router import Exchange

__all__ = ["CREDENTIAL_NAMES", "Access", "OpenAccess", "Then"]

#: What the query may hold for the guard.
CREDENTIAL_NAMES: Final = frozenset({"authorization", "ticket"})
Then = Callable[[Rights | None], None]


class Access(Protocol):
    """The question and its answer, which may have to be fetched. Loop thread only."""

    def subscriber(self, request: Request, exchange: Exchange, then: Then) -> None:
        """Calls `then` with the rights of who wants to read, or answers; now or later. None means
        that there are no rights here at all."""

    def admit_publisher(self, request: Request) -> None:
        """Looks at the head before the body is read. Raises Problem, Unauthorised or Forbidden."""

    def publisher(self, request: Request, exchange: Exchange, then: Then) -> None:
        """As `subscriber`, for who wants to publish and was admitted."""


class OpenAccess:
    """Access without JWT keys.

    Arguments:
        token: what `Authorization: Bearer` of a publish must hold; None lets anyone publish.
        cors: says which pages may.
    """

    def __init__(self, token: str | None, cors: Cors) -> None:
        self._token = None if token is None else token.encode()
        self._cors = cors

    def subscriber(self, request: Request, exchange: Exchange, then: Then) -> None:
        """Anyone."""
        then(None)

    def admit_publisher(self, request: Request) -> None:
        """Raises Problem (401, 403)."""
        if self._token is not None:
            self._authorise(request.headers.get(b"authorization"))
        self._cors.check_publish(request.headers)

    def publisher(self, request: Request, exchange: Exchange, then: Then) -> None:
        """Whoever was admitted."""
        then(None)

    def _authorise(self, given: bytes | None) -> None:
        assert self._token is not None
        scheme, _, token = (given or b"").strip().partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token):
            return
        challenge = b'WWW-Authenticate: Bearer realm="fastsse"%b\r\n'
        error = b"" if given is None else b', error="invalid_token"'
        detail = "Publishing needs the header Authorization: Bearer <publish_token>."
        raise Problem(401, detail, field="Authorization", header_lines=challenge % error)
