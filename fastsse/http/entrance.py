"""Everything that comes in by HTTP: listeners, what they serve, and who gets the descriptors."""

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fastsse.config import Config, ConfigError, is_loopback
from fastsse.config import Problem as OptionProblem
from fastsse.http.access import Open
from fastsse.http.arrivals import Arrivals
from fastsse.http.clients import Clients
from fastsse.http.cors import Cors
from fastsse.http.descriptors import Descriptors
from fastsse.http.hosts import Hosts
from fastsse.http.listeners import ACCEPT_PAUSE_S, Listener, open_sockets, open_tcp
from fastsse.http.page import page_routes
from fastsse.http.probes import probe_routes
from fastsse.http.protocol import Connection
from fastsse.http.publish import Intake, Publish
from fastsse.http.quotas import Quotas
from fastsse.http.routes import Paths, Route, Routes
from fastsse.http.site import Site
from fastsse.http.streams import ComeBack, Streams
from fastsse.http.subscribe import Subscribe
from fastsse.http.waits import Waits
from fastsse.hub import Hub
from fastsse.log import AccessLog
from fastsse.metrics import Metrics

__all__ = ["Entrance", "Sockets"]


class Sockets(NamedTuple):
    """Bound sockets; `admin` is empty when `main` serves all."""

    main: Sequence[socket.socket]
    admin: Sequence[socket.socket]

    @classmethod
    def bind(cls, config: Config) -> "Sockets":
        """Binds what the options name. Raises ListenError, or ConfigError for an inherited
        socket that other machines reach while anyone may publish."""
        main = open_sockets(config, config)
        sockets = cls(main, ())
        try:
            if config.admin_port is not None:
                admin = open_tcp(config.host, config.admin_port, "admin_port", config)
                sockets = cls(main, admin)
            sockets.check(config)
        except BaseException:
            sockets.close()
            raise
        return sockets

    def check(self, config: Config) -> None:
        """What the options alone can't tell: where an inherited socket is reached from."""
        if _are_local(self.main) or config.publish_token or config.allow_anonymous_publish:
            return
        allowed = (
            "a socket on a loopback address while anyone may publish; set publish_token, or "
            "allow_anonymous_publish if that is meant"
        )
        option = "host" if config.fd is None else "fd"
        value = str(getattr(config, option))
        raise ConfigError([OptionProblem(option, value, "an argument", allowed)])

    def close(self) -> None:
        """Closes them."""
        for sock in (*self.main, *self.admin):
            sock.close()


class Entrance:
    """Listeners and sites of one worker. Loop thread only.

    Arguments:
        config: the options.
        hub: takes events in and opens streams.
        descriptors: how many there are.
        stream_count: how many of them are streams.
        access: told of streams and publishes.
    """

    def __init__(
        self,
        config: Config,
        hub: Hub,
        descriptors: Descriptors,
        stream_count: Callable[[], int],
        access: AccessLog,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._config = config
        self._hub = hub
        self._descriptors = descriptors
        self._stream_count = stream_count
        self._access = access
        self._waits = Waits(config, loop)
        self._clients = Clients(config.trusted_proxies, by_header=config.proxy_protocol)
        self._quotas = Quotas(config, loop.time)
        self._streams = Streams(
            hub.streams,
            ComeBack(loop.time),
            self._quotas,
            access=access,
            call_soon=loop.call_soon,
            exhausted=self._pause,
            descriptor_limit=descriptors.limit - 1,
        )
        self._arrivals: list[Arrivals] = []
        self._listeners: list[Listener] = []

    @property
    def main(self) -> Listener:
        """Where subscribers and publishers come in."""
        return self._listeners[0]

    @property
    def admin(self) -> Listener:
        """Where probes, metrics and the page are; mostly `main`."""
        return self._listeners[-1]

    def serve(self, sockets: Sockets, metrics: Metrics) -> None:
        """Begins to accept."""
        token = self._config.publish_token
        cors = Cors(self._config.cors_origins, cross_publish=token is not None)
        events = self._event_routes(cors)
        admin = {**events, **probe_routes(metrics, self._unready)}
        if self._config.page == "on" or (
            self._config.page == "auto" and _are_local((*sockets.main, *sockets.admin))
        ):
            admin |= page_routes()
        if sockets.admin:
            self._listen(sockets.main, events, cors)
            self._listen(sockets.admin, admin, cors)
        else:
            self._listen(sockets.main, admin, cors)
        for listener in self._listeners:
            listener.serve()
        self._waits.start()

    def drain(self) -> None:
        """Stops listening, except for admins, and closes every connection after its answer."""
        for arrivals in self._arrivals:
            arrivals.site.draining = True
        self.main.close()
        for connection in self._waits:
            connection.close()

    def close(self) -> None:
        """Closes everything at once; `answered` tells when it is done."""
        for listener in self._listeners:
            listener.close()
        for arrivals in self._arrivals:
            arrivals.close()
        self._waits.stop()
        for connection in self._waits:
            connection.abort()

    async def answered(self) -> None:
        """Returns when no connection is left that is no stream."""
        for arrivals in self._arrivals:
            await arrivals.settled()
        await self._waits.emptied()

    def counters(self) -> dict[str, int]:
        """What this part counts, by the names of the metrics."""
        return {
            "turned_away": self._streams.turned_away,
            "max_connections": self._descriptors.max_connections,
            **self._quotas.counters(),
        }

    def closed(self, stream: int) -> None:
        """To be told of each stream that ended."""
        if self._quotas.active:
            self._quotas.closed(stream)

    def _event_routes(self, cors: Cors) -> Paths:
        config = self._config
        secret = config.publish_token
        access = Open(None if secret is None else secret.get_secret_value(), cors)
        log = self._access if self._access.logs_publishes else None
        publish = Publish(Intake(self._hub, access, self._clients, self._quotas, log))
        subscribe = Subscribe(config.max_topics, lambda: time.time_ns() // 1_000_000, access)
        routes = {b"GET": Route(subscribe, streams=True), b"POST": Route(publish, publish.admit)}
        return {b"/events": routes}

    def _listen(self, sockets: Sequence[socket.socket], paths: Paths, cors: Cors) -> None:
        config = self._config
        site = Site(
            config,
            Routes(paths, cors),
            cors,
            _hosts(config, sockets),
            self._clients,
            self._quotas,
            self._waits,
            self._streams,
            self._on_arrival,
        )
        arrivals = Arrivals(site)
        self._arrivals.append(arrivals)
        self._listeners.append(Listener(sockets, arrivals.welcome))

    def _on_arrival(self, newcomer: Connection) -> None:
        """Keeps one descriptor free for whoever comes next, probes above all: what is missed
        least has to go. If nothing can go, newcomers wait in the kernel."""
        waits = self._waits
        if len(waits) <= self._descriptors.requests_most(self._stream_count()):
            return
        spare = waits.spare(newcomer)
        if spare is None:
            self._pause()
        else:
            spare.evict()

    def _pause(self) -> None:
        for listener in self._listeners:
            listener.pause(ACCEPT_PAUSE_S, "No descriptor is left.")

    def _unready(self) -> str | None:
        streams = self._hub.streams
        if streams.draining:
            return "draining"
        return None if streams.has_room() else "full"


def _hosts(config: Config, sockets: Sequence[socket.socket]) -> Hosts:
    """What a listener on these sockets answers to. A page can't reach a Unix socket, and whoever
    listens for others may have any name, unless names were given."""
    tcp = [sock for sock in sockets if sock.family != socket.AF_UNIX]
    enforced = bool(config.allowed_hosts) or (bool(tcp) and _are_local(tcp))
    return Hosts((*config.allowed_hosts, *config.host), enforced=enforced)


def _are_local(sockets: Sequence[socket.socket]) -> bool:
    """Whether only this machine can reach them."""
    return all(
        sock.family == socket.AF_UNIX or is_loopback(sock.getsockname()[0]) for sock in sockets
    )
