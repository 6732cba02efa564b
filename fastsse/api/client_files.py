"""`GET /client.js` and `/client/…`: the JavaScript client, as built from `clients/js`.

    /client.js                  the core; revalidated by its ETag
    /client/NAME.js             an entry point
    /client/HASH/NAME.js        the same under a name of its content: cached for a year

`make client-js` writes the files in `fastsse/api/client`.
"""

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Final, NamedTuple

from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.responses import STATUS_LINES, Response
from fastsse.http.router import BELOW, Exchange, Route

__all__ = ["client_routes"]

_FOLDER: Final = "client"
_CORE: Final = "index.js"
_HASH_CHARS: Final = 16
# Pages of any origin may load it, because it contains no secret.
_LINES: Final = (
    "Content-Type: text/javascript; charset=utf-8\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Cross-Origin-Resource-Policy: cross-origin\r\n"
)
_REVALIDATED: Final = "Cache-Control: no-cache\r\n"
_IMMUTABLE: Final = "Cache-Control: public, max-age=31536000, immutable\r\n"


class _File(NamedTuple):
    """The answers for one file."""

    named: Response
    hashed: Response
    unchanged: Response
    etag: bytes


def client_routes() -> dict[bytes, Mapping[bytes, Route]]:
    """The routes of the client's files. Reads them once."""
    sources = {
        entry.name: entry.read_bytes()
        for entry in (files(__package__) / _FOLDER).iterdir()
        if entry.name.endswith(".js")
    }
    # One hash for all: a file imports its neighbours under the same hash.
    whole = hashlib.sha256(b"".join(sources[name] for name in sorted(sources)))
    hash_ = whole.hexdigest()[:_HASH_CHARS]
    known = {name: _answers(name, body, hash_) for name, body in sources.items()}
    folder = f"/{_FOLDER}/"

    def core(request: Request, exchange: Exchange) -> None:
        exchange.respond(_named(known[_CORE], request.headers))

    def below(request: Request, exchange: Exchange) -> None:
        path = request.target.path.decode("latin-1").removeprefix(folder)
        shown, _, name = path.rpartition("/")
        # The core loads its neighbours from `client/`, so that `/client.js` finds them too.
        shown = shown.removesuffix(_FOLDER).removesuffix("/")
        file = known.get(name)
        if file is None or "/" in shown:
            raise Problem(404, f"The client has {', '.join(sorted(known))}.")
        # Another hash comes from a node with another version, so the answer must not be cached.
        is_ours = shown == hash_
        exchange.respond(file.hashed if is_ours else _named(file, request.headers))

    return {
        b"/client.js": {b"GET": Route(core)},
        folder.encode().removesuffix(b"/") + BELOW: {b"GET": Route(below)},
    }


def _answers(name: str, body: bytes, hash_: str) -> _File:
    etag = f'"{hash_}"'
    place = f"ETag: {etag}\r\nContent-Location: /{_FOLDER}/{hash_}/{name}\r\n"
    named = f"{_LINES}{_REVALIDATED}{place}".encode()
    return _File(
        Response.of(200, body, named),
        Response.of(200, body, f"{_LINES}{_IMMUTABLE}ETag: {etag}\r\n".encode()),
        Response(STATUS_LINES[304] + named),
        etag.encode(),
    )


def _named(file: _File, headers: Mapping[bytes, bytes]) -> Response:
    """The answer for a name without a hash; 304 for a browser that has it (RFC 9110 §13.1.2)."""
    has_it = file.etag in headers.get(b"if-none-match", b"")
    return file.unchanged if has_it else file.named
