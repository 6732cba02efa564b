"""Who may read and publish in a mounted application: the application decides."""

import inspect
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from fastsse.api.access import Known, Later, Then
from fastsse.asgi.exchange import Scope
from fastsse.auth.rights import Rights
from fastsse.config import Config
from fastsse.errors import FastsseError, Forbidden, Unauthorised
from fastsse.http.cors import Cors
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.router import Exchange

__all__ = ["Authorize", "Grants", "MountAccess", "rights_of"]

_REFUSED: Final = "The application does not allow this."


@dataclass(frozen=True, slots=True)
class Grants:
    """What a client of a mounted application may do.

    Arguments:
        subscribe: topics whose private events it may read: names, URI templates, or `*`.
        publish: topics that it may publish to by HTTP.
        subject: who it is, for limits and for revoking.
        payload: any JSON value, shown in presence.
        expires_s: unix seconds at which its streams end; None: no end.
    """

    subscribe: Iterable[str] = ()
    publish: Iterable[str] = ()
    subject: str | None = None
    payload: object = None
    expires_s: float | None = None


Answer = Grants | Iterable[str] | None
Authorize = Callable[[Scope], Answer | Awaitable[Answer]]
"""Called with the scope of each request; returns the grants, or the topics of `subscribe` alone;
None refuses with 403. An exception with a `status_code` from 400 to 599 refuses with that."""


async def rights_of(authorize: Authorize, scope: Scope) -> Rights:
    """The rights of a client. Raises Forbidden, Problem, or what `authorize` raises."""
    try:
        answer = authorize(scope)
        # Nearly all answers are grants, and the other question is a slow one.
        if not isinstance(answer, Grants) and inspect.isawaitable(answer):
            answer = await answer
    except FastsseError:
        raise
    except Exception as error:
        problem = _as_problem(error)
        if problem is None:
            raise
        raise problem from error
    if answer is None:
        raise Forbidden(_REFUSED)
    if isinstance(answer, Grants):
        return _rights(answer)
    if isinstance(answer, str | bytes | bool):
        raise TypeError("authorize returns fastsse.Grants, a list of topics, or None")
    return Rights((), answer)


def _rights(grants: Grants) -> Rights:
    return Rights(
        grants.publish,
        grants.subscribe,
        grants.payload,
        grants.subject,
        None,
        None,
        grants.expires_s,
    )


def _as_problem(error: Exception) -> Problem | None:
    """The answer that an exception of a web framework stands for."""
    status = getattr(error, "status_code", None)
    if not isinstance(status, int) or not 400 <= status <= 599:
        return None
    return Problem(status, str(getattr(error, "detail", None) or _REFUSED))


class MountAccess:
    """An `api.access.Access`: what `rights_of` found stands in the request. Loop thread only.

    Arguments:
        config: says which pages of other origins may publish.
    """

    def __init__(self, config: Config) -> None:
        self._cors = Cors(config.cors_origins, config.cors_headers, cross_publish=False)

    def subscriber(
        self, request: Request, exchange: Exchange, then: Then, later: Later | None = None
    ) -> None:
        """The rights that the application gave; None: public events only."""
        then(request.rights)

    def check_again(self, rights: Rights | None) -> None:
        """Raises Unauthorised for grants that have ended."""
        if rights is not None and rights.has_expired(time.time()):
            raise Unauthorised("The grants have ended (expires_s).")

    def admit_publisher(self, request: Request) -> None:
        """Raises Forbidden or Problem."""
        if request.rights is None or not request.rights.publish:
            raise Forbidden("The application does not let this client publish.")
        self._cors.check_publish(request.headers)

    def publisher(self, request: Request, exchange: Exchange, then: Then) -> None:
        """The rights that the application gave."""
        then(request.rights)

    def known_publisher(self, header: bytes | None) -> Known | None:
        """None: each request is decided by the application."""
        return None
