"""`GET /`: a page to subscribe, publish and watch events. One file without external assets."""

import base64
import hashlib
import re
from importlib.resources import files
from typing import Final

from fastsse.http.responses import Response
from fastsse.http.router import Route
from fastsse.reserved import HUB_PATH

__all__ = ["console_routes"]

_INLINE: Final = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)
# Only the script and the style of this file run, also if an event injects markup into the page.
_POLICY: Final = (
    "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def console_routes() -> dict[bytes, dict[bytes, Route]]:
    """The route of the page."""
    page = _response((files(__package__) / "console.html").read_bytes())
    return {b"/": {b"GET": Route(lambda request, exchange: exchange.respond(page))}}


def _response(html: bytes) -> Response:
    hashes = {kind.decode(): _hash(text) for kind, text in _INLINE.findall(html)}
    lines = (
        "Content-Type: text/html; charset=utf-8\r\n"
        f"Content-Security-Policy: {_POLICY.format(**hashes)}\r\n"
        f'Link: <{HUB_PATH}>; rel="mercure"\r\n'
        "X-Content-Type-Options: nosniff\r\n"
        "Referrer-Policy: no-referrer\r\n"
        "Cross-Origin-Opener-Policy: same-origin\r\n"
        "Cross-Origin-Resource-Policy: same-origin\r\n"
        "Cache-Control: no-cache\r\n"
    )
    return Response.of(200, html, lines.encode())


def _hash(text: bytes) -> str:
    """CSP 3 §2.3.1, hash-source."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"
