"""Routes for tokens and streams: tickets, renewal, revocation, and the answer to a ping.

    POST /tickets           with a token in the header: returns a ticket for the URL of an
    EventSource
    POST /renew?stream=…    with a new token: extends the stream to the lifetime of that token
    POST /revoke            {"jti": …, "sub": …, "issued_before": …}: ends streams, refuses tokens
    POST /pong?stream=…     answers `fastsse.ping`

The id of a stream is sent only in its own events and can't be guessed. The stream may be in any
worker.
"""

from functools import partial
from typing import Final

import orjson

from fastsse.api.access import Access
from fastsse.api.rate_limits import RequestLimits
from fastsse.auth.credentials import has_another_scheme
from fastsse.auth.guard import Guard
from fastsse.auth.renewal import Renewals
from fastsse.auth.revocations import Revocation, Revocations
from fastsse.auth.rights import REVOKE_TOPIC, Rights
from fastsse.auth.tickets import Tickets
from fastsse.control.stream_lookup import StreamLookup
from fastsse.errors import BadRequest, FastsseError, Unauthorised
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.responses import NOT_STORED, STATUS_LINES, Response, json_response
from fastsse.http.router import Exchange, Paths, Route, admit_length
from fastsse.hub.streams import Streams, may_be_stream_id

__all__ = ["pong_routes", "token_routes"]

_DONE: Final = Response(STATUS_LINES[204] + NOT_STORED)
_PONG: Final = b"p"
_STREAM_ID_MAX: Final = 255
_BODY_MAX: Final = 4 * 1024


def pong_routes(request_limits: RequestLimits, lookup: StreamLookup, streams: Streams) -> Paths:
    """`/pong`, for streams with visible pings."""

    def here(stream_id: bytes, _: bytes) -> bytes | None:
        return b"" if streams.pong(stream_id) else None

    def pong(request: Request, exchange: Exchange) -> None:
        request_limits.take_request(request, None)
        stream_id = _stream_id(request)
        _check_given_out(stream_id)
        lookup.reach(_PONG, stream_id, b"", partial(_answer_found, exchange))

    lookup.teach(_PONG, here)
    return {b"/pong": {b"POST": Route(pong, _admit_small)}}


def token_routes(guard: Guard, access: Access, lookup: StreamLookup, streams: Streams) -> Paths:
    """`/tickets`, `/renew` and `/revoke`; they exist when JWT keys are set."""
    return {
        b"/tickets": {b"POST": _ticket_route(guard.tickets, access)},
        b"/renew": {b"POST": _renewal_route(Renewals(lookup, streams), access)},
        b"/revoke": {b"POST": _revocation_route(guard.revocations, access)},
    }


def _ticket_route(tickets: Tickets, access: Access) -> Route:
    def issue(request: Request, exchange: Exchange) -> None:
        shown = request.headers.get(b"authorization")
        # A page of another origin can make the browser send a cookie or Basic credentials.
        if shown is None or has_another_scheme(shown):
            raise Unauthorised("A ticket requires a token in the header Authorization: Bearer.")

        def issued(ticket: str | FastsseError) -> None:
            if isinstance(ticket, FastsseError):
                exchange.fail(ticket)
            else:
                exchange.respond(_json({"ticket": ticket, "expires_in_s": tickets.lifetime_s}))

        def allowed(rights: Rights | None) -> None:
            assert rights is not None
            tickets.issue(rights, issued)

        access.subscriber(request, exchange, allowed)

    return Route(issue, _admit_small)


def _renewal_route(renewals: Renewals, access: Access) -> Route:
    def renew(request: Request, exchange: Exchange) -> None:
        stream_id = _stream_id(request)
        if any(name == "ticket" for name, _ in request.target.pairs):
            raise Unauthorised("Renewing a stream requires a token; a ticket only opens streams.")

        def allowed(rights: Rights | None) -> None:
            assert rights is not None
            _check_given_out(stream_id)
            renewals.renew(stream_id, rights, partial(_answer_renewed, exchange))

        access.subscriber(request, exchange, allowed)

    return Route(renew, _admit_small)


def _revocation_route(revocations: Revocations, access: Access) -> Route:
    def revoke(request: Request, exchange: Exchange) -> None:
        def allowed(rights: Rights | None) -> None:
            assert rights is not None
            rights.check_publish((REVOKE_TOPIC,))
            revocation = Revocation.of_json(request.body)
            revocations.revoke(revocation, partial(_answer_done, exchange))

        access.publisher(request, exchange, allowed)

    return Route(revoke, access.admit_publisher)


def _admit_small(request: Request) -> None:
    """Accepts a small body, which is ignored: `sendBeacon` always sends one. No token has been
    checked yet, so its size is bounded. Raises Problem (411, 413)."""
    admit_length(request, _BODY_MAX, f"A body may have at most {_BODY_MAX} bytes; it is ignored.")


def _stream_id(request: Request) -> bytes:
    """The query parameter `stream`. Raises BadRequest."""
    given = [value.encode() for name, value in request.target.pairs if name == "stream"]
    if len(given) != 1 or not 0 < len(given[0]) <= _STREAM_ID_MAX:
        raise BadRequest("stream", "must be given once: the stream id from its control events")
    return given[0]


def _check_given_out(stream_id: bytes) -> None:
    """Raises Problem (404) for an id that no stream can have, without a lookup."""
    if not may_be_stream_id(stream_id):
        raise _no_stream()


def _no_stream() -> Problem:
    return Problem(404, "There is no such stream.", field="stream")


def _answer_found(exchange: Exchange, answer: bytes | FastsseError | None) -> None:
    _answer_renewed(exchange, answer if isinstance(answer, FastsseError) else answer is not None)


def _answer_renewed(exchange: Exchange, outcome: bool | FastsseError) -> None:
    if isinstance(outcome, FastsseError):
        exchange.fail(outcome)
    elif outcome:
        exchange.respond(_DONE)
    else:
        exchange.fail(_no_stream())


def _answer_done(exchange: Exchange, outcome: FastsseError | None) -> None:
    if outcome is None:
        exchange.respond(_DONE)
    else:
        exchange.fail(outcome)


def _json(members: dict[str, object]) -> Response:
    return json_response(orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE))
