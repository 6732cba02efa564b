"""The public server: embedded in an asyncio program, or as a process of its own.

`Server` does not change the process. `run` raises limits, handles signals and drains.

Over 400 lines: it is the one list of what a program can do with a server.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import orjson

from fastsse.api.receipts import StreamCount
from fastsse.config import Config
from fastsse.control.schedule import ScheduledEvent
from fastsse.directives import Directives, directives_of, is_delayed, own_key
from fastsse.errors import InvalidEvent
from fastsse.events import DATA_JSON, DATA_TEXT, Event
from fastsse.handlers import Handler, Handlers
from fastsse.hooks import StreamHandler, StreamHandlers
from fastsse.interceptors import Interceptor
from fastsse.meta import MetaValue
from fastsse.supervisor.alone import run_alone
from fastsse.supervisor.notify import Notifier
from fastsse.supervisor.process_setup import worker_count
from fastsse.supervisor.processes import run_service
from fastsse.supervisor.sockets import Activation
from fastsse.worker import Hooks, Worker

__all__ = ["Server", "run"]


HandlerT = TypeVar("HandlerT", bound=Handler)
StreamHandlerT = TypeVar("StreamHandlerT", bound=StreamHandler)


class Server:
    """A server in an asyncio program, on the loop of asyncio or uvloop.

        async with fastsse.Server(Config(port=0)) as server:
            server.publish("news", {"n": 1}, event="tick")

    It starts at the start of the block and drains at its end; after an exception it ends all
    streams at once. It handles no signals and changes no process limit. Use it only on the loop
    thread. Methods that need a running server raise RuntimeError without one.

    `interceptors` see each event before it is ordered, after those of the option `interceptors`
    (`fastsse.interceptors`); they can't be interrupted here, so one that takes longer than
    `interceptor_time` is refused when it returns.

    Entering the block raises ConfigError or ListenError; then all resources are released. Errors of
    methods are classes of `fastsse.errors`, all of them FastsseError.
    """

    def __init__(
        self, config: Config | None = None, *, interceptors: Sequence[Interceptor] = ()
    ) -> None:
        self._interceptors = tuple(interceptors)
        self._handlers: Final = Handlers()
        self._stream_handlers: Final = StreamHandlers()
        self.config: Final = Config() if config is None else config
        self._running: Worker | None = None
        self._is_starting = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.drain(0 if kind else None)
        finally:
            await self.close()

    @property
    def port(self) -> int:
        """The TCP port of the listener; 0 if there is none."""
        return self._worker.frontend.main.port

    @property
    def addresses(self) -> list[str]:
        """The addresses for streams and publishes, such as `http://127.0.0.1:8080` or
        `unix:/path`."""
        return self._worker.frontend.main.addresses

    @property
    def admin_addresses(self) -> list[str]:
        """The addresses for health, metrics, statistics and the console; `admin_port` makes them
        different."""
        return self._worker.frontend.admin.addresses

    @property
    def max_connections(self) -> int:
        """The maximum number of open streams."""
        return self._worker.max_connections

    @property
    def stream_count(self) -> int:
        """The number of open streams."""
        return self._worker.stream_count

    def publish(
        self,
        topic: str | Sequence[str],
        data: Any,
        *,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
        private: bool = False,
        meta: Mapping[str, MetaValue] | None = None,
        end: bool = False,
        key: str | None = None,
        expect: str | None = None,
        ttl: float | str | None = None,
    ) -> str:
        """Publishes one event and returns its id. Only for the memory store; `publish_later` is for
        every store.

        Arguments:
            topic: one topic or up to 100, each of 1 to 1,024 bytes.
            data: text or UTF-8 bytes as they are; anything else as compact JSON.
            event, id: as in Event: at most 256 bytes each.
            retry: milliseconds after which clients reconnect, clamped to 1 s … 1 h.
            private: send it only to subscribers with a matching grant.
            meta: named values next to the data, at most 32 and 4,096 bytes of JSON; a value is
                text, a number, true or false.
            end: its topics end behind it.
            key: an event with the same key within `key_window` is not published again; its id is
                returned. 1 to 256 characters of printable ASCII.
            expect: the id that the newest event of its topic must have, or `earliest` for none.
            ttl: seconds, or text such as `30s`, after which it is not sent any more.

        Raises InvalidEvent for an invalid event or one that a rule of its topic refuses, TopicEnded
        for a topic that has ended, PreconditionFailed for another newest event than expected,
        InterceptorFailed, Unavailable when the server can't accept it now (RateExceeded: its topic
        gets too many), RuntimeError for a store that is not memory. O(bytes + topics); the number
        of subscribers has no effect.
        """
        asked = _directives(end, key, expect, ttl)
        made = _event(topic, data, event, id, retry, private, meta, asked)
        return self._worker.publish(made)

    async def publish_later(
        self,
        topic: str | Sequence[str],
        data: Any,
        *,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
        private: bool = False,
        meta: Mapping[str, MetaValue] | None = None,
        end: bool = False,
        key: str | None = None,
        expect: str | None = None,
        ttl: float | str | None = None,
    ) -> str:
        """As `publish`, with any store: returns when the event is committed as the option `ack`
        says.

        Concurrent calls keep the order in which they started. Cancelling a call does not withdraw
        its event.
        """
        asked = _directives(end, key, expect, ttl)
        made = _event(topic, data, event, id, retry, private, meta, asked)
        return await self._worker.publish_later(made)

    async def schedule(
        self,
        topic: str | Sequence[str],
        data: Any,
        *,
        deliver_at: int | str | None = None,
        delay: float | str | None = None,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
        private: bool = False,
        meta: Mapping[str, MetaValue] | None = None,
        end: bool = False,
        key: str | None = None,
        ttl: float | str | None = None,
    ) -> str:
        """Publishes an event later, once, and returns the id under which it waits (`cancel`). It is
        kept by the store: over kills in a file or Redis; in memory until this process ends.

        Arguments:
            deliver_at: unix milliseconds, or a time of RFC 3339; one in the past is now.
            delay: seconds, or text such as `10m`; at most a year. One of both.
            others: as of `publish`; `ttl` counts from the delivery. With a `key` an event that
                waits already is not kept again.

        The event is checked now. A topic that has ended by then makes it a dead letter: a log line,
        a metric, and a member of `GET /schedule`. Raises as `publish_later`.
        """
        asked = directives_of(ends=end, ttl=ttl, key=key, deliver_at=deliver_at, delay=delay)
        if not is_delayed(asked):
            raise InvalidEvent("delay", "is missing; give deliver_at or delay")
        assert asked is not None
        if asked.key is not None:
            asked = asked._replace(key=own_key(asked.key))
        return await self._worker.schedule(
            _event(topic, data, event, id, retry, private, meta, asked)
        )

    async def cancel(self, scheduled: str) -> None:
        """Cancels an event that `schedule` has kept. Raises NotKept when it does not wait any more,
        or Unavailable."""
        await self._worker.cancel(scheduled)

    async def list_scheduled(self) -> list[ScheduledEvent]:
        """The delayed events: those that wait, in the order of their time, then the newest 200 that
        could not be published, which have a `reason`. O(events). Raises Unavailable."""
        return await self._worker.list_scheduled()

    async def end_topic(self, topic: str | Sequence[str]) -> str:
        """Ends a topic, or several, and returns the id of the end; of topics that have ended
        already, that of then. Events for it are refused from now on. Streams that follow nothing
        else get `fastsse.end` and are over.

        Raises InvalidEvent or Unavailable.
        """
        return await self._worker.publish_later(Event.end(topic))

    async def count_streams(
        self, topic: str | Sequence[str], *, private: bool = False
    ) -> StreamCount:
        """How many streams match a publish to a topic, or to at least one of several, within the
        last second: at this node, and in the cluster. Filters are not looked at.

        Arguments:
            private: only streams with a grant.

        Raises InvalidEvent, or Unavailable when it can't be counted now. O(channels) at every
        worker, at most once a second for equal questions.
        """
        topics = (topic,) if isinstance(topic, str) else tuple(topic)
        return await self._worker.count_streams(topics, private=private)

    async def store_feed(self, topics: Iterable[str]) -> str:
        """Stores a selection of up to 10,000 topics, templates or `*`, and returns its id, for
        `GET /events?feed=ID`. Equal selections have the same id. It grants nothing: private events
        need the rights of the subscriber.

        It is kept until it was not used for `feed_lifetime`. Raises InvalidSubscription, or
        Unavailable when it can't be stored now. O(n log n).
        """
        return await self._worker.store_feed(topics)

    async def delete_event(self, topic: str, id: str) -> str:
        """Deletes the event of a topic that has this id, in all its topics: no read that begins
        after this returns shows it. Returns the id of the entry that says so. Its place stays, so
        streams resume without a gap.

        Raises NotKept when there is no such event, InvalidEvent, or Unavailable.
        """
        return await self._worker.delete_event(topic, id)

    async def purge_topic(self, topic: str) -> str:
        """As `delete_event`, of all events of a topic, also those that have other topics too. A
        topic that has ended stays so. Raises NotKept when it has no events. O(events)."""
        return await self._worker.purge_topic(topic)

    def on(self, *types: str) -> Callable[[HandlerT], HandlerT]:
        """Registers a handler of committed events, as a decorator, before the server starts.

            @server.on("user.login.*")
            async def notice(event: fastsse.HandledEvent) -> None: ...

        Arguments:
            types: patterns of event types: `*` is any text, `?` one character; `message` is an
                event without a type. None: every event.

        Each event of the whole service is passed once, in order, also those of other nodes. A plain
        function is called on the loop thread; a coroutine function runs in a task, one event after
        the other. What waits for it is bounded: 1,000 events and 16 MiB; more are dropped, logged
        and counted. An exception is logged and counted. Raises RuntimeError when the server runs.
        """
        if self._running is not None or self._is_starting:
            raise RuntimeError("Handlers are registered before the server starts.")

        def register(handler: HandlerT) -> HandlerT:
            self._handlers.add(types or ("*",), handler)
            return handler

        return register

    def on_stream(
        self, *on: str, topics: Iterable[str] = ("*",), linger: float = 5.0
    ) -> Callable[[StreamHandlerT], StreamHandlerT]:
        """Registers a handler of streams, as a decorator, before the server starts.

            @server.on_stream("first", "last", topics=["prices/{symbol}"])
            async def demand(hook: fastsse.StreamHook) -> None: ...

        Arguments:
            on: `connect` and `disconnect` of each stream, `first` and `last` subscriber of a topic
                at this node; None: all four.
            topics: topics or templates; others are left out.
            linger: seconds that a topic has no subscriber before that is `last`.

        Handlers are called on the loop thread, one hook after the other; a coroutine is awaited. Of
        topics that change meanwhile only the newest state is passed. Hooks of streams that wait are
        bounded by 16 MiB; more are dropped, logged and counted. An exception is logged and counted.
        Raises ValueError for an unknown hook, RuntimeError when the server runs.
        """
        if self._running is not None or self._is_starting:
            raise RuntimeError("Handlers are registered before the server starts.")

        def register(handler: StreamHandlerT) -> StreamHandlerT:
            self._stream_handlers.add(handler, on, tuple(topics), linger)
            return handler

        return register

    async def start(self) -> None:
        """Binds, starts the sender and listens; logs one line. `close` reverses it."""
        if self._running is not None or self._is_starting:
            raise RuntimeError("The server is running already.")
        self._is_starting = True
        try:
            self._running = await self._open(
                Hooks(
                    self._interceptors,
                    self._handlers,
                    stream_handlers=self._stream_handlers,
                )
            )
        finally:
            self._is_starting = False

    async def _open(self, hooks: Hooks) -> Worker:
        return await Worker.open(self.config, hooks=hooks)

    async def drain(self, window_s: float | None = None) -> None:
        """Stops listening and ends all streams spread over a time (the option `drain`); each gets a
        time to reconnect; publishers get 503. Returns when all are gone, or 1 s after the end.
        """
        if self._running is not None:
            await self._running.drain(self.config.drain if window_s is None else window_s)

    async def close(self) -> None:
        """Ends everything at once and releases all descriptors, threads and timers. Idempotent."""
        running, self._running = self._running, None
        if running is not None:
            await running.close()
            await self._handlers.close()

    @property
    def _worker(self) -> Worker:
        if self._running is None:
            raise RuntimeError("The server is not running.")
        return self._running


def _event(
    topic: str | Sequence[str],
    data: Any,
    event: str | None,
    id: str | None,
    retry: int | None,
    private: bool,
    meta: Mapping[str, MetaValue] | None,
    directives: Directives | None,
) -> Event:
    kind, text = _encoded(data)
    return Event(
        topic,
        text,
        event,
        id,
        retry,
        private,
        meta=meta,
        data_kind=kind,
        directives=directives,
    )


def _directives(
    end: bool, key: str | None, expect: str | None, ttl: float | str | None
) -> Directives | None:
    asked = directives_of(ends=end, key=key, expect=expect, ttl=ttl)
    return asked if asked is None or asked.key is None else asked._replace(key=own_key(asked.key))


def _encoded(data: Any) -> tuple[int, str | bytes]:
    """The kind of the data, and its text."""
    if isinstance(data, str | bytes):
        return DATA_TEXT, data
    try:
        return DATA_JSON, orjson.dumps(data)
    except TypeError as error:
        raise InvalidEvent("data", f"must be text, bytes or JSON: {error}") from None


def run(
    config: Config,
    load: Callable[[], Config] | None = None,
    origin_of: Callable[[str], str] = lambda option: "an argument",
) -> int:
    """Serves until SIGTERM or SIGINT, drains, and returns the exit status of the process: 0, or 128
    plus the number of a second signal, which ends it at once.

    Arguments:
        config: the options. With more than one worker this process supervises others.
        load: reads the options again, for SIGHUP; None keeps the present ones.

    Raises ConfigError, ListenError or another FastsseError before it serves. Main thread only. The
    caller configures logging.
    """
    notifier, activation = Notifier(), Activation.take()
    workers = worker_count(config.workers)
    again = load or (lambda: config)
    with contextlib.closing(notifier):
        if workers == 1:
            return run_alone(config, again, notifier, activation)
        return run_service(config, workers, again, origin_of, notifier, activation)
