"""`/streams/__ds/…`: subscriptions that wake workers when streams have new content. Protocol
sections 6 and 7. `wakes/` does the work, in the process that orders events."""

from functools import partial
from typing import Final
from urllib.parse import unquote_to_bytes

import orjson

from fastsse.api.publish import PublishGate
from fastsse.api.stream_answers import NOT_STORED, SHIELD, answer, base_url
from fastsse.auth.rights import Rights
from fastsse.control.service import ControlClient, NoService
from fastsse.errors import BadRequest, FastsseError, Forbidden
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.responses import Response
from fastsse.http.router import BELOW, Exchange, Route
from fastsse.wakes import SUBJECT

__all__ = ["RESERVED", "wake_routes"]

#: The first segment of paths that are no streams.
RESERVED: Final = "__ds"
_BODY_BYTES_MAX: Final = 1024 * 1024
_JSON: Final = b"Content-Type: application/json\r\n" + NOT_STORED + SHIELD
_JWKS: Final = (
    b"Content-Type: application/jwk-set+json\r\nCache-Control: public, max-age=300\r\n" + SHIELD
)
_OPS: Final = {
    (b"PUT", 1, ""): "put",
    (b"GET", 1, ""): "get",
    (b"DELETE", 1, ""): "delete",
    (b"POST", 2, "streams"): "link",
    (b"DELETE", 3, "streams"): "unlink",
    (b"POST", 2, "claim"): "claim",
    (b"POST", 2, "callback"): "callback",
    (b"POST", 2, "ack"): "ack",
    (b"POST", 2, "release"): "release",
}
# Operations that need the token of a wake.
_OF_WAKE: Final = frozenset({"callback", "ack", "release"})
_WITH_BODY: Final = _OF_WAKE | {"put", "link", "claim"}


def wake_routes(
    gate: PublishGate, control: ControlClient | None, path: str
) -> dict[bytes, dict[bytes, Route]]:
    """The routes below a path of streams."""
    routes = WakeRoutes(gate, control, path)
    return {
        f"{path}/{RESERVED}".encode() + BELOW: {
            b"GET": Route(routes),
            b"PUT": Route(routes, routes.admit),
            b"POST": Route(routes, routes.admit),
            b"DELETE": Route(routes),
        }
    }


class WakeRoutes:
    """The handler of all. Loop thread only.

    Arguments:
        gate: who may publish to the topic `__ds/subscriptions/{id}` may change that subscription.
        control: the way to the service; None: there is none.
        path: of the streams, without a slash at its end.
    """

    def __init__(self, gate: PublishGate, control: ControlClient | None, path: str) -> None:
        self._gate: Final = gate
        self._control: Final = control
        self._streams_path: Final = path
        self._path: Final = f"{path}/{RESERVED}/".encode()

    def admit(self, request: Request) -> None:
        """Checks the head before the body is read. Raises Problem (4xx)."""
        op, _, _ = self._named(request)
        if op in _OF_WAKE:
            _token(request)
        else:
            self._gate.admit(request)

    def __call__(self, request: Request, exchange: Exchange) -> None:
        """Handles a request. Raises BadRequest, Problem."""
        op, name, path = self._named(request)
        asked: dict[str, object] = {"op": op, "id": name, "path": path}
        asked["base"] = base_url(request) + self._streams_path
        if op in _WITH_BODY:
            asked["body"] = _read_body(request)
        if op in _OF_WAKE:
            asked["token"] = _token(request)
        if op in _OF_WAKE or op == "jwks":
            self._ask(asked, exchange)
            return
        if request.method in (b"GET", b"DELETE"):
            self._gate.admit(request)

        def entered(rights: Rights | None) -> None:
            topic = f"{RESERVED}/subscriptions/{name}"
            topics = (topic, *_written(asked.get("body")))
            if rights is not None and not rights.covers_publish(topics):
                raise Forbidden(f"The token's mercure.publish does not cover {', '.join(topics)}.")
            ask = partial(self._ask, asked, exchange)
            self._gate.when_authorized(topics, rights, request, ask, exchange.fail)

        self._gate.enter(request, exchange, entered, exchange.fail)

    def _named(self, request: Request) -> tuple[str, str, str]:
        """The operation, the subscription and the stream in a path. Raises Problem (404)."""
        raw = request.target.raw_path[len(self._path) :]
        try:
            parts = [unquote_to_bytes(part).decode() for part in raw.split(b"/")]
        except UnicodeDecodeError:
            raise BadRequest("path", "must be UTF-8") from None
        if parts == ["jwks.json"] and request.method == b"GET":
            return "jwks", "", ""
        what = parts[2] if len(parts) > 2 else ""
        op = _OPS.get((request.method, min(len(parts) - 1, 3), what))
        if parts[0] != "subscriptions" or op is None or not parts[1]:
            raise Problem(404, "Nothing is served under this path.")
        return op, parts[1], "/".join(parts[3:])

    def _ask(self, asked: dict[str, object], exchange: Exchange) -> None:
        def done(found: bytes | FastsseError) -> None:
            if isinstance(found, NoService):
                exchange.fail(_no_service())
            elif isinstance(found, FastsseError):
                exchange.fail(found)
            else:
                exchange.respond(_response(found, is_jwks=asked["op"] == "jwks"))

        if self._control is None:
            raise _no_service()
        self._control.ask(SUBJECT, orjson.dumps(asked), done)


def _no_service() -> Problem:
    return Problem(501, "This server has no subscriptions to streams.")


def _response(found: bytes, *, is_jwks: bool) -> Response:
    said = orjson.loads(found)
    if said["status"] == 204:
        return answer(204, [NOT_STORED])
    lines = _JWKS if is_jwks else _JSON
    return Response.of(said["status"], orjson.dumps(said["body"]), lines)


def _read_body(request: Request) -> object:
    if len(request.body) > _BODY_BYTES_MAX:
        raise Problem(413, f"The body must be at most {_BODY_BYTES_MAX} bytes.")
    try:
        body = orjson.loads(bytes(request.body))
    except orjson.JSONDecodeError:
        raise BadRequest("body", "must be JSON") from None
    try:
        orjson.dumps([body])  # As part of a message to the service.
    except TypeError:
        raise BadRequest("body", "is nested too deep") from None
    return body


def _token(request: Request) -> str:
    """The token of a wake. Raises Problem (401)."""
    scheme, _, token = request.headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer" or not token.strip():
        raise Problem(401, "The token of the wake must be in the header Authorization.")
    return token.strip().decode("latin-1")


def _written(body: object) -> tuple[str, ...]:
    """The streams that the server will write to."""
    stream = body.get("wake_stream") if isinstance(body, dict) else None
    return (stream.strip("/"),) if isinstance(stream, str) else ()
