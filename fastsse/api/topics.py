"""`POST /topics/end`: ends topics. Topics never stand in a path, since proxies rewrite `%2F`."""

from typing import Final

import orjson

from fastsse.api.access import CREDENTIAL_NAMES
from fastsse.api.publish import PublishGate
from fastsse.errors import InvalidEvent
from fastsse.events import Event
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.responses import Response, json_response
from fastsse.http.router import Exchange, Route
from fastsse.hub import Published

__all__ = ["topic_routes"]

_NO_BODY: Final = "The topics are named in the query (topic=…); the body must be empty."


def topic_routes(gate: PublishGate) -> dict[bytes, dict[bytes, Route]]:
    """The routes that change the state of topics.

    Arguments:
        gate: the way to the hub; who may publish to topics may end them.
    """
    end = EndTopics(gate)
    return {b"/topics/end": {b"POST": Route(end, end.admit)}}


class EndTopics:
    """Ends topics: no more events are taken, and streams that follow nothing else are over."""

    def __init__(self, gate: PublishGate) -> None:
        self._gate = gate

    def admit(self, request: Request) -> None:
        """Checks the head. Raises Problem (401, 403, 406, 429)."""
        self._gate.admit(request)

    def __call__(self, request: Request, exchange: Exchange) -> None:
        """Handles an admitted POST. Raises InvalidEvent, Problem (400) or Forbidden. The answer has
        the id of the end; of topics that have ended already, that of then."""
        if request.body:
            raise Problem(400, _NO_BODY, field="body")
        self._gate.publish((Event.end(topics_of(request)),), request, exchange, _answer)


def topics_of(request: Request, *others: str) -> tuple[str, ...]:
    """The topics in a query that may have `others` too. Raises InvalidEvent."""
    allowed = ("topic", *others)
    for name, _ in request.target.pairs:
        if name not in allowed and name not in CREDENTIAL_NAMES:
            raise InvalidEvent(name, f"is unknown; allowed are {', '.join(allowed)}")
    topics = tuple(value for name, value in request.target.pairs if name == "topic")
    if not topics:
        raise InvalidEvent("topic", "is missing")
    return topics


def _answer(published: Published) -> Response:
    members = {"id": published.last.decode()}
    return json_response(orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE))
