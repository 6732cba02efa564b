"""`POST /topics/end` ends topics, `DELETE /topics` purges one, `DELETE /events` deletes an event.

Topics are never part of a path, because proxies rewrite `%2F`. All routes need the rights of a
publisher.
"""

from typing import Final

import orjson

from fastsse.api.access import CREDENTIAL_NAMES
from fastsse.api.publish import PublishGate
from fastsse.errors import InvalidEvent
from fastsse.events import ID_BYTES_MAX, Event, check_topic
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.responses import Response, json_response
from fastsse.http.router import Exchange, Route
from fastsse.hub import Hub, Published

__all__ = ["DeleteEvent", "topic_routes"]

_NO_BODY: Final = "The topics are named in the query (topic=…); the body must be empty."


def topic_routes(gate: PublishGate, hub: Hub) -> dict[bytes, dict[bytes, Route]]:
    """The routes that change the state of topics.

    Arguments:
        gate: a client that may publish to the topics may do this.
        hub: deletes.
    """
    end, purge = EndTopics(gate), PurgeTopic(gate, hub)
    return {
        b"/topics/end": {b"POST": Route(end, end.admit)},
        b"/topics": {b"DELETE": Route(purge, purge.admit)},
    }


class EndTopics:
    """Ends topics: no more events are accepted, and streams without another topic are over."""

    def __init__(self, gate: PublishGate) -> None:
        self._gate = gate

    def admit(self, request: Request) -> None:
        """Checks the head. Raises Problem (401, 403, 406, 429)."""
        self._gate.admit(request)

    def __call__(self, request: Request, exchange: Exchange) -> None:
        """Handles an admitted POST. Raises InvalidEvent, Problem (400) or Forbidden. The answer has
        the id of the end, for topics that have ended already of the earlier end."""
        if request.body:
            raise Problem(400, _NO_BODY, field="body")
        self._gate.publish((Event.end(topics_of(request)),), request, exchange, _answer)


class PurgeTopic:
    """Deletes the data of all events of a topic. Its state stays, and there is no gap."""

    def __init__(self, gate: PublishGate, hub: Hub) -> None:
        self._gate = gate
        self._hub = hub

    def admit(self, request: Request) -> None:
        """Checks the head. Raises Problem (401, 403, 406, 429)."""
        self._gate.admit(request)

    def __call__(self, request: Request, exchange: Exchange) -> None:
        """Handles an admitted DELETE. Raises InvalidEvent, Problem (400) or Forbidden."""
        (topic,) = _only_topic(request)
        check_topic(topic)
        self._gate.change(
            request,
            exchange,
            (topic,),
            lambda check, done: self._hub.purge_topic(topic, done),
            _answer,
        )


class DeleteEvent:
    """Deletes the data of one event. The publisher must have the right to all its topics."""

    def __init__(self, gate: PublishGate, hub: Hub) -> None:
        self._gate = gate
        self._hub = hub

    def admit(self, request: Request) -> None:
        """Checks the head. Raises Problem (401, 403, 406, 429)."""
        self._gate.admit(request)

    def __call__(self, request: Request, exchange: Exchange) -> None:
        """Handles an admitted DELETE. Raises InvalidEvent, Problem (400) or Forbidden."""
        (topic,) = _only_topic(request, "id")
        check_topic(topic)
        ids = [value for name, value in request.target.pairs if name == "id"]
        if len(ids) != 1:
            raise InvalidEvent("id", "must be given once" if ids else "is missing")
        if not 0 < len(ids[0].encode("utf-8", "surrogatepass")) <= ID_BYTES_MAX:
            raise InvalidEvent("id", f"must be 1 to {ID_BYTES_MAX} bytes of UTF-8")
        self._gate.change(
            request,
            exchange,
            (topic,),
            lambda check, done: self._hub.delete_event(topic, ids[0], done, check),
            _answer,
        )


def _only_topic(request: Request, *others: str) -> tuple[str, ...]:
    if request.body:
        raise Problem(400, _NO_BODY, field="body")
    topics = topics_of(request, *others)
    if len(topics) > 1:
        raise InvalidEvent("topic", "must be given once")
    return topics


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
    members: dict[str, object] = {"id": published.last.decode(), **(published.receipt or {})}
    return json_response(orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE))
