"""The HTTP side of a worker: its listeners, their routes, and the use of descriptors.

Over 400 lines: the listeners of a worker share one set of limits, and start and end together.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final

from fastsse.api.access import Access
from fastsse.api.bound_sockets import Sockets, are_local, are_unix
from fastsse.api.console import console_routes
from fastsse.api.delayed import DelayedPublish
from fastsse.api.endpoints import Endpoints
from fastsse.api.handoff import RetryAfter, SenderHandoff
from fastsse.api.health import health_routes
from fastsse.api.rate_limits import RateLimits
from fastsse.api.receipts import Receipts
from fastsse.config import Config
from fastsse.control.feeds import Feeds
from fastsse.control.service import ControlClient
from fastsse.control.stats import Help, StatsClient
from fastsse.hooks import HookReports
from fastsse.http.accept import Acceptor
from fastsse.http.accept_sharing import AcceptSharing
from fastsse.http.client_address import ClientAddresses
from fastsse.http.connection import Connection
from fastsse.http.cors import Cors
from fastsse.http.deadlines import Deadlines
from fastsse.http.descriptors import Descriptors
from fastsse.http.hosts import Hosts
from fastsse.http.listener_context import ListenerContext
from fastsse.http.listeners import ACCEPT_PAUSE_S, Listener
from fastsse.http.redirect import PlainRefusal, Redirect
from fastsse.http.request_log import RequestLog
from fastsse.http.router import Paths, Router
from fastsse.http.tls import SECRET_BYTES, TlsDoor, TlsListener, load_certificates
from fastsse.hub import Hub
from fastsse.log import AccessLog
from fastsse.refusal_reasons import STREAM_REASONS
from fastsse.tracing import Tracer

__all__ = ["Frontend"]

# How often, and how many times, a replaced worker looks whether its connections sent a request.
LEAVING_LOOK_S: Final = 0.02
LEAVING_LOOKS: Final = 25
_HSTS: Final = b"Strict-Transport-Security: max-age=%d\r\n"


class Frontend:
    """The listeners of one worker and their routes. Loop thread only.

    Arguments:
        config: the options.
        hub: accepts events and opens streams.
        descriptors: the plan for descriptors.
        stream_count: returns the number of open streams.
        access: logs streams and publishes.
        control: the control services of the node; needed for JWT keys and for presence.
    """

    def __init__(
        self,
        config: Config,
        hub: Hub,
        descriptors: Descriptors,
        stream_count: Callable[[], int],
        access: AccessLog,
        control: ControlClient | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._config = config
        self._hub = hub
        self._descriptors = descriptors
        self._stream_count = stream_count
        self._access = access
        self._deadlines = Deadlines(config, loop)
        self._clients = ClientAddresses(config.trusted_proxies, by_header=config.proxy_protocol)
        self._rate_limits = RateLimits(config, loop.time)
        self._endpoints = Endpoints(config, hub, self._clients, self._rate_limits, access, control)
        self._streams = SenderHandoff(
            hub.streams,
            RetryAfter(loop.time),
            self._rate_limits,
            self._endpoints.presence,
            access=access,
            descriptor_limit=descriptors.limit - 1,
        )
        self._streams.on_opened = lambda wake: loop.call_soon(self._opened, wake)
        self._streams.on_exhausted = self._pause
        self._requests = RequestLog(access)
        self._acceptors: list[Acceptor] = []
        self._listeners: list[Listener] = []
        self._redirect: Listener | None = None
        self._door: TlsDoor | None = None
        self._sharing: AcceptSharing | None = None  # None before `serve`.
        self._has_successor = False

    def trace_with(self, tracer: Tracer) -> None:
        """Turns tracing on. Call it before `serve`."""
        self._streams.tracer = self._endpoints.tracer = tracer

    def report_hooks(self, reports: HookReports) -> None:
        """Reports each stream that opens. Call it before `serve`."""
        self._streams.hooks = reports

    @property
    def main(self) -> Listener:
        """The listener of subscribers and publishers."""
        return self._listeners[0]

    @property
    def admin(self) -> Listener:
        """The listener of probes, metrics and the console; usually `main`."""
        return self._listeners[-1]

    @property
    def context(self) -> ListenerContext:
        """What the requests of the main listener share. An ASGI mount uses it for requests that
        another server has read."""
        return self._acceptors[0].context

    @property
    def receipts(self) -> Receipts:
        """Counts the streams that match a publish."""
        assert self._endpoints.receipts is not None
        return self._endpoints.receipts

    def serve(
        self,
        sockets: Sockets,
        stats: StatsClient,
        trouble: Callable[[], str | None] = lambda: None,
        worker: int = 0,
        own_access: Access | None = None,
    ) -> None:
        """Starts to accept connections.

        Arguments:
            sockets: bound; `close` closes them.
            stats: gives the metrics and statistics of the whole service.
            trouble: returns why publishes are refused, or None while they are accepted.
            worker: the number of this worker.
            own_access: decides who may read and publish; None: as the options say.
        """
        self._stats = stats
        self._trouble = trouble
        token = self._config.publish_token
        config = self._config
        cors = Cors(config.cors_origins, config.cors_headers, cross_publish=token is not None)
        events = self._endpoints.paths(cors, own_access)
        admin = {**events, **health_routes(stats, self._unready, self._endpoints.more_metrics)}
        is_local = sockets.are_local and not config.trusted_proxies
        admin |= self._endpoints.admin_paths(stats, is_local=is_local)
        if sockets.has_page(config):
            admin |= console_routes()
        is_owner = not sockets.is_lent
        if config.tls_cert:
            secret = sockets.ticket_secret or os.urandom(SECRET_BYTES)
            self._door = TlsDoor(config, secret, self._hub.streams)
            if self._door.releases:
                self._hub.streams.ask_door(self._door.release)
                # Streams that stay with OpenSSL take more descriptors than planned for.
                self._streams.has_descriptors = lambda: self._streams_left() > 0
        if sockets.admin:
            self._listen(sockets.main, events, cors, is_owner)
            self._listen(sockets.admin, admin, cors, is_owner)
        else:
            self._listen(sockets.main, admin, cors, is_owner)
        if sockets.redirect:
            self._redirect = self._listen_plain(sockets.redirect, Redirect(self.main.port))
        for listener in self._all_listeners():
            listener.serve()
        self._sharing = AcceptSharing(
            self.main,
            sockets.all or (sockets.main,),
            sockets.slot,
            worker,
            self.room,
            stats.report,
        )
        self._deadlines.start()

    def room(self) -> int:
        """The number of streams that can still open."""
        if not self._hub.streams.has_room():
            return 0
        return self._streams_left()

    def _streams_left(self) -> int:
        return self._descriptors.streams_left(self._stream_count(), self._hub.streams.sealed)

    def unready(self) -> str | None:
        """One word that says why this worker accepts no new streams, or None."""
        if self._hub.streams.draining:
            return "draining"
        return None if self.room() > 0 else "full"

    def apply(self, config: Config) -> None:
        """Applies new limits to later connections, and new certificates to later handshakes. Open
        connections keep theirs. Raises ConfigError for unusable certificates, before anything has
        changed."""
        if self._door is not None:
            self._door.apply(config, load_certificates(config))
        self._deadlines.apply(config)
        for acceptor in self._acceptors:
            acceptor.apply(config)
        self._endpoints.switch_intakes()

    def apply_topic_rules(self, config: Config) -> None:
        """Publishes and streams that come later are judged by other `[[topics]]`."""
        self._endpoints.apply_topic_rules(config)

    def forget_targets(self) -> None:
        """As `Endpoints.forget_targets`."""
        self._endpoints.forget_targets()

    def look(self) -> None:
        """Checks whether this worker has room, and so which listening sockets it watches. Called
        after each accept and after streams were opened."""
        if self._sharing is not None:
            self._sharing.look()

    def tick(self) -> None:
        """Does `look` and the periodic work of the routes and of TLS. Call it once a second."""
        self.look()
        self._endpoints.tick(time.monotonic())
        if self._door is not None:
            self._door.tick()

    @property
    def delayed(self) -> DelayedPublish:
        """Publishes for later."""
        assert self._endpoints.delayed is not None
        return self._endpoints.delayed

    @property
    def feeds(self) -> Feeds:
        """The stored selections."""
        assert self._endpoints.feeds is not None
        return self._endpoints.feeds

    @property
    def is_shared(self) -> bool:
        """Whether other workers accept from the same sockets."""
        return self._sharing is not None and self._sharing.is_shared

    def on_help(self, help: Help) -> None:
        """Called when the assignment of helpers has changed."""
        if self._sharing is not None:
            self._sharing.on_help(help)

    def drain(self) -> None:
        """Stops listening, except on the admin listener, and closes each connection after its
        current answer."""
        self._close_doors()
        self.main.close()
        if self._redirect is not None:
            self._redirect.close()

    async def leave(self) -> None:
        """For a worker that is replaced: stops listening, and closes each connection after its
        next answer. Returns when each connection has sent its request, at the latest after
        LEAVING_LOOKS * LEAVING_LOOK_S."""
        self._has_successor = True
        self._close_doors()
        for listener in self._all_listeners():
            listener.close()
        for _ in range(LEAVING_LOOKS):
            if not self._deadlines.head.since:
                break
            await asyncio.sleep(LEAVING_LOOK_S)

    @property
    def consoles(self) -> int:
        """Number of open consoles."""
        return len(self._endpoints.live)

    @property
    def connection_count(self) -> int:
        """Number of connections that are not streams."""
        return len(self._deadlines)

    @property
    def unanswered(self) -> int:
        """Number of connections that are not streams and still get an answer."""
        return len(self._deadlines) - len(self._deadlines.linger.since)

    async def close_idle(self, until_s: float) -> None:
        """Waits until every connection has had its last answer, at most until the loop time
        `until_s`. Then closes the idle connections; one with a request closes after its answer."""
        loop = asyncio.get_running_loop()
        while self.unanswered and loop.time() < until_s:  # noqa: ASYNC110
            await asyncio.sleep(LEAVING_LOOK_S)
        for connection in self._deadlines:
            connection.close()

    def _close_doors(self) -> None:
        if self._sharing is not None:
            self._sharing.close()
        for acceptor in self._acceptors:
            acceptor.context.drain()
        # A body that is published while it arrives may never end, so its connection closes now. If
        # a piece of it is being published, it closes after that piece.
        for connection in list(self._deadlines.piece.since):
            connection.close()

    def close(self) -> None:
        """Closes everything. It takes effect later; `answered` waits for it."""
        for listener in self._all_listeners():
            listener.close()
        for acceptor in self._acceptors:
            for bridge in list(acceptor.context.websockets):
                bridge.abort()
        if self._door is not None:
            self._door.close()
        for acceptor in self._acceptors:
            acceptor.close()
        self._endpoints.close()
        self._deadlines.stop()
        for connection in self._deadlines:
            connection.abort()

    async def answered(self) -> None:
        """Returns when all connections except streams are closed and TLS has sent its data."""
        for acceptor in self._acceptors:
            await acceptor.settled()
        await self._deadlines.emptied()
        while self._has_more_to_send():  # noqa: ASYNC110
            await asyncio.sleep(LEAVING_LOOK_S)

    def _has_more_to_send(self) -> bool:
        return bool(self._websocket_count()) or (self._door is not None and self._door.is_busy)

    def counters(self) -> dict[str, int]:
        """The counters of this part, under the names of the metrics."""
        endpoints = self._endpoints.counters()
        return {
            **{f"turned_away_{why}": self._streams.turned_away[why] for why in STREAM_REASONS},
            "doubtful": self._streams.doubtful + endpoints.pop("doubtful_polls"),
            "max_connections": self._descriptors.max_connections,
            **self._rate_limits.counters(),
            **endpoints,
            **self._requests.counters(),
            **({} if self._door is None else self._door.counters()),
        }

    def on_stream_closed(self, stream: int) -> None:
        """A stream ended. Must be called for each of them."""
        self._endpoints.on_stream_closed(stream)

    def _listen(
        self, sockets: Sequence[socket.socket], paths: Paths, cors: Cors, is_owner: bool
    ) -> None:
        # A Unix socket needs no TLS: its data does not cross a network.
        door = None if are_unix(sockets) else self._door
        context = self._context(Router(paths, cors), cors, sockets, door)
        context.intake = self._endpoints.intake(context)
        welcome = self._welcome(context)
        if door is None:
            self._listeners.append(Listener(sockets, welcome, is_owner=is_owner))
            return
        no_cors = Cors((), (), cross_publish=False)
        plain = self._welcome(self._context(PlainRefusal(), no_cors, sockets, None))
        self._listeners.append(TlsListener(sockets, door, welcome, plain, is_owner=is_owner))

    def _listen_plain(self, sockets: Sequence[socket.socket], router: Router) -> Listener:
        """A listener without TLS and CORS, with a route table of its own."""
        no_cors = Cors((), (), cross_publish=False)
        return Listener(sockets, self._welcome(self._context(router, no_cors, sockets, None)))

    def _context(
        self, router: Router, cors: Cors, sockets: Sequence[socket.socket], door: TlsDoor | None
    ) -> ListenerContext:
        config = self._config
        max_age_s = round(config.hsts) if door is not None else 0
        return ListenerContext(
            config,
            router,
            cors,
            _hosts(config, sockets),
            self._clients,
            self._deadlines,
            self._streams,
            self._requests,
            self._on_arrival,
            lines=_HSTS % max_age_s if max_age_s else b"",
            is_paired=door is not None,
        )

    def _welcome(self, context: ListenerContext) -> Callable[[socket.socket, object], None]:
        """The callback for the accepted sockets of a listener."""
        acceptor = Acceptor(context)
        self._acceptors.append(acceptor)

        def welcome(sock: socket.socket, address: object) -> None:
            acceptor.welcome(sock, address)
            self.look()

        return welcome

    def _all_listeners(self) -> list[Listener]:
        redirect = [] if self._redirect is None else [self._redirect]
        return [*self._listeners, *redirect]

    def _opened(self, wake: Callable[[], None]) -> None:
        """Called in the loop turn after streams were opened."""
        wake()
        self.look()

    def _on_arrival(self, newcomer: Connection) -> None:
        """Evicts an idle connection if the descriptors for requests are used up, so that a probe
        can still connect. Without one to evict, new connections wait in the kernel."""
        deadlines = self._deadlines
        # A WebSocket has two descriptors in addition to that of its stream.
        streams = self._stream_count() + 2 * self._websocket_count()
        if len(deadlines) <= self._descriptors.requests_most(streams, self._hub.streams.sealed):
            return
        idle = deadlines.eviction_candidate(newcomer)
        if idle is None:
            self._pause()
        else:
            idle.evict()

    def _websocket_count(self) -> int:
        return sum(len(acceptor.context.websockets) for acceptor in self._acceptors)

    def _pause(self) -> None:
        for listener in self._all_listeners():
            listener.pause(ACCEPT_PAUSE_S, "All file descriptors are in use.")

    def _unready(self, done: Callable[[str | None], None]) -> None:
        """One word that says why the service accepts no new streams, or None."""
        if self._hub.streams.draining and not self._has_successor:
            done("draining")
        elif (trouble := self._trouble()) is not None:
            done(trouble)
        else:
            self._stats.unready(done)


def _hosts(config: Config, sockets: Sequence[socket.socket]) -> Hosts:
    """The Host check of a listener on these sockets. With `allowed_hosts` it is on. Otherwise it is
    on for loopback addresses only: no web page reaches a Unix socket, and an address that other
    machines reach may have any name."""
    tcp = [sock for sock in sockets if sock.family != socket.AF_UNIX]
    enforced = bool(config.allowed_hosts) or (bool(tcp) and are_local(tcp))
    return Hosts((*config.allowed_hosts, *config.host), enforced=enforced)
