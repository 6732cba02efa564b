"""Builds the route table: our API, Mercure, tokens, presence."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial

from fastsse._core import REASON_ENDED
from fastsse._intake import Intake
from fastsse.api.access import Access, OpenAccess
from fastsse.api.admin import Admin, BusiestTopics, ConsoleAccess, LiveStats, TokenAdmin
from fastsse.api.authorization import Authorization
from fastsse.api.client_files import client_routes
from fastsse.api.delayed import DelayedPublish, schedule_bounds, schedule_routes
from fastsse.api.feeds import FeedsInUse, feed_bounds, feed_routes
from fastsse.api.health import Lines
from fastsse.api.mercure import mercure_routes
from fastsse.api.parameters import Speech
from fastsse.api.polling import Polling
from fastsse.api.presence import SUBSCRIPTIONS_PATH, presence_route, subscriptions_route
from fastsse.api.publish import Publish, PublishGate
from fastsse.api.publish_intake import PublishIntake
from fastsse.api.rate_limits import LimitedAccess, RateLimits, RequestLimits
from fastsse.api.receipts import Reached, Receipts
from fastsse.api.stream_intake import OpenStreams
from fastsse.api.stream_wakes import wake_routes
from fastsse.api.streams import StreamRoutes, stream_routes
from fastsse.api.subscribe import Subscribe
from fastsse.api.ticket_streams import TicketStreams
from fastsse.api.token_access import TokenAccess
from fastsse.api.tokens import pong_routes, token_routes
from fastsse.api.topics import DeleteEvent, topic_routes
from fastsse.api.views import ViewReader
from fastsse.api.webhooks import Webhooks
from fastsse.api.websocket import SubscribeByWebSocket
from fastsse.auth.guard import Guard, make_guard
from fastsse.auth.revocations import Revocations
from fastsse.config import Config
from fastsse.control.feeds import Feeds
from fastsse.control.gather import GatherClient
from fastsse.control.presence import Presence
from fastsse.control.schedule import Schedule
from fastsse.control.service import ControlClient
from fastsse.control.stats import StatsClient
from fastsse.control.stream_lookup import StreamLookup
from fastsse.control.usage import UsageClient
from fastsse.errors import Forbidden, Unauthorised
from fastsse.events import EARLIEST
from fastsse.http.client_address import ClientAddresses
from fastsse.http.cors import Cors
from fastsse.http.intake import make_intake
from fastsse.http.listener_context import ListenerContext
from fastsse.http.origins import Origins
from fastsse.http.router import BELOW, Paths, Route
from fastsse.hub import Hub
from fastsse.log import AccessLog
from fastsse.positions import now_ms, uuid_of_position
from fastsse.reserved import HUB_PATH
from fastsse.streams.service import DurableStreams
from fastsse.tracing import Tracer

__all__ = ["Endpoints"]


class Endpoints:
    """The handlers of our API, of Mercure, of tokens and of presence. Loop thread only.

    Arguments:
        config: the options.
        hub: accepts events and opens streams.
        clients: finds client addresses.
        rate_limits: the limits per client.
        log: logs publishes.
        control: the control services of the node; None omits the paths that need them.

    `presence` must be notified of each stream that opens; it is None if presence is off.
    """

    def __init__(
        self,
        config: Config,
        hub: Hub,
        clients: ClientAddresses,
        rate_limits: RateLimits,
        log: AccessLog,
        control: ControlClient | None,
    ) -> None:
        self._config = self._topic_rules = config
        self._hub = hub
        self._clients = clients
        self._request_limits = RequestLimits(clients, rate_limits)
        self._rate_limits = rate_limits
        self._log = log
        self._guard: Guard | None = None
        self._lookup: StreamLookup | None = None
        self._publish: Publish | None = None
        self._polling: Polling | None = None
        #: Counts the streams that match a publish; None without control services.
        self.receipts: Receipts | None = None
        self._reached: Reached | None = None
        #: Delayed publishes; None without control services.
        self.delayed: DelayedPublish | None = None
        #: Stored selections; None without control services.
        self.feeds: Feeds | None = None
        self._feeds_in_use: FeedsInUse | None = None
        self._admin: Admin | None = None
        self.live = LiveStats(hub.streams, self._request_limits)
        self.presence: Presence | None = None
        self.streams: DurableStreams | None = None
        self._open_streams: OpenStreams | None = None
        #: Gives lines that `/metrics` has in addition; None: none.
        self.more_metrics: Lines | None = None
        #: Makes spans; set it before `paths`.
        self.tracer: Tracer | None = None
        self._intakes: list[Intake] = []
        self._authorization = Authorization(config)
        self._webhooks = Webhooks(config, hub, self._request_limits)
        rate_limits.end_stream = lambda stream: hub.streams.close(stream, REASON_ENDED)
        if config.address_replay or config.subject_replay:
            hub.streams.watch_replays(rate_limits.on_replayed)
        self._control = control
        if control is not None:
            self._join(control)

    def paths(self, cors: Cors, own_access: Access | None = None) -> Paths:
        """The routes by path. Call it once. `own_access` decides instead of the options."""
        config = self._config
        access, mercure_access = (
            self._accesses(cors) if own_access is None else (own_access, own_access)
        )
        self._access = access
        gate = self._gate(access)
        publish = self._publish = Publish(gate)
        delete = DeleteEvent(gate, self._hub)
        speech = Speech(
            config.initial_id, config.min_heartbeat, config.max_pad, pings=bool(config.ping)
        )
        limited = LimitedAccess(access, self._request_limits)
        polling = self._polling = Polling(self._hub.streams.polls, limited, self._log)
        self._hub.streams.polls.on_erased = polling.clear
        subscribe = Subscribe(
            config.max_topics,
            lambda: time.time_ns() // 1_000_000,
            access,
            speech,
            ViewReader(self._have_envelopes),
            self._hub.streams.finished,
        )
        subscribe.polling = polling
        subscribe.feeds = self.feeds
        subscribe.authorization = self._authorization
        mercure_gate = self._gate(mercure_access, Unauthorised)
        paths: dict[bytes, Mapping[bytes, Route]] = {
            b"/events": {
                b"GET": Route(subscribe, streams=True),
                b"POST": Route(publish, publish.admit, read=publish.read),
                b"DELETE": Route(delete, delete.admit),
            },
            b"/ws": {b"GET": Route(SubscribeByWebSocket(subscribe, cors))},
            HUB_PATH.encode(): mercure_routes(mercure_access, mercure_gate, speech),
        }
        paths |= self._webhooks.paths(self.tracer)
        paths |= topic_routes(gate, self._hub)
        paths |= self._stream_paths(access, gate)
        counted, mercure_counted = (
            LimitedAccess(one, self._request_limits) for one in (access, mercure_access)
        )
        paths |= self._token_paths(counted)
        if self.delayed is not None:
            paths |= schedule_routes(gate, self.delayed.schedule)
        if self.feeds is not None:
            paths |= feed_routes(self.feeds, counted)
        if self.presence is not None:
            route = subscriptions_route(mercure_counted, self.presence, self._last_id)
            paths[SUBSCRIPTIONS_PATH] = paths[SUBSCRIPTIONS_PATH + BELOW] = {b"GET": route}
            paths[b"/presence"] = {b"GET": presence_route(counted, self.presence, self._last_id)}
        return paths | client_routes()

    def admin_paths(self, stats: StatsClient, *, is_local: bool) -> Paths:
        """The routes of operators. `is_local`: only this machine reaches the listeners, and not
        through a proxy."""
        if self._admin is None:
            return {}
        password = self._config.console_password
        access = ConsoleAccess(
            self._guard,
            None if password is None else password.get_secret_value(),
            is_local=is_local,
        )
        tokens = TokenAdmin(self._config, self._guard, self._request_limits, access)
        return {
            **self._admin.paths(access, stats),
            **self.live.paths(access, stats),
            **tokens.paths(),
        }

    def _stream_paths(self, access: Access, gate: PublishGate) -> Paths:
        config = self._config
        self.streams = DurableStreams(
            self._hub, config.streams_poll, now_ms, serves_plain=config.streams_plain
        )
        self._open_streams = OpenStreams(self._hub, config.streams_path + "/")
        routes = StreamRoutes(
            self.streams,
            gate,
            access,
            lambda topic: self._hub.topics.rule(topic).is_private,
            config.streams_path,
            self._open_streams,
        )
        return {
            **wake_routes(gate, self._control, config.streams_path),
            **stream_routes(routes, config.streams_path),
        }

    def intake(self, context: ListenerContext) -> Intake:
        """The intake of a listener. Call it after `paths`."""
        intake = make_intake(
            context,
            PublishIntake(self._hub, self._access, self._request_limits, self._config.max_event),
            None if self._open_streams is None else self._open_streams.route,
            is_traced=self.tracer is not None,
        )
        if self._open_streams is not None:
            self._open_streams.join(intake)
        self._intakes.append(intake)
        self.switch_intakes()
        return intake

    def apply_topic_rules(self, config: Config) -> None:
        """Judges later publishes and streams by the `[[topics]]` of these options."""
        self._topic_rules = config
        if self._admin is not None:
            self._admin.apply_topic_rules(config)
        self.forget_targets()

    def forget_targets(self) -> None:
        """Has intakes publish what they have taken, and ask again what they may take. Call it
        before interceptors change."""
        for intake in self._intakes:
            intake.forget_targets()
        if self._open_streams is not None:
            self._open_streams.forget()

    def switch_intakes(self) -> None:
        """Turns intakes off while each publish is logged or authorized, and makes them count
        publishes while a limit per client is set."""
        is_on = not (self._log.logs_publishes or self._authorization.covers("publish"))
        for intake in self._intakes:
            intake.is_on = is_on
            intake.counts_clients = self._rate_limits.active

    def _have_envelopes(self, selectors: Sequence[str]) -> bool:
        """Whether a stream of these topics and templates has envelopes by default."""
        config = self._topic_rules
        # A feed has thousands of topics, and few servers a rule that speaks of envelopes.
        if all(rule.envelope is None for rule in config.topic_rules):
            return config.envelope == "json"
        kinds = (None if rule is None else rule.envelope for rule in map(config.rule, selectors))
        return any((kind or config.envelope) == "json" for kind in kinds)

    def on_stream_closed(self, stream: int) -> None:
        """A stream has ended."""
        self.live.on_stream_closed(stream)
        if self._rate_limits.active:
            self._rate_limits.on_stream_closed(stream)
        if self.presence is not None:
            self.presence.on_stream_closed(stream)

    def tick(self, now_s: float) -> None:
        """Call it once a second, with a clock that only goes forward."""
        if self._feeds_in_use is not None:
            self._feeds_in_use.step(now_s)

    def counters(self) -> dict[str, int]:
        """The counters of this part, under the names of the metrics."""
        streams = None if self._publish is None else self._publish.streams
        return {
            "publish_streams": 0 if streams is None else streams.open,
            "publish_streams_cut": 0 if streams is None else streams.cut,
            "doubtful_polls": 0 if self._polling is None else self._polling.doubtful,
            "publishes_batched": sum(intake.taken for intake in self._intakes),
            **({} if self.streams is None else self.streams.counters()),
            "publish_batches": sum(intake.batches for intake in self._intakes),
            **self._webhooks.counters(),
            **self._authorization.counters(),
            "feeds_stored": 0 if self.feeds is None else self.feeds.stored,
            "feeds_unknown": 0 if self.feeds is None else self.feeds.unknown,
        }

    def close(self) -> None:
        """Cancels pending work."""
        self._authorization.close()
        if self.streams is not None:
            self.streams.close()
        if self._guard is not None:
            self._guard.close()

    def _join(self, control: ControlClient) -> None:
        """Connects to the control services of the node."""
        loop = asyncio.get_running_loop()
        config = self._config
        self._guard = make_guard(config, control, Origins(config.publish_origins))
        self._lookup = StreamLookup(control, is_alone=control.is_alone)
        if self._rate_limits.active and not control.is_alone:
            usage = UsageClient(control, loop.call_later, self._rate_limits.on_others_used)
            usage.on_end = self._rate_limits.end_oldest
            self._rate_limits.usage = usage
        schedule = Schedule(control, schedule_bounds(config.max_scheduled, config.schedule_total))
        self.delayed = DelayedPublish(self._hub, schedule, now_ms)
        bounds = feed_bounds(config.max_feeds, config.feeds_total, config.feed_lifetime)
        self.feeds = Feeds(control, bounds)
        self._feeds_in_use = FeedsInUse(self.feeds, self._hub.channels)
        gather = GatherClient(control)
        if config.metrics_topics:
            self.more_metrics = BusiestTopics(gather, config.metrics_topics).exposition
        self.receipts = Receipts(self._hub, gather)
        self._reached = None if control.is_alone else Reached(self._hub, gather)
        if self._reached is not None:
            self._hub.on_reached = self._reached.on_entries
        self._admin = Admin(
            config, self._hub, gather, self._request_limits, self._guard, self._set_log_level
        )
        if config.subscriptions:
            self.presence = Presence(control, loop.call_soon, self._hub.streams.name_of)

    def _token_paths(self, access: Access) -> Paths:
        """The routes that neither read nor publish events."""
        if self._lookup is None:
            return {}
        streams, guard = self._hub.streams, self._guard
        streams.renews = guard is not None
        routes: dict[bytes, Mapping[bytes, Route]] = {}
        if self._config.ping:
            routes |= pong_routes(self._request_limits, self._lookup, streams)
        if guard is not None:
            guard.revocations.on_revoked = partial(self._on_revoked, guard.revocations)
            routes.update(token_routes(guard, access, self._lookup, streams))
        return routes

    def _set_log_level(self, level: str) -> None:
        """Sets another level of access lines than the option's."""
        self._log.set_level(level)
        self.switch_intakes()

    def _on_revoked(
        self,
        revocations: Revocations,
        subject_hash: int,
        token_hash: int,
        issued_before_s: int,
    ) -> None:
        for intake in self._intakes:
            intake.distrust()
        self._hub.streams.revoke(subject_hash, token_hash, issued_before_s)
        self._hub.streams.polls.end_revoked(revocations.covers)
        if self.streams is not None:
            self.streams.waiters.end_revoked(revocations.covers)

    def _last_id(self) -> bytes:
        """The id of the last event that this worker has received; `earliest` before the first."""
        hub = self._hub
        if not (hub.entries_seen or hub.history.events or hub.history.expected_through):
            return EARLIEST
        return uuid_of_position(hub.history.head)

    def _accesses(self, cors: Cors) -> tuple[Access, Access]:
        """The access of our API and of Mercure."""
        if self._guard is not None:
            assert self._lookup is not None
            streams, log = self._hub.streams, self._log
            ticketed = TicketStreams(self._guard.tickets, self._lookup, streams, self._clients, log)
            ours, mercure = (
                TokenAccess(self._guard, ticketed, mercure=is_mercure)
                for is_mercure in (False, True)
            )
            return ours, mercure
        secret = self._config.publish_token
        access = OpenAccess(None if secret is None else secret.get_secret_value(), cors)
        return access, access

    def _gate(
        self, access: Access, not_granted: type[Forbidden] | type[Unauthorised] = Forbidden
    ) -> PublishGate:
        limits, authorization = self._request_limits, self._authorization
        gate = PublishGate(self._hub, access, limits, self._log, authorization, not_granted)
        gate.receipts, gate.reached = self.receipts, self._reached
        gate.schedule = self.delayed
        gate.tracer = self.tracer
        return gate
