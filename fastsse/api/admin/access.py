"""Operators: clients with the claim `fastsse.console`, or with the console password.

Credentials are accepted in `Authorization: Bearer` only. A browser never adds that header by
itself, so a page of another site can't use them.

Without JWT keys and without a password, clients of this machine are operators, if every listener
has a loopback address. Of web pages, only the server's own are accepted then.
"""

import hmac
from collections.abc import Callable
from typing import Final, Literal

from fastsse.auth.guard import Guard, Pending
from fastsse.auth.rights import Rights
from fastsse.errors import FastsseError, Forbidden, Unauthorised
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.router import Exchange

__all__ = ["ConsoleAccess", "Role"]

Role = Literal["read", "act"]
Operator = Callable[[str], None]
"""Is called with the name of an operator, for the audit log."""
_CLOSED: Final = (
    "Set console_password, or JWT keys and a token with the claim fastsse.console. Without both, "
    "only a server that listens on loopback addresses alone answers here, and not behind a proxy."
)


class ConsoleAccess:
    """Decides who may look and act. Loop thread only.

    Arguments:
        guard: verifies tokens; None: there are no JWT keys.
        password: the console password; None: there is none.
        is_local: whether all listeners have loopback addresses and no proxy is configured.
    """

    def __init__(self, guard: Guard | None, password: str | None, *, is_local: bool) -> None:
        self._guard = guard
        self._password = None if password is None else password.encode()
        self._is_local = is_local

    def allow(self, request: Request, exchange: Exchange, role: Role, then: Operator) -> None:
        """Calls `then` if the sender of a request has a role, now or later. Before that, it sets
        `request.rights` to those of the token. Otherwise raises Unauthorised, Forbidden or Problem
        (403), or responds with it later."""
        header = request.headers.get(b"authorization")
        if self._password is not None and self._is_password(header):
            then("password")
        elif self._guard is not None:
            self._by_token(self._guard, request, exchange, role, then)
        elif self._password is not None:
            raise Unauthorised("The console requires its password: Authorization: Bearer <…>.")
        else:
            self._check_local(request)
            then("local")

    def _is_password(self, header: bytes | None) -> bool:
        assert self._password is not None
        scheme, _, given = (header or b"").strip().partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._password)

    def _by_token(
        self, guard: Guard, request: Request, exchange: Exchange, role: Role, then: Operator
    ) -> None:
        def judge(outcome: Rights | FastsseError | None) -> None:
            try:
                if isinstance(outcome, FastsseError):
                    raise outcome
                assert outcome is not None
                if outcome.console != role and outcome.console != "act":
                    raise Forbidden(f"The token's fastsse.console must be {role}.")
                request.rights = outcome
                then(outcome.subject or "token")
            except FastsseError as error:
                exchange.fail(error)

        try:
            rights = guard.operator(request.headers.get(b"authorization"))
        except Pending as pending:
            pending.wait(judge)
            return
        judge(rights)

    def _check_local(self, request: Request) -> None:
        if not self._is_local or b"x-forwarded-for" in request.headers:
            raise Problem(403, _CLOSED, field="console_password")
        origin = request.headers.get(b"origin")
        if origin is not None and not _is_own(origin, request.headers.get(b"host", b"")):
            raise Forbidden("Pages of other origins may not use the console.")


def _is_own(origin: bytes, host: bytes) -> bool:
    """Whether a page was loaded from the host that the request names. The Host was checked
    before."""
    _, _, authority = origin.strip().lower().partition(b"://")
    return bool(authority) and authority == host.strip().lower()
