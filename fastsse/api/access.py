"""Access: who may read and publish. Every route that opens streams or accepts events asks it.

Without JWT keys, any client may read. A client with `publish_token` may publish; if that option is
not set, any client except pages of other origins may publish. With JWT keys the guard decides, in
the same way for both interfaces.
"""

import hmac
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from fastsse.auth.rights import Rights
from fastsse.errors import StreamRefused, Unavailable
from fastsse.http.cors import Cors
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.router import Exchange
from fastsse.subscriptions import Subscription

__all__ = ["CREDENTIAL_NAMES", "Access", "Known", "Later", "OpenAccess", "Then", "later_answer"]

#: Query parameters that the guard reads.
CREDENTIAL_NAMES: Final = frozenset({"authorization", "ticket"})
Then = Callable[[Rights | None], None]
Later = Callable[[Unavailable], None]
"""Answers a subscriber whose rights can't be checked now."""


class Known(NamedTuple):
    """A publisher that was accepted before.

    Attributes:
        rights: as `Access.publisher` gives them.
        still: returns whether it would be accepted again now. O(1).
    """

    rights: Rights | None
    still: Callable[[], bool]


class Access(Protocol):
    """Decides who may read and publish; a decision may need a fetch. Loop thread only."""

    def subscriber(
        self, request: Request, exchange: Exchange, then: Then, later: Later | None = None
    ) -> None:
        """Calls `then` with the rights of the subscriber, or answers with a problem; now or later.
        None: rights are not used here. `later`, if given, answers in place of a 503."""

    def check_again(self, rights: Rights | None) -> None:
        """Raises Unauthorised if the rights that `subscriber` gave have ended meanwhile. For an
        answer that has waited. O(1)."""

    def admit_publisher(self, request: Request) -> None:
        """Checks the head before the body is read. Raises Problem, Unauthorised or Forbidden."""

    def publisher(self, request: Request, exchange: Exchange, then: Then) -> None:
        """As `subscriber`, for a publisher that was admitted."""

    def known_publisher(self, header: bytes | None) -> Known | None:
        """The publisher whose only credentials are this `Authorization` header (None: no header);
        None if it was not accepted lately. O(bytes)."""


def later_answer(exchange: Exchange, request: Request, subscription: Subscription) -> Later | None:
    """The answer to a subscriber whose rights can't be checked now: a time to retry. An error
    status would stop an EventSource permanently. A HEAD request gets the status."""
    if request.method == b"HEAD":
        return None
    return lambda _: exchange.turn_away(subscription, StreamRefused("access"))


class OpenAccess:
    """Access without JWT keys.

    Arguments:
        token: the token that `Authorization: Bearer` of a publish must carry; None: no token is
            needed.
        cors: decides which pages may publish.
    """

    def __init__(self, token: str | None, cors: Cors) -> None:
        self._token = None if token is None else token.encode()
        self._cors = cors

    def subscriber(
        self, request: Request, exchange: Exchange, then: Then, later: Later | None = None
    ) -> None:
        """Accepts every subscriber."""
        then(None)

    def check_again(self, rights: Rights | None) -> None:
        """Accepts every subscriber."""

    def admit_publisher(self, request: Request) -> None:
        """Raises Problem (401, 403)."""
        if self._token is not None:
            self._authorise(request.headers.get(b"authorization"))
        self._cors.check_publish(request.headers)

    def publisher(self, request: Request, exchange: Exchange, then: Then) -> None:
        """Accepts every admitted publisher."""
        then(None)

    def known_publisher(self, header: bytes | None) -> Known | None:
        """Accepts what `admit_publisher` accepts; nothing is cached."""
        if self._token is not None:
            try:
                self._authorise(header)
            except Problem:
                return None
        return Known(None, _always)

    def _authorise(self, given: bytes | None) -> None:
        assert self._token is not None
        scheme, _, token = (given or b"").strip().partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token):
            return
        challenge = b'WWW-Authenticate: Bearer realm="fastsse"%b\r\n'
        error = b"" if given is None else b', error="invalid_token"'
        detail = "Publishing needs the header Authorization: Bearer <publish_token>."
        raise Problem(401, detail, field="Authorization", header_lines=challenge % error)


def _always() -> bool:
    return True
