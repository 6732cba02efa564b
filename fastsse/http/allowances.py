"""What a request costs its client of what one may do: taken when it comes, or it is refused."""

import math
from typing import Final

from fastsse.auth.rights import Rights
from fastsse.http.access import Access, Then
from fastsse.http.clients import Clients
from fastsse.http.problems import Problem
from fastsse.http.quotas import Owner, Quotas
from fastsse.http.request import Request
from fastsse.http.routes import Exchange

__all__ = ["Allowances", "Counted"]


class Allowances:
    """Takes from the accounts of requests' clients. Loop thread only; each call is O(1).

    Arguments:
        clients: tells who they are.
        quotas: their accounts.
    """

    def __init__(self, clients: Clients, quotas: Quotas) -> None:
        self._clients = clients
        self._quotas = quotas

    @property
    def active(self) -> bool:
        """Whether anything is limited."""
        return self._quotas.active

    def take_publish(self, request: Request) -> None:
        """Counts a publish, as far as is known whose it is. Raises Problem (429)."""
        _refuse(self._quotas.publish_wait_s(self._owner(request, request.rights)), "publishes")

    def take_publish_late(self, request: Request) -> None:
        """Counts it for its subject, which was not known when its address was asked. Raises
        Problem (429)."""
        owner = self._owner(request, request.rights)._replace(address="")
        _refuse(self._quotas.publish_wait_s(owner), "publishes")

    def published_more(self, request: Request, events: int) -> None:
        """A publish that was counted held so many events more than one."""
        self._quotas.published_more(self._owner(request, request.rights), events)

    def take_request(self, request: Request, rights: Rights | None) -> None:
        """Counts a request that neither publishes nor opens a stream. Raises Problem (429)."""
        if self._quotas.active:
            _refuse(self._quotas.request_wait_s(self._owner(request, rights)), "asks")

    def _owner(self, request: Request, rights: Rights | None) -> Owner:
        client = self._clients.address(request.peer, request.headers.get(b"x-forwarded-for"))
        return self._quotas.owner(client, None if rights is None else rights.subject)


class Counted:
    """Access to what is neither publishing nor a stream: who may is counted as `take_request`."""

    def __init__(self, access: Access, allowances: Allowances) -> None:
        self._access: Final = access
        self._allowances: Final = allowances

    def subscriber(self, request: Request, exchange: Exchange, then: Then) -> None:
        """As `Access`; `then` is not called for who is over a limit."""
        self._access.subscriber(request, exchange, self._counting(request, then))

    def admit_publisher(self, request: Request) -> None:
        """As `Access`."""
        self._access.admit_publisher(request)

    def publisher(self, request: Request, exchange: Exchange, then: Then) -> None:
        """As `Access`; `then` is not called for who is over a limit."""
        self._access.publisher(request, exchange, self._counting(request, then))

    def _counting(self, request: Request, then: Then) -> Then:
        def counted(rights: Rights | None) -> None:
            self._allowances.take_request(request, rights)
            then(rights)

        return counted


def _refuse(wait_s: float, does: str) -> None:
    if wait_s:
        after = b"Retry-After: %d\r\n" % math.ceil(wait_s)
        raise Problem(429, f"This client {does} too much.", header_lines=after)
