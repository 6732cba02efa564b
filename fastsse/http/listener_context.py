"""What all connections of one listener share."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fastsse._intake import Intake
from fastsse.auth.rights import Rights
from fastsse.config import HttpOptions
from fastsse.errors import Unavailable
from fastsse.http.body import RequestBody
from fastsse.http.client_address import ClientAddresses
from fastsse.http.cors import Cors
from fastsse.http.deadlines import Deadlines
from fastsse.http.hosts import Hosts
from fastsse.http.parser import HeadLimits
from fastsse.http.problems import problem_of
from fastsse.http.request import Request, Targets
from fastsse.http.request_log import RequestLog
from fastsse.http.router import Handoff, Router, StreamRequest
from fastsse.http.unsent import UnsentAnswers
from fastsse.log import get_logger
from fastsse.subscriptions import Subscription
from fastsse.trails import trail_of

if TYPE_CHECKING:
    from fastsse.http.connection import Connection
    from fastsse.http.websocket import WebSocketBridge

__all__ = ["ListenerContext"]

log = get_logger("http")
# Total size of unfinished bodies, over all connections of a listener.
UPLOADS_BYTES: Final = 256 * 1024 * 1024


class ListenerContext:
    """Routes and limits of a listener, and the access of its connections to the rest of the server.

    Arguments:
        options: the HTTP limits.
        routes: what is served.
        cors: for which pages of other origins.
        hosts: the accepted names of the server.
        clients: finds the addresses of clients, behind proxies too.
        deadlines: ends connections that wait too long.
        streams: opens streams.
        requests: counts requests, and logs refused ones.
        arrived: called for each new connection after it is in `deadlines`.

    While `draining` is set, every connection closes after its answer. `intake`, if set, takes usual
    publishes. `lines` are header lines of every answer. `is_paired`: its sockets are ends of pairs,
    so the client's address comes with each socket.
    """

    __slots__ = (
        "arrived",
        "clients",
        "cors",
        "deadlines",
        "draining",
        "hosts",
        "intake",
        "is_paired",
        "limits",
        "lines",
        "loop",
        "max_upload_bytes",
        "requests",
        "routes",
        "streams",
        "targets",
        "unsent",
        "upload_bytes",
        "websockets",
    )

    def __init__(
        self,
        options: HttpOptions,
        routes: Router,
        cors: Cors,
        hosts: Hosts,
        clients: ClientAddresses,
        deadlines: Deadlines,
        streams: Handoff,
        requests: RequestLog,
        arrived: "Callable[[Connection], None]",
        *,
        lines: bytes = b"",
        is_paired: bool = False,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.routes = routes
        self.cors = cors
        self.hosts = hosts
        self.clients = clients
        self.deadlines = deadlines
        self.streams = streams
        self.requests = requests
        self.arrived = arrived
        self.targets = Targets()
        self.upload_bytes = 0
        self.unsent: Final = UnsentAnswers(lambda one: requests.unsent(one.peer()))
        self.lines = lines
        self.is_paired = is_paired
        #: Open WebSockets.
        self.websockets: set[WebSocketBridge] = set()
        self.draining = False
        self.intake: Intake | None = None
        self.apply(options)

    def apply(self, options: HttpOptions) -> None:
        """Applies new limits to later connections; open connections keep theirs."""
        self.limits = HeadLimits(options.max_head, options.max_headers, options.max_body)
        self.max_upload_bytes = max(UPLOADS_BYTES, 2 * options.max_body)
        if self.intake is not None:
            self.intake.limit(*self.limits)

    def drain(self) -> None:
        """Closes every connection after its next answer."""
        self.draining = True
        if self.intake is not None:
            self.intake.is_draining = True

    def client(self, request: Request) -> str:
        """The address of the client of a request."""
        return self.clients.address(request.peer, request.headers.get(b"x-forwarded-for"))

    def stream_request(
        self,
        subscription: Subscription,
        rights: Rights | None,
        request: Request,
        peer: str,
        door_number: int = 0,
    ) -> StreamRequest:
        """The stream that a request asks for. `peer` is the name of the client in the log,
        `door_number` as in `StreamRequest`."""
        lines = self.lines
        if self.cors.active:
            lines += self.cors.lines(request.headers)
        on_open = None
        if request.terms is not None:
            lines, on_open = lines + request.terms.lines, request.terms.opened
        host = self.client(request)
        client = host if self.clients.active else peer
        agent = request.headers.get(b"user-agent", b"")
        trail = trail_of(request.headers)
        more = agent, trail, door_number
        return StreamRequest(
            subscription, rights, request.chunked, lines, client, host, on_open, *more
        )

    def count_upload(self, incoming_body: RequestBody | None) -> None:
        """Counts the received part of a body. Raises Problem (503) when all bodies together are too
        large."""
        if incoming_body is None:
            return
        size_bytes = len(incoming_body.data) + incoming_body.held_bytes
        self.upload_bytes += size_bytes - incoming_body.counted_bytes
        incoming_body.counted_bytes = size_bytes
        if self.upload_bytes > self.max_upload_bytes:
            raise problem_of(Unavailable("memory", 1))

    def uncount_upload(self, incoming_body: RequestBody | None) -> None:
        """Stops counting a body that is complete or abandoned."""
        if incoming_body is not None:
            self.upload_bytes -= incoming_body.counted_bytes
            incoming_body.counted_bytes = 0

    def failed(self, request: Request | None) -> None:
        """Logs the current exception. The query is left out, because it may contain secrets."""
        path = b"" if request is None else request.target.path
        log.exception("A request failed.", path=path.decode(errors="replace"))
