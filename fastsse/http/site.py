"""What the connections of one listener share."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fastsse.auth.rights import Rights
from fastsse.config import HttpOptions
from fastsse.errors import Refused
from fastsse.http.clients import Clients
from fastsse.http.cors import Cors
from fastsse.http.hosts import Hosts
from fastsse.http.problems import problem_of
from fastsse.http.quotas import Quotas
from fastsse.http.reader import Limits
from fastsse.http.request import Request, Targets
from fastsse.http.requests import Requests
from fastsse.http.routes import Routes
from fastsse.http.streams import Opening, Streams
from fastsse.http.upload import Upload
from fastsse.http.waits import Waits
from fastsse.log import get_logger
from fastsse.subscriptions import Subscription

if TYPE_CHECKING:
    from fastsse.http.protocol import Connection

__all__ = ["Site"]

log = get_logger("http")
# Bodies under way, of all connections of a listener together.
UPLOADS_BYTES: Final = 256 * 1024 * 1024


class Site:
    """Routes and limits of a listener, and the connections' way to the rest of the server.

    Arguments:
        options: the HTTP limits.
        routes: what is served.
        cors: for which pages of other origins.
        hosts: the names that are answered to.
        clients: tells who they are, behind proxies too.
        quotas: what each client may have.
        waits: where connections stand while they wait.
        streams: opens streams.
        requests: counts them, and notes those refused.
        arrived: called for each new connection, which stands in `waits` then.

    `draining` has every connection closed after its answer.
    """

    __slots__ = (
        "arrived",
        "clients",
        "cors",
        "draining",
        "hosts",
        "limits",
        "loop",
        "max_upload_bytes",
        "quotas",
        "requests",
        "routes",
        "streams",
        "targets",
        "upload_bytes",
        "waits",
    )

    def __init__(
        self,
        options: HttpOptions,
        routes: Routes,
        cors: Cors,
        hosts: Hosts,
        clients: Clients,
        quotas: Quotas,
        waits: Waits,
        streams: Streams,
        requests: Requests,
        arrived: "Callable[[Connection], None]",
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.routes = routes
        self.cors = cors
        self.hosts = hosts
        self.clients = clients
        self.quotas = quotas
        self.waits = waits
        self.streams = streams
        self.requests = requests
        self.arrived = arrived
        self.targets = Targets()
        self.upload_bytes = 0
        self.draining = False
        self.apply(options)

    def apply(self, options: HttpOptions) -> None:
        """Goes by other limits; connections that there are keep theirs."""
        self.limits = Limits(options.max_head, options.max_headers, options.max_body)
        self.max_upload_bytes = max(UPLOADS_BYTES, 2 * options.max_body)

    def client(self, request: Request) -> str:
        """The address of a request's client."""
        return self.clients.address(request.peer, request.headers.get(b"x-forwarded-for"))

    def opening(
        self,
        subscription: Subscription,
        rights: Rights | None,
        pings: bool,
        request: Request,
        peer: str,
    ) -> Opening:
        """The stream that a request asks for. `peer` names the other side for the log."""
        lines = self.cors.lines(request.headers) if self.cors.active else b""
        owner, on_open = None, None
        if request.terms is not None:
            lines, on_open = lines + request.terms.lines, request.terms.opened
        if self.clients.active:
            peer = self.client(request)
        if self.quotas.active:
            subject = None if rights is None else rights.subject
            owner = self.quotas.owner(self.client(request), subject)
        return Opening(subscription, rights, pings, request.chunked, lines, peer, owner, on_open)

    def count_upload(self, upload: Upload | None) -> None:
        """Notes how much of a body is here. Raises Problem (503) when all hold too much."""
        if upload is None:
            return
        size_bytes = len(upload.data)
        self.upload_bytes += size_bytes - upload.counted_bytes
        upload.counted_bytes = size_bytes
        if self.upload_bytes > self.max_upload_bytes:
            raise problem_of(Refused("memory", 1))

    def uncount_upload(self, upload: Upload | None) -> None:
        """The body is whole, or given up."""
        if upload is not None:
            self.upload_bytes -= upload.counted_bytes
            upload.counted_bytes = 0

    def failed(self, request: Request | None) -> None:
        """Logs the exception under way; the query is left out, it may hold secrets."""
        path = b"" if request is None else request.target.path
        log.exception("A request failed.", path=path.decode(errors="replace"))
