"""What a worker offers to who reads and publishes: paths, and what stands behind them."""

import asyncio
import time
from collections.abc import Mapping

from fastsse._core import REASON_ENDED
from fastsse.auth.guard import Guard, make_guard
from fastsse.config import Config
from fastsse.control.presence import Presence
from fastsse.control.service import ControlClient
from fastsse.control.stream_lookup import StreamLookup
from fastsse.control.usage import UsageClient
from fastsse.errors import Forbidden, Unauthorised
from fastsse.events import EARLIEST
from fastsse.http.access import Access, Open
from fastsse.http.allowances import Allowances, Counted
from fastsse.http.clients import Clients
from fastsse.http.cors import Cors
from fastsse.http.guarded import Guarded
from fastsse.http.lifetimes import lifetime_routes, pong_routes
from fastsse.http.mercure import mercure_routes
from fastsse.http.origins import Origins
from fastsse.http.parameters import Speech
from fastsse.http.presence import SUBSCRIPTIONS_PATH, presence_route, subscriptions_route
from fastsse.http.publish import Intake, Publish
from fastsse.http.quotas import Quotas
from fastsse.http.routes import BELOW, Paths, Route
from fastsse.http.subscribe import Subscribe
from fastsse.http.ticketed import Ticketed
from fastsse.hub import Hub
from fastsse.log import AccessLog
from fastsse.positions import uuid_of_position
from fastsse.reserved import HUB_PATH

__all__ = ["Offer"]


class Offer:
    """Our own interface, Mercure's, and what is beside them. Loop thread only.

    Arguments:
        config: the options.
        hub: takes events in and opens streams.
        clients: tells who they are.
        quotas: how much each may do.
        log: told of publishes.
        control: what the node's workers share; None offers nothing that needs it.

    `presence` is to be told of each stream that opens; None where nobody may ask.
    """

    def __init__(
        self,
        config: Config,
        hub: Hub,
        clients: Clients,
        quotas: Quotas,
        log: AccessLog,
        control: ControlClient | None,
    ) -> None:
        self._config = config
        self._hub = hub
        self._clients = clients
        self._allowances = Allowances(clients, quotas)
        self._quotas = quotas
        self._log = log
        self._guard: Guard | None = None
        self._reach: StreamLookup | None = None
        self.presence: Presence | None = None
        quotas.end_stream = lambda stream: hub.streams.close(stream, REASON_ENDED)
        if config.address_replay or config.subject_replay:
            hub.streams.watch_replays(quotas.replayed)
        if control is not None:
            self._join(control)

    def paths(self, cors: Cors) -> Paths:
        """The routes by their paths; to be asked for once."""
        config = self._config
        access, mercure_access = self._accesses(cors)
        publish = Publish(self._intake(access))
        speech = Speech(config.initial_id, config.min_heartbeat, config.max_pad)
        subscribe = Subscribe(
            config.max_topics,
            lambda: time.time_ns() // 1_000_000,
            access,
            speech,
            pings=bool(config.ping),
        )
        mercure_intake = self._intake(mercure_access, Unauthorised)
        paths: dict[bytes, Mapping[bytes, Route]] = {
            b"/events": {
                b"GET": Route(subscribe, streams=True),
                b"POST": Route(publish, publish.admit),
            },
            HUB_PATH.encode(): mercure_routes(mercure_access, mercure_intake, speech),
        }
        counted, mercure_counted = (
            Counted(one, self._allowances) for one in (access, mercure_access)
        )
        paths |= self._lifetimes(counted)
        if self.presence is not None:
            route = subscriptions_route(mercure_counted, self.presence, self._last_id)
            paths[SUBSCRIPTIONS_PATH] = paths[SUBSCRIPTIONS_PATH + BELOW] = {b"GET": route}
            paths[b"/presence"] = {b"GET": presence_route(counted, self.presence, self._last_id)}
        return paths

    def closed(self, stream: int) -> None:
        """A stream has ended."""
        if self._quotas.active:
            self._quotas.closed(stream)
        if self.presence is not None:
            self.presence.closed(stream)

    def close(self) -> None:
        """Ends what is under way."""
        if self._guard is not None:
            self._guard.close()

    def _join(self, control: ControlClient) -> None:
        """Takes part in what the node's workers share."""
        loop = asyncio.get_running_loop()
        config = self._config
        self._guard = make_guard(config, control, Origins(config.publish_origins))
        self._reach = StreamLookup(control, is_alone=control.is_alone)
        if self._quotas.active and not control.is_alone:
            usage = UsageClient(control, loop.call_later, self._quotas.others_used)
            usage.on_end = self._quotas.end_oldest
            self._quotas.usage = usage
        if config.subscriptions:
            self.presence = Presence(control, loop.call_soon)

    def _lifetimes(self, access: Access) -> Paths:
        """What is beside reading and publishing."""
        if self._reach is None:
            return {}
        streams, guard = self._hub.streams, self._guard
        routes: dict[bytes, Mapping[bytes, Route]] = {}
        if self._config.ping:
            routes |= pong_routes(self._allowances, self._reach, streams)
        if guard is not None:
            guard.revocations.on_revoked = streams.revoke
            routes.update(lifetime_routes(guard, access, self._reach, streams))
        return routes

    def _last_id(self) -> bytes:
        """The id of the last event that this worker knows of, `earliest` before any."""
        hub = self._hub
        if not (hub.entries_seen or hub.history.events or hub.history.expected_through):
            return EARLIEST
        return uuid_of_position(hub.history.head)

    def _accesses(self, cors: Cors) -> tuple[Access, Access]:
        """Who may use the interface of our own, and Mercure's."""
        if self._guard is not None:
            assert self._reach is not None
            streams, log = self._hub.streams, self._log
            ticketed = Ticketed(self._guard.tickets, self._reach, streams, self._clients, log)
            ours, mercure = (
                Guarded(self._guard, ticketed, mercure=is_mercure) for is_mercure in (False, True)
            )
            return ours, mercure
        secret = self._config.publish_token
        access = Open(None if secret is None else secret.get_secret_value(), cors)
        return access, access

    def _intake(
        self, access: Access, not_granted: type[Forbidden] | type[Unauthorised] = Forbidden
    ) -> Intake:
        return Intake(self._hub, access, self._allowances, self._log, not_granted)
