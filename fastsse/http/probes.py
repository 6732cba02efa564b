"""Health, readiness, metrics and statistics."""

from collections.abc import Callable
from typing import Final

import orjson

from fastsse.http.request import Request
from fastsse.http.responses import JSON, NOT_STORED, Response, text_response
from fastsse.http.routes import Exchange, Handler, Route
from fastsse.metrics import CONTENT_TYPE, Metrics

__all__ = ["probe_routes"]

_METRICS_LINES: Final = b"Content-Type: %s\r\n" % CONTENT_TYPE.encode() + NOT_STORED
_ALIVE: Final = text_response(200, "alive")
_READY: Final = text_response(200, "ready")


def probe_routes(
    metrics: Metrics, unready: Callable[[], str | None]
) -> dict[bytes, dict[bytes, Route]]:
    """`/healthz`, `/readyz`, `/metrics` and `/stats`.

    `unready` gives in a word why newcomers are turned away (`draining`, `full`), else None.
    """

    def ready(request: Request, exchange: Exchange) -> None:
        reason = unready()
        exchange.respond(_READY if reason is None else text_response(503, reason))

    def expose(request: Request, exchange: Exchange) -> None:
        exchange.respond(Response.of(200, metrics.exposition(), _METRICS_LINES))

    def tell(request: Request, exchange: Exchange) -> None:
        body = orjson.dumps(metrics.stats(), option=orjson.OPT_APPEND_NEWLINE)
        exchange.respond(Response.of(200, body, JSON))

    return {
        b"/healthz": _get(lambda request, exchange: exchange.respond(_ALIVE)),
        b"/readyz": _get(ready),
        b"/metrics": _get(expose),
        b"/stats": _get(tell),
    }


def _get(handler: Handler) -> dict[bytes, Route]:
    return {b"GET": Route(handler)}
