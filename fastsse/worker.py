"""One worker: starts and ends its listeners, connections, hub and sender together.

Over 400 lines: it connects all parts of a worker, and starts and ends them in order.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Self

from fastsse._core import Sender
from fastsse.api.access import Access
from fastsse.api.bound_sockets import Sockets
from fastsse.api.feeds import feed_of_topics
from fastsse.api.frontend import Frontend
from fastsse.api.receipts import StreamCount
from fastsse.api.startlines import start_lines
from fastsse.backbone.memory import MemoryBackbone
from fastsse.bus import BusBackbone
from fastsse.config import Config
from fastsse.config.store import show_store
from fastsse.control.gather import OwnFacts
from fastsse.control.schedule import FIRST, ScheduledEvent, SchedulePage
from fastsse.control.service import ControlClient, ControlStore, LocalControlClient
from fastsse.control.stats import StatsClient, WorkerStats
from fastsse.entries import Entry
from fastsse.errors import FastsseError, Unavailable
from fastsse.events import Event, check_topic
from fastsse.handlers import Handlers
from fastsse.hooks import HookReports, StreamHandlers, StreamHooks
from fastsse.http.descriptors import Descriptors, of_a_stream
from fastsse.http.tls import check_records
from fastsse.hub import SWEEP_ON_S, Hub, Published
from fastsse.hub.connections import Connections
from fastsse.hub.resume.options import ReplayBounds
from fastsse.hub.streams import ClosedStream
from fastsse.interceptors import Interceptor
from fastsse.log import AccessLog, get_logger, is_console
from fastsse.metrics import ALIASES, process_use
from fastsse.positions import now_ms
from fastsse.rules import Alerts, EventRules
from fastsse.rules.intercepting import make_interceptors
from fastsse.services import service_makers
from fastsse.sinks import Sinks
from fastsse.sources import Sources
from fastsse.stores import OpenedStores, open_stores
from fastsse.tracing import tracer_of
from fastsse.units import format_duration, format_size
from fastsse.version import __version__
from fastsse.vitals import Vitals
from fastsse.wakes import StreamWakes

__all__ = ["Worker"]

log = get_logger("server")
TICK_S: Final = 1.0
# Time that a drain may take after its window, for answers and last bytes.
DRAIN_GRACE_S: Final = 1.0
# How long a kept connection may ask for something, once it is to be closed with its next answer:
# when no process serves after this, and when another worker does.
IDLE_GRACE_S: Final = 1.0
LEAVING_GRACE_S: Final = 5.0


class Hooks:
    """What the program around a server has it call.

    Arguments:
        interceptors: see each event before it is ordered.
        handlers: are called with committed events.
        access: decides who may read and publish; None: as the options say.
        counters: more counters, under the names of the metrics.
        on_closed: called with each stream that ended.
        stream_handlers: are called with streams, and the first and last subscriber of topics.
    """

    def __init__(
        self,
        interceptors: Sequence[Interceptor] = (),
        handlers: Handlers | None = None,
        access: Access | None = None,
        counters: Callable[[], Mapping[str, int]] = lambda: {"mounted_native": 0},
        on_closed: Callable[[ClosedStream], None] = lambda stream: None,
        stream_handlers: StreamHandlers | None = None,
    ) -> None:
        self.interceptors: Final = tuple(interceptors)
        self.access: Final = access
        self.counters: Final = counters
        self.on_closed: Final = on_closed
        self.stream_handlers: Final = stream_handlers or StreamHandlers()
        self.handlers: Final = handlers or Handlers()


class Worker:
    """All parts of one worker. Loop thread only; make it inside the loop that it uses.

    Arguments:
        config: the options.
        sockets: the listening sockets, which it owns from now on; None binds those in the options.
        backbone: orders events; the worker owns it from now on. None keeps events in memory.
        control: the client of the node's control services; None runs them in this worker.
        store: the store of control services in this worker; None keeps their data in memory.
        number: the number of this worker in its service.

    Raises ConfigError or ListenError; then all resources are released. Logs one line when it
    serves, unless another process does.
    """

    def __init__(
        self,
        config: Config,
        *,
        sockets: Sockets | None = None,
        stores: OpenedStores | None = None,
        control: ControlClient | None = None,
        number: int = 0,
        hooks: Hooks | None = None,
    ) -> None:
        self.config = config
        hooks = hooks or Hooks()
        self.handlers: Final = hooks.handlers
        self._own_interceptors = hooks.interceptors
        self._own_access = hooks.access
        self._own_counters, self._on_own_closed = hooks.counters, hooks.on_closed
        self._loop = asyncio.get_running_loop()
        self._descriptors = Descriptors.plan(config.max_connections, *of_a_stream(config))
        self._drained: asyncio.Event | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._started_s = time.time()
        self._is_leaving = False
        with contextlib.ExitStack() as undo:
            sockets = sockets or Sockets.bind(config)
            undo.callback(sockets.close)
            self._sender = self._start_sender(undo)
            stores = stores or OpenedStores(MemoryBackbone(now_ms), None)
            self._backbone = stores.backbone
            self._hub = self._open_hub(undo)
            self._access = AccessLog(config)
            self._access.name_of = self._hub.streams.name_of
            is_alone = control is None
            self._tracer = tracer_of(config)
            facts = self._open_others(stores, hooks.stream_handlers, is_alone=is_alone)
            control = control or self._own_services(facts, stores.control_store, undo)
            self.frontend: Final = Frontend(
                config,
                self._hub,
                self._descriptors,
                lambda: self.stream_count,
                self._access,
                control,
            )
            undo.callback(self.frontend.close)
            self._report_hooks(control)
            if self._tracer is not None:
                self.frontend.trace_with(self._tracer)
                self._tracer.bounds = self._sender.latency_buckets()[0]
            self._counts_alerts = is_alone
            self._hub.on_entries = self._reader_of_entries()
            self._serve(sockets, control, number)
            undo.callback(self._stop_timers)
            self._undo = undo.pop_all()
        if not sockets.all:
            self._log_start(sockets.has_page(config))

    def _open_others(
        self, stores: OpenedStores, handlers: StreamHandlers, *, is_alone: bool
    ) -> OwnFacts:
        """What else is in the process that orders; returns what it answers operators."""
        config = self.config
        # Separate from the log: where others share it, it is not here.
        self._sources = self._sinks = None
        self._wakes = StreamWakes.of(self._backbone, config)
        self._stream_hooks = StreamHooks(config, handlers)
        if not is_alone:
            if handlers:
                raise RuntimeError("Handlers of streams need a server without a hub process.")
            return {}
        self._sources = Sources(config, self._hub.publish, self._tracer)
        self._sinks = Sinks(config, self._backbone, stores.control_store, self._tracer)
        return self._sinks.facts(self._sources.facts())

    def _own_services(
        self, facts: OwnFacts, store: ControlStore | None, undo: contextlib.ExitStack
    ) -> ControlClient:
        """The control services of a worker that is alone."""
        makers = service_makers(
            facts=facts, append=self._backbone.append, wakes=self._wakes, hooks=self._stream_hooks
        )
        control = LocalControlClient(makers, self._announce, store)
        undo.callback(control.services.close)
        return control

    def _report_hooks(self, control: ControlClient) -> None:
        self._hook_reports: HookReports | None = None
        if self._stream_hooks:
            streams = self._hub.streams
            self._hook_reports = HookReports(
                control,
                self._loop.call_soon,
                streams.name_of,
                streams=self._stream_hooks.wants_streams,
            )
            self.frontend.report_hooks(self._hook_reports)

    def _start_sender(self, undo: contextlib.ExitStack) -> Sender:
        # Before the thread of the sender exists; see `grow_table`.
        self._descriptors.grow_table()
        sender = _sender(self.config, self._descriptors)
        undo.callback(sender.stop)
        sender.start()
        return sender

    def _open_hub(self, undo: contextlib.ExitStack) -> Hub:
        config, sender = self.config, self._sender
        hub = Hub(
            sender, self._backbone, config, config, ReplayBounds(max_replays=config.max_replays)
        )
        if isinstance(self._backbone, BusBackbone):
            self._backbone.share(hub.history)
        self._rules = EventRules(config.rules)
        self._interceptors = make_interceptors(config, self._rules, self._own_interceptors)
        hub.interceptors = self._interceptors or None
        # Where events are ordered, once a node.
        self._alerts = Alerts(config.rules, hub.publish)
        hub.streams.on_closed = self._on_closed
        if config.connection_details:
            hub.streams.connections = Connections(self._descriptors.max_connections)
        hub.channels.on_unready = self._sweep_soon
        undo.callback(hub.stop)
        self._loop.add_reader(sender.notice_fd, hub.streams.read_notices)
        undo.callback(self._loop.remove_reader, sender.notice_fd)
        return hub

    def _serve(self, sockets: Sockets, control: ControlClient, number: int) -> None:
        self._slot, self._slots = sockets.slot, max(1, len(sockets.all))
        self._stats = StatsClient(control, self._reading, self.frontend.on_help)
        trouble = lambda: self._backbone.trouble  # noqa: E731
        self.frontend.serve(sockets, self._stats, trouble, number, self._own_access)
        if self._sources is not None:
            self._sources.begin()
        if self._sinks is not None:
            self._sinks.begin()
        self._vitals = Vitals(
            self._hub.streams,
            lambda: self.stream_count + self.frontend.connection_count,
            TICK_S,
        )
        self._tick()
        self._sweep()

    @classmethod
    async def open(
        cls,
        config: Config,
        *,
        sockets: Sockets | None = None,
        hooks: Hooks | None = None,
    ) -> Self:
        """The only worker of a service, with the store in its options.

        Raises ConfigError, ListenError, or the error of the store; then all resources except
        `sockets` are released.
        """
        opened = await open_stores(config)
        try:
            return cls(config, sockets=sockets, stores=opened, hooks=hooks)
        except BaseException:
            await opened.backbone.close()
            raise

    @property
    def max_connections(self) -> int:
        """The maximum number of open streams."""
        return self._descriptors.max_connections

    @property
    def stream_count(self) -> int:
        """The number of open streams."""
        return self._descriptors.max_connections - self._sender.free_slot_count

    def publish(self, event: Event) -> str:
        """As `Server.publish`."""
        if not isinstance(self._backbone, MemoryBackbone):
            raise RuntimeError("publish needs the memory store; await publish_later instead.")
        outcomes: list[Published | FastsseError] = []
        self._hub.publish((event,), outcomes.append)
        return _id_of(outcomes[0])

    async def publish_later(self, event: Event) -> str:
        """As `Server.publish_later`."""
        answer: asyncio.Future[Published | FastsseError] = self._loop.create_future()
        self._hub.publish((event,), _into(answer))
        return _id_of(await answer)

    async def count_streams(self, topics: Sequence[str], *, private: bool) -> StreamCount:
        """As `Server.count_streams`."""
        for topic in topics:
            check_topic(topic)
        answer: asyncio.Future[StreamCount | None] = self._loop.create_future()

        def done(count: StreamCount | None) -> None:
            if not answer.done():
                answer.set_result(count)

        self.frontend.receipts.ask(topics, private, done)
        count = await answer
        if count is None:
            raise Unavailable("queue", retry_after_s=1)
        return count

    async def schedule(self, event: Event) -> str:
        """As `Server.schedule`."""
        answer: asyncio.Future[str | FastsseError] = self._loop.create_future()

        def done(outcome: tuple[str, int] | FastsseError) -> None:
            if not answer.done():
                answer.set_result(outcome if isinstance(outcome, FastsseError) else outcome[0])

        self.frontend.delayed.keep(event, done)
        outcome = await answer
        if isinstance(outcome, FastsseError):
            raise outcome
        return outcome

    async def cancel(self, scheduled: str) -> None:
        """As `Server.cancel`."""
        answer: asyncio.Future[FastsseError | None] = self._loop.create_future()

        def done(outcome: FastsseError | None) -> None:
            if not answer.done():
                answer.set_result(outcome)

        self.frontend.delayed.cancel(scheduled, done)
        error = await answer
        if error is not None:
            raise error

    async def list_scheduled(self) -> list[ScheduledEvent]:
        """As `Server.list_scheduled`."""
        waiting: list[ScheduledEvent] = []
        failed: list[ScheduledEvent] = []
        place: tuple[int, str] | None = FIRST
        while place is not None:
            page = await self._scheduled_page(place)
            waiting += page.events
            failed += page.dead  # With the first page.
            place = page.next
        return waiting + failed

    async def _scheduled_page(self, place: tuple[int, str]) -> SchedulePage:
        answer: asyncio.Future[SchedulePage | FastsseError] = self._loop.create_future()

        def done(outcome: SchedulePage | FastsseError) -> None:
            if not answer.done():
                answer.set_result(outcome)

        self.frontend.delayed.schedule.list(place, done)
        outcome = await answer
        if isinstance(outcome, FastsseError):
            raise outcome
        return outcome

    async def store_feed(self, topics: Iterable[str]) -> str:
        """As `Server.store_feed`."""
        feed = feed_of_topics(topics)
        answer: asyncio.Future[FastsseError | None] = self._loop.create_future()

        def done(outcome: FastsseError | None) -> None:
            if not answer.done():
                answer.set_result(outcome)

        self.frontend.feeds.store(feed, done)
        error = await answer
        if error is not None:
            raise error
        return feed.feed

    async def delete_event(self, topic: str, event_id: str) -> str:
        """As `Server.delete_event`."""
        answer: asyncio.Future[Published | FastsseError] = self._loop.create_future()
        self._hub.delete_event(check_topic(topic), event_id, _into(answer))
        return _id_of(await answer)

    async def purge_topic(self, topic: str) -> str:
        """As `Server.purge_topic`."""
        answer: asyncio.Future[Published | FastsseError] = self._loop.create_future()
        self._hub.purge_topic(check_topic(topic), _into(answer))
        return _id_of(await answer)

    def apply(self, config: Config) -> None:
        """Applies the new options that can change while it serves. Raises ConfigError for
        certificates that can't be used; then nothing has changed."""
        self.frontend.apply(config)
        self.take_over(config)
        self._apply_rules(config)

    def take_over(self, config: Config) -> None:
        """Applies topic rules and the options of access lines. No stream ends."""
        if config.topics != self.config.topics:
            self._hub.apply_rules(config)
            self.frontend.apply_topic_rules(config)
            if self._sources is not None:
                self._sources.apply_rules(config)
            self._sweep_soon()
        self.config = config
        self._access.apply(config)

    def _apply_rules(self, config: Config) -> None:
        # An intake publishes nothing that interceptors see.
        self.frontend.forget_targets()
        self._rules.apply(config.rules)
        made = make_interceptors(config, self._rules, self._own_interceptors)
        made.carry_on(self._interceptors)
        self._interceptors = made
        self._hub.interceptors = made or None
        self._alerts.apply(config.rules)
        self._hub.on_entries = self._reader_of_entries()

    async def drain(self, window_s: float, *, replaced: bool = False) -> None:
        """Ends all streams over `window_s`; returns when all clients are closed, or a short time
        later.

        Keep-alive connections close after their next answer. A connection without a request closes
        when all streams have ended and a grace period is over. So a request that arrives at the
        start of the drain is answered.

        `replaced`: another worker has the same sockets. So publishers are not refused; their
        connections close after the next answer, and they reconnect to that worker.
        """
        grace_s = LEAVING_GRACE_S if replaced else IDLE_GRACE_S
        idle_until_s = self._loop.time() + grace_s
        if self.stream_count:
            log.info("Draining.", streams=self.stream_count, window=format_duration(window_s))
        self._drained = asyncio.Event()
        try:
            async with asyncio.timeout(window_s + grace_s + DRAIN_GRACE_S):
                if replaced:
                    self._is_leaving = True
                    self._stats.report()
                    await self.frontend.leave()
                self._hub.drain(window_s, refuse=not replaced)
                if not replaced:
                    self.frontend.drain()
                self._note_if_drained()
                await self._drained.wait()
                await self.frontend.close_idle(idle_until_s)
                await self.frontend.answered()
        except TimeoutError:
            if self.stream_count or self.frontend.unanswered:
                log.warning(
                    "Some streams were still open after the drain.", streams=self.stream_count
                )
        self._stats.report()  # The last report, so that no count is lost with this process.

    async def close(self) -> None:
        """Ends everything at once and releases all descriptors, threads and timers."""
        self._alerts.close()
        self._undo.close()
        if self._sources is not None:
            await self._sources.close()
        if self._sinks is not None:
            await self._sinks.close()
        await self._wakes.close()
        await self._stream_hooks.close()
        await self._backbone.close()
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_GRACE_S):
                await self.frontend.answered()
        # The loop closes sockets in its next turn.
        await asyncio.sleep(0)

    def abandon(self) -> None:
        """Releases what does not need the loop, which was closed before `close` was called."""
        with contextlib.suppress(RuntimeError):
            self._undo.close()

    def _stop_timers(self) -> None:
        self._ticking.cancel()
        if self._sweeping is not None:
            self._sweeping.cancel()

    def _tick(self) -> None:
        """Once a second: reports its figures, and checks for room."""
        self._vitals.tick()
        self._stats.report()
        self._access.tick()
        self.frontend.tick()
        self._ticking = self._loop.call_later(TICK_S, self._tick)

    def _reading(self) -> WorkerStats:
        """The statistics of this worker."""
        bounds, buckets, latency_s = self._sender.latency_buckets()
        cpu_s, resident_bytes = process_use()
        parts = (
            self._sender,
            self._hub,
            self._interceptors,
            self._rules,
            self.handlers,
            self.frontend,
            self._backbone,
        )
        counters: dict[str, int] = {}
        for part in parts:
            counters |= part.counters()
        counters |= self._own_counters()
        if self._counts_alerts:
            counters |= self._alerts.counters() | self._stream_hooks.counters()
        for reader in (self._sources, self._sinks):
            if reader is not None:
                counters |= reader.counters()
        connections = self._hub.streams.connections
        counters |= self._vitals.counters()
        counters |= {
            "memory_limit_bytes": self.config.memory_limit,
            "connection_rows_bytes": 0 if connections is None else connections.memory_bytes,
            "store_away": int(self._backbone.trouble is not None),
        }
        return WorkerStats(
            slot=self._slot,
            slots=self._slots,
            pid=os.getpid(),
            started_s=self._started_s,
            room=self.frontend.room(),
            unready=self.frontend.unready(),
            leaving=self._is_leaving,
            is_shared=self.frontend.is_shared,
            counters={ALIASES.get(key, key): value for key, value in counters.items()},
            bounds=bounds,
            buckets=buckets,
            latency_s=latency_s,
            cpu_s=cpu_s,
            resident_bytes=resident_bytes,
            consoles=self.frontend.consoles,
            trouble=self._backbone.trouble,
            exemplars={} if self._tracer is None else self._tracer.exemplars,
        )

    def _reader_of_entries(self) -> Callable[[Sequence[Entry]], None] | None:
        """What reads committed entries in addition to the streams; None: nothing does."""
        readers: list[Callable[[Sequence[Entry]], None]] = []
        if self._tracer is not None:
            readers.append(self._trace_entries)
        if self.handlers:
            readers.append(self.handlers.on_entries)
        if self._counts_alerts and self._alerts:
            readers.append(self._alerts.on_entries)
        if len(readers) < 2:
            return readers[0] if readers else None

        def read(entries: Sequence[Entry]) -> None:
            for reader in readers:
                reader(entries)

        return read

    def _trace_entries(self, entries: Sequence[Entry]) -> None:
        """Traces what was handed to channels."""
        assert self._tracer is not None
        topics = self._hub.topics.by_name
        self._tracer.fan_out(
            entries,
            lambda name: topics[name].channels if name in topics else 0,
            lambda done: self._hub.streams.inspect((), done),
        )

    def _announce(self, events: Sequence[Event], done: Callable[[bool], None]) -> None:
        """Publishes the events of a control service."""
        self._hub.publish(
            tuple(events), lambda outcome: done(not isinstance(outcome, FastsseError))
        )

    def _sweep(self) -> None:
        """Evicts events that are too old, a bounded amount per step."""
        more = self._hub.sweep(now_ms())
        delay_s = SWEEP_ON_S if more else TICK_S
        self._sweeping = self._loop.call_later(delay_s, self._sweep)

    def _sweep_soon(self) -> None:
        """Schedules a sweep. Further calls do not delay it."""
        soon_s = self._loop.time() + SWEEP_ON_S
        if self._sweeping is not None and self._sweeping.when() > soon_s:
            self._sweeping.cancel()
            self._sweeping = self._loop.call_at(soon_s, self._sweep)

    def _on_closed(self, stream: ClosedStream) -> None:
        self._access.closed(
            stream.handle, stream.reason, stream.duration_s, stream.events, stream.bytes
        )
        self.frontend.on_stream_closed(stream.handle)
        if self._hook_reports is not None:
            figures = (stream.events, stream.bytes)
            self._hook_reports.on_stream_closed(
                stream.handle, stream.reason, stream.duration_s, figures
            )
        self._on_own_closed(stream)
        self._note_if_drained()

    def _note_if_drained(self) -> None:
        if self._drained is not None and self.stream_count == 0:
            self._drained.set()

    def _log_start(self, has_page: bool) -> None:
        config = self.config
        addresses = self.frontend.main.addresses
        admin = self.frontend.admin.addresses
        if is_console():
            said, *more = start_lines(config, addresses, admin, has_page)
            log.info(said, more=more)
            return
        log.info(
            "fastsse is serving.",
            version=__version__,
            addresses=addresses,
            **({"admin": admin} if admin != addresses else {}),
            max_connections=self.max_connections,
            descriptors=self._descriptors.limit,
            memory_limit=format_size(config.memory_limit),
            store=show_store(config.store),
            history=format_size(config.history_total),
            max_lag=format_size(config.max_lag),
            publish="with a token" if config.publishing_needs_token else "without a token",
        )


def _sender(config: Config, descriptors: Descriptors) -> Sender:
    return Sender(
        max_connections=descriptors.max_connections,
        heartbeat_ms=round(config.heartbeat * 1000),
        max_lag_bytes=config.max_lag,
        max_lag_ms=round(config.max_lag_time * 1000),
        retry_ms=round(config.retry * 1000),
        ping_ms=round(config.ping * 1000),
        pong_timeout_ms=round(config.pong_timeout * 1000),
        expiry_notice_ms=round(config.expiry_notice * 1000),
        lifetime_ms=round(config.stream_lifetime * 1000),
        clean_end=config.clean_end == "always",
        seals=check_records(config),
    )


def _into(
    answer: "asyncio.Future[Published | FastsseError]",
) -> Callable[[Published | FastsseError], None]:
    def done(outcome: Published | FastsseError) -> None:
        if not answer.done():  # Else the caller gave up.
            answer.set_result(outcome)

    return done


def _id_of(outcome: Published | FastsseError) -> str:
    if isinstance(outcome, FastsseError):
        raise outcome
    return outcome.last.decode()
