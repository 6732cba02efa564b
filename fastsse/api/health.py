"""Health, readiness, metrics and statistics."""

from collections.abc import Callable
from functools import partial
from typing import Final

from fastsse.control.stats import IS_READY, StatsClient
from fastsse.errors import FastsseError, Unavailable
from fastsse.http.problems import retry_problem
from fastsse.http.request import Request
from fastsse.http.responses import JSON, NOT_STORED, Response, text_response
from fastsse.http.router import Exchange, Handler, Route
from fastsse.metrics import CONTENT_TYPE, OPEN_CONTENT_TYPE

__all__ = ["Lines", "health_routes", "no_figures"]

_VARY: Final = b"Vary: Accept\r\n" + NOT_STORED
_METRICS_LINES: Final = b"Content-Type: %s\r\n" % CONTENT_TYPE.encode() + _VARY
_OPEN_LINES: Final = b"Content-Type: %s\r\n" % OPEN_CONTENT_TYPE.encode() + _VARY
_ALIVE: Final = text_response(200, "alive")
_READY: Final = text_response(200, IS_READY)


Lines = Callable[[Callable[[bytes], None]], None]
"""Gives further lines of `/metrics`."""
_END: Final = b"# EOF\n"


def health_routes(
    stats: StatsClient,
    unready: Callable[[Callable[[str | None], None]], None],
    more: Lines | None = None,
) -> dict[bytes, dict[bytes, Route]]:
    """`/healthz`, `/readyz`, `/metrics` and `/stats`, for the whole service.

    `stats` gives the bodies. `unready` calls its argument with a few words that say why new streams
    or publishers are refused (`draining`, `full`, …), or None, or a remark that begins with
    IS_READY. `more` gives lines that `/metrics` has in addition.
    """

    def live(request: Request, exchange: Exchange) -> None:
        # A worker that can't reach the hub for longer than a restart takes is unhealthy.
        def judge(body: bytes | FastsseError) -> None:
            is_well = not isinstance(body, FastsseError)
            exchange.respond(_ALIVE if is_well else text_response(503, "hub"))

        stats.ping(judge)

    def ready(request: Request, exchange: Exchange) -> None:
        def judge(reason: str | None) -> None:
            if reason is None:
                exchange.respond(_READY)
            else:
                exchange.respond(text_response(200 if reason.startswith(IS_READY) else 503, reason))

        unready(judge)

    def expose(request: Request, exchange: Exchange) -> None:
        is_open = b"application/openmetrics-text" in request.headers.get(b"accept", b"")
        lines = _OPEN_LINES if is_open else _METRICS_LINES
        respond = _responder(exchange, lines)
        stats.metrics(respond if more is None else partial(_add, more, respond), is_open=is_open)

    def show_stats(request: Request, exchange: Exchange) -> None:
        stats.stats(_responder(exchange, JSON))

    return {
        b"/healthz": _get(live),
        b"/readyz": _get(ready),
        b"/metrics": _get(expose),
        b"/stats": _get(show_stats),
    }


def _add(
    more: Lines, respond: Callable[[bytes | FastsseError], None], body: bytes | FastsseError
) -> None:
    """Answers with further lines, before the end that OpenMetrics has."""
    if isinstance(body, FastsseError):
        respond(body)
        return
    text = body.removesuffix(_END)
    end = _END if len(text) < len(body) else b""
    more(lambda lines: respond(text + lines + end))


def _responder(exchange: Exchange, lines: bytes) -> Callable[[bytes | FastsseError], None]:
    """Answers with a body, or with the problem for an error."""

    def respond(body: bytes | FastsseError) -> None:
        if isinstance(body, FastsseError):
            exchange.fail(no_figures(body))
        else:
            exchange.respond(Response.of(200, body, lines))

    return respond


def no_figures(error: FastsseError) -> FastsseError:
    """The answer when the control service gave no figures."""
    if not isinstance(error, Unavailable):
        return error
    return retry_problem(error, "The hub process did not answer in time. Retry the request later.")


def _get(handler: Handler) -> dict[bytes, Route]:
    return {b"GET": Route(handler)}
