"""Access by tokens: connects the guard to the routes."""

from collections.abc import Callable
from typing import Final

from fastsse.api.access import Known, Later, Then
from fastsse.api.ticket_streams import TicketStreams
from fastsse.auth.credentials import has_another_scheme
from fastsse.auth.guard import Guard, Pending, Shown
from fastsse.auth.rights import Rights
from fastsse.errors import FastsseError, Unavailable
from fastsse.http.request import Request
from fastsse.http.router import Exchange

__all__ = ["TokenAccess"]

# A connection caches its last header, up to this length.
_NOTED_BYTES_MAX: Final = 4 * 1024
# Headers that were accepted lately, over all connections. A full cache is emptied.
_SHOWN_MAX: Final = 1_024
_NOTHING_SHOWN: Final = (None, None, None)


class TokenAccess:
    """Access by tokens.

    Arguments:
        guard: verifies tokens.
        ticketed: the streams that tickets opened.
        mercure: whether requests use Mercure's path, where minimum lengths of tokens apply.
    """

    def __init__(self, guard: Guard, ticketed: TicketStreams, *, mercure: bool) -> None:
        self._guard = guard
        self._ticketed = ticketed
        self._mercure = mercure
        self._shown: dict[bytes, Shown] = {}

    def subscriber(
        self, request: Request, exchange: Exchange, then: Then, later: Later | None = None
    ) -> None:
        """Accepts a client with a valid token, or without one if that is allowed."""
        try:
            rights = self._guard.subscriber(
                request.headers,
                request.target.pairs,
                mercure=self._mercure,
                network=self._ticketed.network(request),
            )
        except Pending as pending:
            if exchange.may_wait:
                self._wait(pending, request, exchange, then, later)
            return
        then(rights)

    def _wait(
        self,
        pending: Pending,
        request: Request,
        exchange: Exchange,
        then: Then,
        later: Later | None,
    ) -> None:
        def allowed(rights: Rights | None) -> None:
            if pending.opened is not None:
                request.terms = self._ticketed.terms(pending.opened, request)
            then(rights)

        pending.wait(_answered(exchange, allowed, later))

    def check_again(self, rights: Rights | None) -> None:
        """Raises Unauthorised for a token that has expired or was revoked."""
        if rights is not None:
            self._guard.check_again(rights)

    def admit_publisher(self, request: Request) -> None:
        """Raises Unauthorised. If keys must be fetched, `publisher` decides when the body has
        arrived.

        A connection usually sends the same header again. Then only the validity in time is checked.
        """
        header = request.headers.get(b"authorization")
        by, known, shown = request.memory.shown or _NOTHING_SHOWN
        if known is None or header != known or by is not self:
            self._verify(request, header)
        elif shown is None:
            self._verify(request, header)
            if request.rights is not None:
                shown = self._guard.note(known, request.rights, mercure=self._mercure)
                request.memory.shown = self, known, shown
                self._remember(shown)
        else:
            request.rights = self._guard.again(shown)
            if request.rights is None:
                self._verify(request, header)

    def known_publisher(self, header: bytes | None) -> Known | None:
        """Accepts a header that some connection has sent twice, while its token is valid."""
        shown = None if header is None else self._shown.get(header)
        if shown is None:
            return None
        known, again = shown, self._guard.again

        def still() -> bool:
            return again(known) is not None

        return Known(shown.rights, still) if still() else None

    def _remember(self, shown: Shown) -> None:
        if len(self._shown) >= _SHOWN_MAX:
            self._shown.clear()
        self._shown[shown.header] = shown

    def _verify(self, request: Request, header: bytes | None) -> None:
        is_token = (
            header is not None
            and len(header) <= _NOTED_BYTES_MAX
            and not has_another_scheme(header)
        )
        request.memory.shown = (self, header, None) if is_token else None
        try:
            request.rights = self._guard.publisher(
                request.headers, request.target.pairs, mercure=self._mercure
            )
        except Pending as pending:
            request.pending = pending

    def publisher(self, request: Request, exchange: Exchange, then: Then) -> None:
        """Accepts a client with a valid token."""
        pending, request.pending = request.pending, None
        if pending is None:
            then(request.rights)
        else:
            pending.wait(_answered(exchange, then))


def _answered(
    exchange: Exchange, then: Then, later: Later | None = None
) -> Callable[[Rights | FastsseError | None], None]:
    """Continues when an answer was fetched."""

    def done(outcome: Rights | FastsseError | None) -> None:
        try:
            if isinstance(outcome, Unavailable) and later is not None:
                later(outcome)
            elif isinstance(outcome, FastsseError):
                exchange.fail(outcome)
            else:
                then(outcome)
        except FastsseError as error:
            exchange.fail(error)

    return done
