"""The outermost ASGI application: streams at one path, everything else is the application's."""

import asyncio
import functools
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

from fastsse.asgi.engine import Engine
from fastsse.asgi.exchange import Call, Receive, Scope, Send
from fastsse.asgi.grants import Authorize, MountAccess
from fastsse.asgi.reading import StreamEvent, read_topics
from fastsse.asgi.serving import Serving, serve_request
from fastsse.config import Config
from fastsse.handlers import Handler
from fastsse.http.descriptors import raise_soft_limit
from fastsse.interceptors import Interceptor
from fastsse.log import get_logger
from fastsse.server import Server

__all__ = ["Mount", "mount"]

log = get_logger("asgi")
App = Callable[[Any, Any, Any], Awaitable[None]]
#: Where an application finds the mount in the scope of its requests.
SCOPE_KEY: Final = "fastsse"
# How often it is looked whether the ASGI server waits for copied streams to end before it says so.
EXIT_LOOK_S: Final = 0.25

P = ParamSpec("P")
T = TypeVar("T")
HandlerT = TypeVar("HandlerT", bound=Handler)


def _as_of_server(
    method: Callable[Concatenate[Server, P], Awaitable[T]],
) -> Callable[Concatenate["Mount", P], Coroutine[Any, Any, T]]:
    """A method of the mount that is one of its server."""

    async def call(mount: "Mount", /, *args: P.args, **fields: P.kwargs) -> T:
        return await method(await mount._running(), *args, **fields)

    functools.update_wrapper(call, method)
    return call


class Mount:
    """What `mount` returns: an ASGI application, and where the program publishes.

    The server of the mount starts with the lifespan of the ASGI server, or with the first request
    or publish where there is none. It ends with the lifespan: streams drain over the option
    `drain`. `async with mount:` starts and ends it by hand. One event loop at a time; only
    `publish_from_thread` may be called from other threads.

    The application finds it as `scope["fastsse"]`.
    """

    def __init__(
        self,
        app: App,
        path: str,
        authorize: Authorize | None,
        engine: Callable[["Mount"], Engine],
    ) -> None:
        self.app: Final = app
        self.path: Final = path
        self._made = engine
        self.serving = Serving(authorize, self._on_relays)
        self._engine: Engine | None = None
        self._starting: asyncio.Future[Engine] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handlers: list[tuple[tuple[str, ...], Handler]] = []
        self._looking: asyncio.TimerHandle | None = None
        self._draining: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http" and _path_in(scope) == self.path:
            engine = await self._running()
            await serve_request(engine, self.serving, Call(scope, receive, send))
        elif kind == "lifespan":
            await self._live(scope, receive, send)
        else:
            if self._loop is None or self._loop.is_closed():
                # A thread may publish during this request, where the server has no lifespan.
                self._change_loop(asyncio.get_running_loop())
            await self.app({**scope, SCOPE_KEY: self}, receive, send)

    # -- for the program ----------------------------------------------------------------------

    publish = _as_of_server(Server.publish_later)
    end_topic = _as_of_server(Server.end_topic)
    schedule = _as_of_server(Server.schedule)
    cancel = _as_of_server(Server.cancel)
    list_scheduled = _as_of_server(Server.list_scheduled)
    store_feed = _as_of_server(Server.store_feed)
    count_streams = _as_of_server(Server.count_streams)

    async def subscribe(
        self,
        topics: str | Sequence[str],
        *,
        last_event_id: str = "",
        until_data: str | None = None,
    ) -> AsyncGenerator[StreamEvent, None]:
        """The events of topics as a client with all grants receives them, in this process. Close
        the generator (`contextlib.aclosing`) when you leave it early.

        Arguments:
            topics: one or several; names, templates or `*`.
            last_event_id: begins after this event; `earliest` at the oldest kept; empty: at what is
                published next.
            until_data: it ends behind an event with this data.

        Raises InvalidSubscription, or StreamRefused. It ends when its topics have ended, or when
        the server drains.
        """
        names = (topics,) if isinstance(topics, str) else tuple(topics)
        context = (await self._running()).context
        async with aclosing(read_topics(context, names, last_event_id, until_data)) as events:
            async for event in events:
                yield event

    def publish_from_thread(
        self, topic: str | Sequence[str], data: Any, /, *, timeout_s: float = 30, **fields: Any
    ) -> str:
        """As `publish`, from a thread without the event loop, such as a synchronous view.

        Arguments:
            timeout_s: seconds to wait for the commit.

        Raises also TimeoutError (the event may be published then), and RuntimeError before the
        mount was started."""
        loop = self._loop
        if loop is None or loop.is_closed():
            raise RuntimeError("The mount does not run: its ASGI server has not started it.")
        called = self.publish(topic, data, **fields)
        return asyncio.run_coroutine_threadsafe(called, loop).result(timeout_s)

    def on(self, *types: str) -> Callable[[HandlerT], HandlerT]:
        """Registers a handler of committed events, as `Server.on`. Takes effect at the next
        start."""

        def register(handler: HandlerT) -> HandlerT:
            self._handlers.append((types, handler))
            return handler

        return register

    def watch(self, handler: Handler) -> Callable[[], None]:
        """As `on` for every type. Returns a function that removes the handler; both take effect at
        the next start."""
        one: tuple[tuple[str, ...], Handler] = ((), handler)
        self._handlers.append(one)
        return lambda: self._handlers.remove(one)

    @property
    def is_running(self) -> bool:
        """Whether the server of the mount was started."""
        return self._engine is not None

    @property
    def stream_count(self) -> int:
        """The number of open streams; 0 before the start."""
        return 0 if self._engine is None else self._engine.stream_count

    def viewers(self, topic: str) -> int:
        """The number of open streams of this process that name a topic; those of templates and `*`
        are not counted. O(1)."""
        return self.serving.viewers.count(topic)

    async def unwatched(self, topic: str, for_s: float = 10.0) -> None:
        """Returns when no stream of this process has named a topic for `for_s` seconds: when the
        last viewer has left and did not return, or none came."""
        await self.serving.viewers.wait_until_none(topic, for_s)

    async def start(self) -> None:
        """Starts the server. Idempotent. Raises ConfigError, or the error of the store."""
        await self._running()

    async def close(self, drain_s: float | None = None) -> None:
        """Ends all streams, spread over `drain_s` seconds (None: the option `drain`), and the
        server. Idempotent."""
        engine, self._engine, self._starting = self._engine, None, None
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if engine is not None:
            engine.on_ended = lambda reason: None
            await engine.drain(drain_s)
            await engine.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close(0)

    # -- the server ---------------------------------------------------------------------------

    async def _running(self) -> Engine:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._change_loop(loop)
        if self._engine is not None:
            return self._engine
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        return await asyncio.shield(self._starting)

    def _change_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None and self._engine is not None:
            if not self._loop.is_closed():
                raise RuntimeError("The mount runs in another event loop.")
            self._engine.abandon()
        self._engine = self._starting = self._looking = self._draining = None
        self._loop = loop

    async def _start(self) -> Engine:
        engine = self._made(self)
        for types, handler in self._handlers:
            engine.on(*types)(handler)
        engine.on_ended = self._on_ended
        raise_soft_limit(engine.config.max_connections)
        try:
            await engine.start()
        except BaseException:
            self._starting = None
            raise
        log.info("fastsse is mounted.", path=self.path, max_connections=engine.max_connections)
        self._engine = engine
        return engine

    def _on_ended(self, reason: str) -> None:
        """The hub process gave this worker up: it begins again, and its clients reconnect."""
        log.error("The hub process disconnected this worker; it starts again.", reason=reason)
        engine, self._engine, self._starting = self._engine, None, None
        if engine is not None:
            self._draining = asyncio.ensure_future(self._restart(engine))

    async def _restart(self, engine: Engine) -> None:
        await engine.close()
        await self._running()

    def counters(self) -> Mapping[str, int]:
        """Streams by how they are sent, under the names of the metrics."""
        return self.serving.counters()

    # -- lifespan -----------------------------------------------------------------------------

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The lifespan of the application, within that of the server."""
        has_begun = False

        async def received() -> dict[str, Any]:
            nonlocal has_begun
            message = await receive()
            has_begun = True
            if message["type"] == "lifespan.startup":
                await self.start()
            return message

        async def sent(message: dict[str, Any]) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await self.close()
            await send(message)

        try:
            await self.app({**scope, SCOPE_KEY: self}, received, sent)
        except Exception:
            if has_begun:
                raise
            # An application without a lifespan.
            await self._live_alone(receive, send)

    async def _live_alone(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})

    def _on_relays(self, count: int) -> None:
        """Copied streams are open, or the last has ended. uvicorn ends the lifespan only after the
        last response, and a copied stream is one. So its intention is looked for, which then ends
        the streams."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if count and self._loop is not None and self._draining is None:
            self._looking = self._loop.call_later(EXIT_LOOK_S, self._look_at_exit, count)

    def _look_at_exit(self, count: int) -> None:
        if not _is_exiting():
            self._on_relays(count)
        elif self._engine is not None:
            self._looking = None
            self._draining = asyncio.ensure_future(self._engine.drain())


def mount(
    app: App,
    path: str = "/events",
    *,
    authorize: Authorize | None = None,
    config: Config | None = None,
    hub_socket: str | None = None,
    interceptors: Sequence[Interceptor] = (),
) -> Mount:
    """Serves event streams at a path of an ASGI application. The result is the outermost
    application: middleware belongs inside.

    Arguments:
        app: the application that gets every other request.
        path: GET subscribes, POST publishes where `authorize` grants it.
        authorize: called with the scope of each request, plain or async; returns `fastsse.Grants`,
            or a list of the topics whose private events the client may read, or None: refused.
            Without it any client may read public events, and none may publish, unless the options
            have a `jwt_key` or a `publish_token`.
        config: the options; those of listeners have no effect, but for `admin_port`, which serves
            health, metrics and the console.
        hub_socket: the path of the Unix socket of `fastsse hub`, for several processes with the
            same application.
        interceptors: as of `Server`.

    Raises ValueError for a path that does not begin with `/`, or for `authorize` together with
    keys or tokens in the options.
    """
    options = Config() if config is None else config
    if not path.startswith("/") or path.rstrip("/") == "":
        raise ValueError(f"{path!r} must be a path such as /events")
    if authorize is not None and options.publishing_needs_token:
        raise ValueError("authorize can't be combined with jwt_key or publish_token")
    is_decided = options.publishing_needs_token or options.allow_anonymous_publish
    access = MountAccess(options) if authorize is not None or not is_decided else None

    def engine(mounted: Mount) -> Engine:
        return Engine(options, hub_socket, access, mounted.serving, interceptors)

    return Mount(app, path.rstrip("/"), authorize, engine)


def _path_in(scope: Scope) -> str:
    """The path below the root path of the ASGI server."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root):
        path = path[len(root) :]
    return path.rstrip("/") if len(path) > 1 else path


def _is_exiting() -> bool:
    """Whether uvicorn, which handles the signals of this process, is asked to end."""
    owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(owner, "should_exit", False) is True
