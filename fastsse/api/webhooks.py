"""`POST /webhooks/NAME`: signed requests of other services become events, by the rules of a source.

The signature (Standard Webhooks) takes the place of a token. The request's id is the key of the
event, so a request that is sent again is published once.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import orjson

from fastsse.api.rate_limits import RequestLimits
from fastsse.config import Config
from fastsse.config.sources import SourceRule
from fastsse.directives import SCOPE_BYTES, Directives
from fastsse.errors import FastsseError
from fastsse.events import Event
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.responses import Response, json_response
from fastsse.http.router import Exchange, Paths, Route
from fastsse.hub import Hub, Published
from fastsse.log import get_logger
from fastsse.outbound.signing import InvalidSignature, Signer
from fastsse.redis.health import SkipLog
from fastsse.sources.payloads import Maker
from fastsse.sources.runner import make_maker
from fastsse.sources.source import PlainMessage
from fastsse.tracing import Tracer
from fastsse.trails import trail_of

__all__ = ["PATH", "Webhooks"]

log = get_logger("webhooks")
PATH: Final = b"/webhooks/"
COUNTS: Final = ("accepted", "repeated", "filtered", "refused", "invalid")
_SIGNED_BY: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")


class Webhooks:
    """The routes of all webhook sources, and their counters. Loop thread only.

    Arguments:
        config: the options, with the sources.
        hub: orders the events.
        limits: of the clients' addresses.
        now_s: Unix time.
    """

    def __init__(
        self,
        config: Config,
        hub: Hub,
        limits: RequestLimits,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        rules = [rule for rule in config.sources if rule.system == "webhook"]
        self.counts: Final[Counter[str]] = Counter()
        self._receivers: Final = [
            _Receiver(rule, make_maker(rule, config), hub, limits, self.counts, now_s)
            for rule in rules
        ]

    def paths(self, tracer: Tracer | None = None) -> Paths:
        """A route for each source; the tracer makes spans of what they publish."""
        for one in self._receivers:
            one.tracer = tracer
        return {
            PATH + one.name.encode(): {b"POST": Route(one, one.admit)} for one in self._receivers
        }

    def counters(self) -> dict[str, int]:
        """Requests by result; empty without webhooks."""
        return {f"webhooks_{name}": self.counts[name] for name in COUNTS if self._receivers}


class _Receiver:
    """The route of one source."""

    def __init__(
        self,
        rule: SourceRule,
        maker: Maker,
        hub: Hub,
        limits: RequestLimits,
        counts: "Counter[str]",
        now_s: Callable[[], float],
    ) -> None:
        self.name: Final = rule.name
        secrets = [secret.get_secret_value() for secret in rule.secrets]
        self._signer: Final = Signer(secrets)
        self._maker: Final = maker
        self._hub: Final = hub
        self._limits: Final = limits
        self._counts: Final = counts
        self._now_s: Final = now_s
        self._scope: Final = hashlib.blake2b(
            b"webhooks/" + rule.name.encode(), digest_size=SCOPE_BYTES
        ).digest()
        self._refusals: Final = SkipLog()
        self.tracer: Tracer | None = None

    def admit(self, request: Request) -> None:
        """Checks the head before the body is read. Raises Problem (401, 415, 429)."""
        if self._limits.active:
            self._limits.take_publish(request)
        for name in _SIGNED_BY:
            if name.encode() not in request.headers:
                raise self._refused(f"{name} is missing", name)
        coding = request.headers.get(b"content-encoding", b"").strip().lower()
        if coding not in (b"", b"identity"):
            detail = "Compressed bodies are not accepted."
            raise Problem(415, detail, field="Content-Encoding")

    def __call__(self, request: Request, exchange: Exchange) -> None:
        """Handles an admitted POST. Raises Problem (401, 422)."""
        body = bytes(request.body)
        message_id = self._verified(request, body)
        message = PlainMessage(message_id, body, lambda: self._words(message_id))
        try:
            event = self._maker.make(message)
        except ValueError as error:
            self._counts["invalid"] += 1
            raise Problem(422, f"The body can't become an event: {error}.", field="body") from None
        if event is None:
            self._counts["filtered"] += 1
            exchange.respond(json_response(b'{"filtered":true}\n'))
            return
        asked = event.directives or Directives()
        event.direct(asked._replace(key=self._scope + message_id.encode()))

        events: Sequence[Event] = (event,)
        span = None
        if self.tracer is not None:
            span, events = self.tracer.publish(trail_of(request.headers), events)

        def done(outcome: Published | FastsseError) -> None:
            if span is not None:
                span.end(str(outcome) if isinstance(outcome, FastsseError) else None)
            if isinstance(outcome, FastsseError):
                exchange.fail(outcome)
                return
            self._counts["repeated" if outcome.duplicates else "accepted"] += 1
            exchange.respond(_answer(outcome))

        self._hub.publish(events, done)

    def _verified(self, request: Request, body: bytes) -> str:
        headers = {name: request.headers[name.encode()].decode("latin-1") for name in _SIGNED_BY}
        stripped = {name: value.strip() for name, value in headers.items()}
        message_id = stripped["webhook-id"]
        if not (message_id.isascii() and message_id.isprintable()):
            raise self._refused("webhook-id must be printable ASCII", "webhook-id")
        try:
            return self._signer.verify(stripped, body, self._now_s())
        except InvalidSignature as invalid:
            text = str(invalid)
            raise self._refused(text, text.partition(" ")[0]) from None

    def _words(self, message_id: str) -> Mapping[str, str]:
        return {"key": message_id}

    def _refused(self, why: str, field: str) -> Problem:
        self._counts["refused"] += 1
        unlogged = self._refusals.take(time.monotonic())
        if unlogged is not None:
            log.warning(
                "A webhook request was refused.",
                source=self.name,
                why=why,
                unlogged_before=unlogged,
            )
        return Problem(401, f"{why[:1].upper()}{why[1:]}.", field=field)


def _answer(published: Published) -> Response:
    members: dict[str, object] = {"id": published.last.decode()}
    if published.duplicates:
        members["duplicates"] = published.duplicates
    return json_response(orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE))
