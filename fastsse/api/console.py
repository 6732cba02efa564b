"""`GET /`: the console. A page of plain files without an external asset; operators see more."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Final

from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.responses import Response
from fastsse.http.router import BELOW, Exchange, Route
from fastsse.reserved import HUB_PATH

__all__ = ["console_routes"]

# Only files of this server run, even if an event injects markup into the page. Trusted types keep
# text from becoming markup.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_FOLDER: Final = b"/console"
_LINES: Final = (
    f"Content-Security-Policy: {_POLICY}\r\n"
    f'Link: <{HUB_PATH}>; rel="mercure"\r\n'
    "X-Content-Type-Options: nosniff\r\n"
    "X-Frame-Options: DENY\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "Cross-Origin-Opener-Policy: same-origin\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n"
    "Cache-Control: no-cache\r\n"
)


def console_routes() -> dict[bytes, dict[bytes, Route]]:
    """The routes of the page and of its files."""
    answers = _answers()
    page = answers.pop(b"index.html")

    def serve(request: Request, exchange: Exchange) -> None:
        answer = answers.get(request.target.raw_path.removeprefix(_FOLDER + b"/"))
        if answer is None:
            raise Problem(404, "Nothing is served under this path.")
        exchange.respond(answer)

    return {
        b"/": {b"GET": Route(lambda request, exchange: exchange.respond(page))},
        _FOLDER + BELOW: {b"GET": Route(serve)},
    }


def _answers() -> dict[bytes, Response]:
    """The answer for each file, by its name."""
    folder = files(__package__) / "page"
    return {
        file.name.encode(): _answer(file.name, file.read_bytes(), _TYPES)
        for file in folder.iterdir()
        if file.name.rpartition(".")[2] in _TYPES
    }


def _answer(name: str, content: bytes, types: Mapping[str, str]) -> Response:
    kind = types[name.rpartition(".")[2]]
    return Response.of(200, content, f"Content-Type: {kind}\r\n{_LINES}".encode())
