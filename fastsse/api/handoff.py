"""Hands sockets over to the sender as streams, and refuses subscribers with a time to retry."""

import fcntl
import json
import math
import os
import random
import re
from asyncio import Transport
from collections import Counter
from collections.abc import Callable
from functools import partial
from socket import socket
from typing import Final

from fastsse._core import REASON_ENDED
from fastsse.api.feeds import UNKNOWN_FEED
from fastsse.api.rate_limits import Owner, RateLimits
from fastsse.auth.rights import Rights
from fastsse.control.presence import Presence
from fastsse.errors import StreamRefused
from fastsse.events import EARLIEST
from fastsse.hooks import HookReports
from fastsse.http.descriptors import out_of_descriptors
from fastsse.http.problems import Problem, problem_response
from fastsse.http.responses import (
    EVENT_STREAM,
    MERCURE_STREAM,
    NOT_STORED,
    STATUS_LINES,
    Response,
)
from fastsse.http.router import StreamRequest
from fastsse.hub.connections import Visitor
from fastsse.hub.resume.preamble import last_event_id
from fastsse.hub.streams import Head
from fastsse.hub.streams import Streams as HubStreams
from fastsse.hub.tails import TailSubscription
from fastsse.log import AccessLog, get_logger
from fastsse.refusal_reasons import StreamReason
from fastsse.subscriptions import Subscription
from fastsse.tracing import Tracer
from fastsse.trails import NO_TRAIL

__all__ = ["RetryAfter", "SenderHandoff"]

log = get_logger("http")
_HEAD: Final = STATUS_LINES[200] + EVENT_STREAM
# The sender closes the socket with the stream, so a client must send no other request on it.
_RAW: Final = b"Connection: close\r\n"
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n" + _RAW
# The headers of Mercure's reference hub, which existing clients expect.
_MERCURE_HEAD: Final = STATUS_LINES[200] + MERCURE_STREAM
# Only an id of this form is sent back in the head.
_ID: Final = re.compile(rb"[\x21-\x7e\x80-\xff](?:[\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?")
# At this number the cache of heads is emptied. Heads differ by coding and by CORS lines.
_HEADS_MAX: Final = 1_000

_REFUSED: Final = b'retry: %d\nevent: fastsse.refused\ndata: {"reason":"%b","retry_ms":%d}\n\n'

# The answer for a feed that is not stored: the client can't know which events it missed.
_MISSING: Final = (
    b'retry: %d\nevent: fastsse.gap\ndata: {"reason":"feed","requested":%b,"from":""}\n\n'
)
_NO_VISITOR: Final = Visitor()

RETRY_S_MIN: Final = 5.0
RETRY_S_MAX: Final = 60.0
# While fewer clients a second are turned away, they get the short retry time. Above it the retry
# time grows with their number.
CALM_A_S: Final = 200.0
_HALF_LIFE_S: Final = 10.0


class RetryAfter:
    """The retry time for each client that is turned away. It grows with their number.

    Arguments:
        time: loop time, s.
        spread: a random number in [0, 1).
    """

    def __init__(
        self, time: Callable[[], float], spread: Callable[[], float] = random.random
    ) -> None:
        self._time = time
        self._spread = spread
        # A decaying count of the clients turned away, with the half-life `_HALF_LIFE_S`.
        self._recent = 0.0
        self._at_s = time()

    def retry_ms(self) -> int:
        """The time for the next client, in ms: 5 s to 7.5 s. It grows to between 40 s and 60 s when
        many clients are turned away."""
        now_s = self._time()
        self._recent *= 0.5 ** ((now_s - self._at_s) / _HALF_LIFE_S)
        self._recent += 1
        self._at_s = now_s
        # At a steady rate, `_recent` approaches rate * half life / ln 2.
        rate_a_s = self._recent * math.log(2) / _HALF_LIFE_S
        shortest_s = min(RETRY_S_MIN * max(1.0, rate_a_s / CALM_A_S), RETRY_S_MAX / 1.5)
        return round(1000 * shortest_s * (1 + self._spread() / 2))


class SenderHandoff:
    """Hands sockets to the sender, or answers their clients with a time to retry.

    Arguments:
        streams: opens the streams.
        retry_after: gives the retry time of clients that are turned away.
        rate_limits: the limits per client.
        presence: notified of each stream; None if presence is off.
        access: logs each stream.
        descriptor_limit: no stream gets a descriptor with this number or a higher one: these are
            the reserve for other connections.

    Attributes:
        on_opened: called with `wake` when a stream opened: once for all that open in one turn.
        on_exhausted: called when the process has no descriptor left.
        has_descriptors: whether one more stream may have descriptors.
    """

    def __init__(
        self,
        streams: HubStreams,
        retry_after: RetryAfter,
        rate_limits: RateLimits,
        presence: Presence | None,
        *,
        access: AccessLog,
        descriptor_limit: int,
    ) -> None:
        self._streams = streams
        self._retry_after = retry_after
        self._rate_limits = rate_limits
        self._presence = presence
        self._access = access
        self.on_opened: Callable[[Callable[[], None]], object] = lambda wake: wake()
        self.on_exhausted: Callable[[], None] = lambda: None
        self.has_descriptors: Callable[[], bool] = lambda: True
        #: Makes spans; None: tracing is off.
        self.tracer: Tracer | None = None
        #: Reports streams to hooks; None: there are none.
        self.hooks: HookReports | None = None
        self._will_wake = False
        self._descriptor_limit = descriptor_limit
        self._heads: dict[tuple[bool, bool, bytes], bytes] = {}
        #: Subscribers turned away with a retry time, by reason.
        self.turned_away: Counter[StreamReason] = Counter()
        #: Number of streams opened with unknown parameters.
        self.doubtful = 0

    def take(self, sock: socket, stream_request: StreamRequest) -> None:
        """Gives the sender a socket that has no transport, and detaches `sock`.

        Raises StreamRefused, before anything has changed. After any error the caller still owns
        `sock`.
        """
        handle = self._open(sock.fileno(), stream_request)
        sock.detach()
        self._note(handle, stream_request)

    def take_copy(self, transport: Transport, stream_request: StreamRequest) -> None:
        """As `take`, for the socket of a transport: the sender gets a duplicate of its descriptor,
        and the caller must abort the transport."""
        self.take_duplicate(transport.get_extra_info("socket").fileno(), stream_request)

    def take_duplicate(self, descriptor: int, stream_request: StreamRequest) -> None:
        """As `take`, for a descriptor that the caller keeps: the sender gets a duplicate."""
        fd = self._duplicate(descriptor)
        try:
            handle = self._open(fd, stream_request)
        except BaseException:
            os.close(fd)
            raise
        self._note(handle, stream_request)

    def _open(self, fd: int, stream_request: StreamRequest) -> int:
        """Gives the sender a descriptor and returns the handle of the stream. If this returns, the
        sender owns the descriptor. If it raises, the caller does. So `streams.open` must be the
        last call here."""
        # The kernel gives the lowest free number, so a high number means that few are free.
        why: StreamReason | None
        is_full = fd >= self._descriptor_limit or not self.has_descriptors()
        why = "full" if is_full else self._streams.objection()
        if why is not None:
            raise StreamRefused(why)
        subscription, rights, chunked, lines, client, host, *_ = stream_request
        owner = self._owner(host, rights)
        if owner is not None:
            replays = subscription.cursor.kind != "head"
            if not self._rate_limits.may_open(owner, replays=replays):
                raise StreamRefused("limited")
        opens = subscription.dialect.opens
        if isinstance(subscription, TailSubscription):
            coding = _CHUNKED if chunked else _RAW
            plain = b"".join((subscription.head, coding, lines, b"\r\n"))
        else:
            plain = self._head(opens, chunked, lines)
        resumes = not opens and subscription.cursor.kind != "head"
        head: Head = partial(_resumed, plain) if resumes else plain
        # Without the port, because a client reconnects from another one.
        who = client.rpartition(":")[0] or client
        visitor = _NO_VISITOR
        if self._streams.connections is not None:
            visitor = Visitor(host, _port(client), stream_request.agent)
        return self._streams.open(
            subscription,
            head,
            chunked,
            fd,
            rights,
            client=who,
            visitor=visitor,
            door_number=stream_request.door_number,
        )

    def _note(self, stream: int, stream_request: StreamRequest) -> None:
        """Notifies the other parts of an open stream. An error is logged and ends the stream. It is
        not raised, because a caller would then close the descriptor, which the sender owns."""
        try:
            self._notify(stream, stream_request)
        except Exception:
            log.exception("A stream could not be opened.")
            self._streams.close(stream, REASON_ENDED)
        if not self._will_wake:
            self._will_wake = True
            self.on_opened(self._wake)

    def _notify(self, stream: int, stream_request: StreamRequest) -> None:
        subscription, rights = stream_request.subscription, stream_request.rights
        owner = self._owner(stream_request.host, rights)
        if owner is not None:
            self._rate_limits.on_stream_opened(stream, owner)
        if self._presence is not None:
            payload = None if rights is None else rights.payload
            self._presence.on_stream_opened(stream, subscription.selectors, payload)
        if self.hooks is not None and not isinstance(subscription, TailSubscription):
            self.hooks.on_stream_opened(stream, subscription.selectors, rights, stream_request.host)
        if stream_request.opened is not None:
            stream_request.opened(stream)
        trail = stream_request.trail
        named = trail.fields() if trail is not NO_TRAIL else {}
        self._access.opened(stream, stream_request.client, subscription.selectors, named)
        if trail.is_sampled and self.tracer is not None:
            self._trace(stream, stream_request, self.tracer)
        if subscription.dialect.notes:
            self.doubtful += 1
            self._access.doubtful(
                stream, stream_request.client, subscription.dialect.notes.decode()
            )

    def _trace(self, stream: int, stream_request: StreamRequest, tracer: Tracer) -> None:
        subscription = stream_request.subscription
        span = tracer.start(
            "subscribe",
            stream_request.trail,
            {
                "messaging.operation.name": "subscribe",
                "messaging.operation.type": "receive",
                "messaging.destination.name": subscription.selectors[0],
                "fastsse.stream": self._streams.name_of(stream),
                "fastsse.begins": subscription.cursor.kind,
            },
        )
        if span is not None and not self._streams.when_live(stream, span.end):
            span.end()

    def _owner(self, host: str, rights: Rights | None) -> Owner | None:
        """The accounts to which a stream counts; None if no limit is set."""
        if not self._rate_limits.active:
            return None
        return self._rate_limits.owner(host, None if rights is None else rights.subject)

    def _head(self, opens: bool, chunked: bool, lines: bytes) -> bytes:
        """The response head of a stream. Equal heads share one object."""
        head = self._heads.get((opens, chunked, lines))
        if head is None:
            first = _HEAD if opens else _MERCURE_HEAD
            head = b"".join((first, _CHUNKED if chunked else _RAW, lines, b"\r\n"))
            if len(self._heads) >= _HEADS_MAX:
                self._heads.clear()
            self._heads[opens, chunked, lines] = head
        return head

    def _wake(self) -> None:
        self._will_wake = False
        self._streams.wake()

    def turn_away(
        self, subscription: Subscription, why: StreamRefused, *, chunked: bool
    ) -> Response:
        """The answer to a subscriber that is turned away: status 200, and a stream that ends at
        once with a retry time.

        An error status would stop an EventSource permanently (WHATWG HTML §9.2.3), so only a
        request with `refuse=status` gets one. A Mercure client receives the id that it sent,
        because it has missed no event.

        `retry:` and the event `fastsse.refused` are one block, because some libraries skip a block
        without data. A client that takes no control events gets a response without its last chunk,
        so it can see that the response is incomplete.
        """
        if why.reason == "over":
            return Response(STATUS_LINES[204] + NOT_STORED)
        self.turned_away[why.reason] += 1
        retry_ms = self._retry_after.retry_ms()
        dialect = subscription.dialect
        if dialect.refuses and why.reason == "feed":
            return problem_response(Problem(404, UNKNOWN_FEED, field="feed"))
        if dialect.refuses:
            return problem_response(_refusal(why.reason, retry_ms))
        lines = EVENT_STREAM
        if not dialect.opens:
            known = last_event_id(subscription.cursor)
            lines = MERCURE_STREAM + (b"" if known is None else _known_line(known))
        if dialect.has_control_events:
            reason = why.reason.encode()
            body = _REFUSED % (retry_ms, reason, retry_ms)
            if why.reason == "feed":
                requested = json.dumps(subscription.cursor.text.decode("utf-8", "replace"))
                body = _MISSING % (retry_ms, requested.encode())
            return Response.of(200, body, lines)
        body = b"retry: %d\n\n" % retry_ms
        if not dialect.opens or not chunked:
            return Response.of(200, body, lines)
        cut = b"%x\r\n%b\r\n" % (len(body), body)
        return Response(STATUS_LINES[200] + lines + b"Transfer-Encoding: chunked\r\n", cut)

    def _duplicate(self, original: int) -> int:
        """A duplicate of a descriptor. Raises StreamRefused if the process has none left."""
        try:
            return fcntl.fcntl(original, fcntl.F_DUPFD_CLOEXEC, 0)
        except OSError as error:
            if out_of_descriptors(error):
                self.on_exhausted()
            raise StreamRefused("full") from None


def _port(client: str) -> int:
    """The port in a client's address; 0 if there is none."""
    port = client.rpartition(":")[2] if client.count(":") == 1 or "]:" in client else ""
    return int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0


def _refusal(reason: StreamReason, retry_ms: int) -> Problem:
    after = b"Retry-After: %d\r\n" % math.ceil(retry_ms / 1000)
    status = 429 if reason == "limited" else 503
    detail = "The stream was not opened. Retry the request later."
    return Problem(status, detail, header_lines=after, members={"reason": reason})


def _resumed(head: bytes, known: bytes | None) -> bytes:
    """A head with the id after which the stream continues (Mercure, "Reconciliation")."""
    return head if known is None else b"%b%b\r\n" % (head[:-2], _known_line(known))


def _known_line(known: bytes) -> bytes:
    return b"Last-Event-ID: %b\r\n" % (EARLIEST if _ID.fullmatch(known) is None else known)
