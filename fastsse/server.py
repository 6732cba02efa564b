"""One worker: a loop's listeners and connections, the hub, the sender; and their common end.

`Server` lives inside anyone's asyncio program and leaves the process alone. `run` is a program of
its own: it raises limits, takes signals and drains.
"""

import asyncio
import contextlib
import gc
import signal
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

import orjson
import uvloop

from fastsse._core import Sender
from fastsse.backbone.memory import MemoryBackbone
from fastsse.channels import ClosedStream
from fastsse.config import Config
from fastsse.errors import FastsseError, InvalidEvent
from fastsse.events import Event
from fastsse.facts import build_facts
from fastsse.http.descriptors import Descriptors, raise_soft_limit
from fastsse.http.entrance import Entrance, Sockets
from fastsse.hub import Hub, Published
from fastsse.log import AccessLog, get_logger
from fastsse.metrics import Metrics
from fastsse.units import format_duration, format_size
from fastsse.version import __version__

__all__ = ["Server", "run"]

log = get_logger("server")
TICK_S: Final = 1.0
# When more is to be swept than one step does, the next comes so soon.
SWEEP_ON_S: Final = 0.005
# What a drain may take beyond its window, for answers and last bytes.
DRAIN_GRACE_S: Final = 1.0
# Young objects are nearly all freed by their counts; looking for cycles less often saves time.
GC_THRESHOLD: Final = 20_000


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


class Server:
    """A server in an asyncio program, on asyncio's own loop or uvloop's.

        async with fastsse.Server(Config(port=0)) as server:
            server.publish("news", {"n": 1}, event="tick")

    It starts on entering and drains on leaving; after an exception it ends all streams at once.
    It takes no signals and changes no process limit. Everything is for the loop thread.

    Raises ConfigError or ListenError on entering, and has then left nothing behind.
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config: Final = Config() if config is None else config
        self._undo: contextlib.ExitStack | None = None
        self._drained: asyncio.Event | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._ticking: asyncio.TimerHandle | None = None

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

    # ── Use ──────────────────────────────────────────────────────────────────────────────────

    @property
    def port(self) -> int:
        """The TCP port listened on; 0 when there is none."""
        return self._entrance.main.port

    @property
    def addresses(self) -> list[str]:
        """Where subscribers and publishers come in: `http://127.0.0.1:8080`, `unix:/path`."""
        return self._entrance.main.addresses

    @property
    def admin_addresses(self) -> list[str]:
        """Where health, metrics, statistics and the page are: elsewhere with `admin_port`."""
        return self._entrance.admin.addresses

    @property
    def max_connections(self) -> int:
        """Streams that can be open at once."""
        return self._descriptors.max_connections

    @property
    def stream_count(self) -> int:
        """Streams that are open now."""
        return self._descriptors.max_connections - self._sender.free_slot_count

    def publish(
        self,
        topic: str | Sequence[str],
        data: Any,
        *,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
    ) -> str:
        """Publishes one event and returns its id.

        Arguments:
            topic: one topic or up to 100.
            data: text or UTF-8 bytes as they are; anything else as compact JSON.
            event, id, retry: as Event takes them; retry in milliseconds.

        Raises InvalidEvent for what can't be published, Refused when the server can't take it
        now. O(bytes + topics), whatever the subscribers.
        """
        text = data if isinstance(data, str | bytes) else _json(data)
        outcomes: list[Published | FastsseError] = []
        self._hub.publish((Event(topic, text, event, id, retry),), outcomes.append)
        outcome = outcomes[0]
        if isinstance(outcome, FastsseError):
            raise outcome
        return outcome.last.decode()

    async def drain(self, window_s: float | None = None) -> None:
        """Stops listening and ends all streams spread over a time (the option `drain`), each told
        when to come back; publishers get 503. Returns when all are gone, or 1 s after the window.
        """
        if self._undo is None:
            return
        window_s = self.config.drain if window_s is None else window_s
        if self.stream_count:
            log.info("Draining.", streams=self.stream_count, window=format_duration(window_s))
        self._drained = asyncio.Event()
        self._hub.drain(window_s)
        self._entrance.drain()
        self._note_if_drained()
        try:
            async with asyncio.timeout(window_s + DRAIN_GRACE_S):
                await self._drained.wait()
                await self._entrance.answered()
        except TimeoutError:
            log.warning("Some clients outlived the drain.", streams=self.stream_count)

    # ── Life ─────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Binds, starts the sender, listens; logs one line about it. `close` undoes it."""
        config = self.config
        self._drained = None
        self._descriptors = Descriptors.plan(config.max_connections)
        with contextlib.ExitStack() as undo:
            sockets = undo.enter_context(contextlib.closing(Sockets.bind(config)))
            # Before the sender's thread exists; see there.
            self._descriptors.grow_table()
            self._sender = sender = _sender(config, self._descriptors)
            undo.callback(sender.stop)
            sender.start()
            self._backbone = MemoryBackbone(now_ms)
            self._hub = hub = Hub(sender, self._backbone, config, config)
            hub.channels.on_closed = self._on_closed
            loop = asyncio.get_running_loop()
            loop.add_reader(sender.notice_fd, hub.channels.read_notices)
            undo.callback(loop.remove_reader, sender.notice_fd)
            self._access = AccessLog(config)
            self._entrance = entrance = Entrance(
                config, hub, self._descriptors, lambda: self.stream_count, self._access
            )
            undo.callback(entrance.close)
            self._metrics = Metrics(
                [sender.counters, hub.counters, entrance.counters],
                sender.latency_buckets,
                build_facts(),
            )
            entrance.serve(sockets, self._metrics)
            self._tick()
            self._sweep()
            undo.callback(self._stop_timers)
            self._undo = undo.pop_all()
        self._log_start()

    async def close(self) -> None:
        """Ends everything at once: no descriptor, thread or timer is left. Idempotent."""
        if self._undo is None:
            return
        undo, self._undo = self._undo, None
        undo.close()
        await self._backbone.close()
        # Aborted transports close their sockets in the loop's next turns.
        await self._entrance.answered()

    def _stop_timers(self) -> None:
        for timer in (self._ticking, self._sweeping):
            if timer is not None:
                timer.cancel()

    def _tick(self) -> None:
        """Once a second: rates, and the access log's allowance."""
        self._metrics.tick()
        self._access.tick()
        self._ticking = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _sweep(self) -> None:
        """Evicts what is too old, a bounded amount a step."""
        more = self._hub.sweep(now_ms())
        delay_s = SWEEP_ON_S if more else TICK_S
        self._sweeping = asyncio.get_running_loop().call_later(delay_s, self._sweep)

    def _on_closed(self, stream: ClosedStream) -> None:
        self._access.closed(
            stream.handle, stream.reason, stream.duration_s, stream.events, stream.bytes
        )
        self._note_if_drained()

    def _note_if_drained(self) -> None:
        if self._drained is not None and self.stream_count == 0:
            self._drained.set()

    def _log_start(self) -> None:
        config = self.config
        admin = self.admin_addresses
        log.info(
            "fastsse is serving.",
            version=__version__,
            addresses=self.addresses,
            **({"admin": admin} if admin != self.addresses else {}),
            max_connections=self.max_connections,
            descriptors=self._descriptors.limit,
            memory_limit=format_size(config.memory_limit),
            history=format_size(config.history_total),
            max_lag=format_size(config.max_lag),
            publish="with a token" if config.publish_token else "by anyone",
        )


def _sender(config: Config, descriptors: Descriptors) -> Sender:
    return Sender(
        max_connections=descriptors.max_connections,
        heartbeat_ms=round(config.heartbeat * 1000),
        max_lag_bytes=config.max_lag,
        max_lag_ms=round(config.max_lag_time * 1000),
        retry_ms=round(config.retry * 1000),
    )


def _json(data: Any) -> bytes:
    try:
        return orjson.dumps(data)
    except TypeError as error:
        raise InvalidEvent("data", f"must be text, bytes or JSON: {error}") from None


def run(config: Config) -> int:
    """Serves until SIGTERM or SIGINT, drains, and returns the process's exit status: 0, or 128
    plus the number of a second signal, which ends it at once.

    Raises ConfigError or ListenError before anything is served. Main thread only. Logging is the
    caller's to configure.
    """
    raise_soft_limit(config.max_connections)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config))


async def _serve(config: Config) -> int:
    loop = asyncio.get_running_loop()
    signals: asyncio.Queue[int] = asyncio.Queue()
    server = Server(config)
    await server.start()
    with contextlib.ExitStack() as undo:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signals.put_nowait, number)
            undo.callback(loop.remove_signal_handler, number)
        loop.add_signal_handler(signal.SIGHUP, _on_hangup)
        undo.callback(loop.remove_signal_handler, signal.SIGHUP)
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])
        try:
            await signals.get()
            return await _drained_or_signalled(server, signals)
        finally:
            await server.close()


async def _drained_or_signalled(server: Server, signals: "asyncio.Queue[int]") -> int:
    draining = asyncio.create_task(server.drain())
    again = asyncio.create_task(signals.get())
    done, pending = await asyncio.wait((draining, again), return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    if draining in done:
        draining.result()
        log.info("Stopped.")
        return 0
    log.warning("Stopped by a second signal.", signal=again.result())
    return 128 + again.result()


def _on_hangup() -> None:
    log.warning("SIGHUP is ignored: reloading needs a restart.")
